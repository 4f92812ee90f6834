"""Small networks, one for each structure that channels have to be followed through."""

from __future__ import annotations

import numpy as np
from text_models import build, random

PADS = "<pads = [1, 1, 1, 1]>"


def kernels(out, channels, size=3, seed=0):
    return random(out, channels, size, size, seed=seed) / 3


def norm(width, seed=0):
    """Return scale, bias, mean and variance by the last letter of their names."""
    rng = np.random.default_rng(seed)
    return [rng.random(width).astype(np.float32) + 0.5 for _ in range(4)]


def chain():
    return build(
        f"""(float[N,3,8,8] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k1, b1)  n = BatchNormalization (a, s, o, m, v)  r = Relu (n)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)  f = Flatten (p)
            h = Gemm <transB = 1> (f, w1, c1)  g = Relu (h)  y = MatMul (g, w2)
        }}""",
        **dict(zip("somv", norm(6), strict=True)),
        k1=kernels(6, 3),
        b1=random(6),
        w1=random(7, 96, seed=1),
        c1=random(7, seed=2),
        w2=random(7, 5, seed=3),
    )


def residual():
    return build(
        f"""(float[N,3,8,8] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)
            b = Conv {PADS} (a, k1)  c = Relu (b)  d = Conv {PADS} (c, k2)  e = Add (d, a)
            f = Conv (e, k3)  g = Conv {PADS} (e, k4)  gs = Relu (g)  h = Conv {PADS} (gs, k5)
            j = Sum (f, h)  p = GlobalAveragePool (j)  q = Flatten (p)  y = MatMul (q, w)
        }}""",
        k0=kernels(6, 3),
        k1=kernels(4, 6, seed=1),
        k2=kernels(6, 4, seed=2),
        k3=kernels(8, 6, 1, seed=3),
        k4=kernels(5, 6, seed=4),
        k5=kernels(8, 5, seed=5),
        w=random(8, 5),
    )


def slice_and_pad():
    """The shortcut of type A: every second pixel, channels filled up with zeros."""
    return build(
        f"""(float[N,3,8,8] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)
            b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (a, k1)
            s = Slice (a, starts, ends, axes, steps)  p = Pad (s, pads)  c = Add (b, p)
            d = Conv {PADS} (c, k2)  g = GlobalAveragePool (d)  f = Flatten (g)  y = MatMul (f, w)
        }}""",
        k0=kernels(4, 3),
        k1=kernels(8, 4, seed=1),
        k2=kernels(6, 8, seed=2),
        w=random(6, 5),
        starts=np.array([0, 0]),
        ends=np.array([1 << 60, 1 << 60]),
        axes=np.array([2, 3]),
        steps=np.array([2, 2]),
        pads=np.array([0, 2, 0, 0, 0, 2, 0, 0]),
    )


def dense():
    """DenseNet: normalisation and Caffe2's scale stand on the concatenation."""
    return build(
        f"""(float[N,3,8,8] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  b = Conv {PADS} (a, k1)  ab = Concat <axis = 1> (a, b)
            n = BatchNormalization (ab, s, o, m, v)  r = Relu (n)  c = Conv {PADS} (r, k2)
            abc = Concat <axis = 1> (ab, c)  t = Mul (abc, scale)  u = Add (t, shift)
            g = GlobalAveragePool (u)  f = Flatten (g)  y = MatMul (f, w)
        }}""",
        **dict(zip("somv", norm(10), strict=True)),
        k0=kernels(6, 3),
        k1=kernels(4, 6, seed=1),
        k2=kernels(5, 10, seed=2),
        scale=random(15, 1, 1),
        shift=random(1, 15, 1, 1, seed=1),
        w=random(15, 5),
    )


def grouped():
    return build(
        f"""(float[N,3,8,8] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  b = Conv <pads = [1, 1, 1, 1], group = 2> (a, k1, b1)
            r = Relu (b)  c = Conv (r, k2)  g = GlobalAveragePool (c)  f = Flatten (g)
            y = MatMul (f, w)
        }}""",
        k0=kernels(8, 3),
        k1=kernels(12, 4, seed=1),
        b1=random(12),
        k2=kernels(6, 12, 1, seed=2),
        w=random(6, 5),
    )


def inverted_residual():
    """MobileNetV3: expand, depthwise, squeeze and excite, project, add."""
    return build(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv (x, k0)
            e = Conv (a, k1)  h = HardSwish (e)
            d = Conv <pads = [1, 1, 1, 1], group = 10> (h, k2)  r = Relu (d)
            s1 = GlobalAveragePool (r)  s2 = Conv (s1, k3)  s3 = Relu (s2)  s4 = Conv (s3, k4)
            s5 = HardSigmoid (s4)  m = Mul (r, s5)
            p = Conv (m, k5)  q = Add (p, a)
            g = GlobalAveragePool (q)  f = Flatten (g)  y = MatMul (f, w)
        }""",
        k0=kernels(6, 3, 1),
        k1=kernels(10, 6, 1, seed=1),
        k2=kernels(10, 1, seed=2),
        k3=kernels(4, 10, 1, seed=3),
        k4=kernels(10, 4, 1, seed=4),
        k5=kernels(6, 10, 1, seed=5),
        w=random(6, 5),
    )


def shuffle():
    return build(
        """(float[N,3,4,4] x) => (float[N,5] y) {
            a = Conv (x, k0)  b = Conv <group = 2> (a, k1)
            s = Reshape (b, split)  t = Transpose <perm = [0, 2, 1, 3, 4]> (s)
            u = Reshape (t, join)  c = Conv <group = 2> (u, k2)
            g = GlobalAveragePool (c)  f = Flatten (g)  y = MatMul (f, w)
        }""",
        k0=kernels(8, 3, 1),
        k1=kernels(8, 4, 1, seed=1),
        k2=kernels(8, 4, 1, seed=2),
        split=np.array([-1, 2, 4, 4, 4]),
        join=np.array([-1, 8, 4, 4]),
        w=random(8, 5),
    )


def pixel_shuffle():
    return build(
        f"""(float[N,3,4,4] x) => (float[N,2,8,8] y) {{
            a = Conv {PADS} (x, k0)  d = DepthToSpace <blocksize = 2, mode = "CRD"> (a)
            y = Conv {PADS} (d, k1)
        }}""",
        k0=kernels(16, 3),
        k1=kernels(2, 4, seed=1),
    )


def unet():
    return build(
        f"""(float[N,3,8,8] x) => (float[N,2,8,8] y) {{
            a = Conv {PADS} (x, k0)  r = Relu (a)
            p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            b = Conv {PADS} (p, k1)  s = PRelu (b, slope)
            u = ConvTranspose <strides = [2, 2], group = 2> (s, k2, b2)
            v = Resize <mode = "nearest"> (b, , scales)
            c = Concat <axis = 1> (r, u, v)  d = Conv {PADS} (c, k3)  y = Conv (d, k4)
        }}""",
        k0=kernels(4, 3),
        k1=kernels(6, 4, seed=1),
        slope=random(6, 1, 1),
        k2=random(6, 4, 2, 2, seed=2),
        b2=random(8),
        scales=np.array([1, 1, 2, 2], np.float32),
        k3=kernels(5, 18, seed=3),
        k4=kernels(2, 5, 1, seed=4),
    )


def c2f():
    """YOLO's C2f: split, convolve one half, join all of it."""
    return build(
        f"""(float[N,3,8,8] x) => (float[N,2,8,8] y) {{
            a = Conv (x, k0)  g = Sigmoid (a)  s = Mul (a, g)
            l, r = Split <axis = 1> (s, halves)
            c = Conv {PADS} (r, k1)  d = Conv {PADS} (c, k2)  e = Add (d, r)
            j = Concat <axis = 1> (l, r, e)  y = Conv (j, k3)
        }}""",
        k0=kernels(8, 3, 1),
        halves=np.array([4, 4]),
        k1=kernels(5, 4, seed=1),
        k2=kernels(4, 5, seed=2),
        k3=kernels(2, 12, 1, seed=3),
    )


def sliced():
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            h = Gemm (x, w0, b0)  a = Slice (h, zero, four, one)  b = Slice (h, four, ten, one)
            c = Gather <axis = 1> (h, places)  ra = Relu (a)
            u = MatMul (ra, w1)  v = MatMul (b, w2)  t = MatMul (c, w3)
            uv = Add (u, v)  y = Add (uv, t)
        }""",
        w0=random(6, 10),
        b0=random(1, 10),
        w1=random(4, 5, seed=1),
        w2=random(6, 5, seed=2),
        w3=random(3, 5, seed=3),
        zero=np.array([0]),
        four=np.array([4]),
        ten=np.array([1 << 40]),
        one=np.array([1]),
        places=np.array([7, 0, -2]),
    )


def attention():
    """Two heads of four, written out, with the target of the reshape computed."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)  qb = Add (q, bq)
            shape = Shape (x)  n = Gather <axis = 0> (shape, zero)
            t = Gather <axis = 0> (shape, one)
            nu = Unsqueeze (n, axis)  tu = Unsqueeze (t, axis)
            heads = Constant <value_ints = [2]> ()  width = Constant <value_ints = [4]> ()
            target = Concat <axis = 0> (nu, tu, heads, width)
            q4 = Reshape (qb, target)  k4 = Reshape (k, fixed)  v4 = Reshape (v, fixed)
            qh = Transpose <perm = [0, 2, 1, 3]> (q4)  kh = Transpose <perm = [0, 2, 3, 1]> (k4)
            vh = Transpose <perm = [0, 2, 1, 3]> (v4)
            s = MatMul (qh, kh)  c = Div (s, root)  p = Softmax <axis = -1> (c)
            o = MatMul (p, vh)  ot = Transpose <perm = [0, 2, 1, 3]> (o)
            flat = Reshape (ot, back)  z = MatMul (flat, wo)  y = Add (z, x)
        }""",
        **{name: random(8, 8, seed=at) for at, name in enumerate(("wq", "wk", "wv", "wo"))},
        bq=random(8),
        zero=np.array(0),
        one=np.array(1),
        axis=np.array([0]),
        fixed=np.array([0, 0, 2, 4]),
        root=np.float32(2),
        back=np.array([0, 0, 8]),
    )


def packed_attention():
    """q, k and v in one product, split afterwards."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            qkv = MatMul (x, w)  q, k, v = Split <axis = 2> (qkv, thirds)
            kt = Transpose <perm = [0, 2, 1]> (k)  s = MatMul (q, kt)  p = Softmax <axis = -1> (s)
            o = MatMul (p, v)  y = MatMul (o, wo)
        }""",
        w=random(8, 18),
        thirds=np.array([6, 6, 6]),
        wo=random(6, 8, seed=1),
    )


def gated():
    return build(
        """(float[N,T,6] x) => (float[N,T,6] y) {
            a = MatMul (x, w1)  b = MatMul (x, w2)  g = Sigmoid (a)  s = Mul (a, g)  h = Mul (s, b)
            o = MatMul (h, w3)  z = Add (o, x)  y = LayerNormalization (z, scale, shift)
        }""",
        w1=random(6, 9),
        w2=random(6, 9, seed=1),
        w3=random(9, 6, seed=2),
        scale=random(6),
        shift=random(6, seed=1),
    )


def channels_last():
    """A graph of Keras: every convolution between two Transpose."""
    return build(
        """(float[N,8,8,3] x) => (float[N,5] y) {
            a = Transpose <perm = [0, 3, 1, 2]> (x)  b = Conv (a, k0)
            c = Transpose <perm = [0, 2, 3, 1]> (b)  d = Add (c, bias)  e = Relu (d)
            f = Transpose <perm = [0, 3, 1, 2]> (e)  g = Conv (f, k1)
            h = ReduceMean <keepdims = 0> (g, space)  y = MatMul (h, w)
        }""",
        k0=kernels(6, 3),
        bias=random(6),
        k1=kernels(7, 6, seed=1),
        space=np.array([2, 3]),
        w=random(7, 5),
    )


def quantised():
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            w = DequantizeLinear <axis = 1> (q, s)  h = MatMul (x, w)  b = Add (h, b1)
            r = Relu (b)  wt = Transpose <perm = [1, 0]> (w2)  y = MatMul (r, wt)
        }""",
        q=np.random.default_rng(0).integers(-127, 127, (6, 8)).astype(np.int8),
        s=(np.arange(8) + 1).astype(np.float32) / 100,
        b1=random(8),
        w2=random(5, 8),
    )


def embedding():
    return build(
        """(int64[N,T] ids) => (float[N,T,4] y) {
            e = Gather (table, ids)  h = MatMul (e, w1)  r = Relu (h)  y = MatMul (r, w2)
        }""",
        table=random(11, 6),
        w1=random(6, 7, seed=1),
        w2=random(7, 4, seed=2),
    )


def shared_weights():
    return build(
        """(float[N,6] x) => (float[N,6] y) {
            a = MatMul (x, w)  r = Relu (a)  b = MatMul (r, v)
            c = MatMul (b, w)  s = Relu (c)  y = MatMul (s, v)
        }""",
        w=random(6, 9),
        v=random(9, 6, seed=1),
    )


def mixer():
    return build(
        """(float[N,4,6] x) => (float[N,4,6] y) {
            t = Transpose <perm = [0, 2, 1]> (x)  a = MatMul (t, w1)  g = Gelu (a)
            b = MatMul (g, w2)  u = Transpose <perm = [0, 2, 1]> (b)  m = Add (u, x)
            c = MatMul (m, w3)  h = Gelu (c)  d = MatMul (h, w4)  y = Add (d, m)
        }""",
        w1=random(4, 7),
        w2=random(7, 4, seed=1),
        w3=random(6, 8, seed=2),
        w4=random(8, 6, seed=3),
    )


STRUCTURES = (
    *(chain, residual, slice_and_pad, dense, grouped, inverted_residual, shuffle, pixel_shuffle),
    *(unet, c2f, sliced, attention, packed_attention, gated, channels_last, quantised),
    *(embedding, shared_weights, mixer),
)
