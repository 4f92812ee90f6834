"""Blocks of well-known networks that are not among the first structures."""

from __future__ import annotations

import numpy as np
from structures import PADS, kernels
from text_models import build, random


def convnext():
    """Depthwise convolution, normalisation and a gated MLP channels last, scaled, added."""
    return build(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv <strides = [2, 2]> (x, k0)
            d = Conv <group = 6, pads = [3, 3, 3, 3]> (a, k1, b1)
            t = Transpose <perm = [0, 2, 3, 1]> (d)  n = LayerNormalization (t, s, o)
            h = MatMul (n, w1)  hb = Add (h, c1)  g = Gelu (hb)  p = MatMul (g, w2)
            pb = Add (p, c2)  q = Mul (gamma, pb)  u = Transpose <perm = [0, 3, 1, 2]> (q)
            r = Add (a, u)  m = ReduceMean <keepdims = 0> (r, space)  y = MatMul (m, w)
        }""",
        k0=kernels(6, 3, 2),
        k1=kernels(6, 1, 7, seed=1),
        b1=random(6),
        s=random(6, seed=1),
        o=random(6, seed=2),
        w1=random(6, 9, seed=3),
        c1=random(9, seed=4),
        w2=random(9, 6, seed=5),
        c2=random(6, seed=6),
        gamma=random(6, seed=7),
        space=np.array([2, 3]),
        w=random(6, 5, seed=8),
    )


def glu():
    """One product, split in what is gated and what gates."""
    return build(
        """(float[N,T,6] x) => (float[N,T,5] y) {
            h = MatMul (x, w1)  a, b = Split <axis = -1, num_outputs = 2> (h)  s = Sigmoid (b)
            g = Mul (a, s)  y = MatMul (g, w2)
        }""",
        w1=random(6, 14),
        w2=random(7, 5, seed=1),
    )


def packed_heads():
    """q, k and v in one product that is split in three, heads and widths at once (as in timm)."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            qkv = MatMul (x, w)  b = Add (qkv, c)  five = Reshape (b, split)
            t = Transpose <perm = [2, 0, 3, 1, 4]> (five)
            q = Gather <axis = 0> (t, zero)  k = Gather <axis = 0> (t, one)
            v = Gather <axis = 0> (t, two)  kt = Transpose <perm = [0, 1, 3, 2]> (k)
            s = MatMul (q, kt)  p = Softmax <axis = -1> (s)  o = MatMul (p, v)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)  f = Reshape (ot, join)  y = MatMul (f, wo)
        }""",
        w=random(8, 24),
        c=random(24, seed=1),
        split=np.array([0, 0, 3, 2, 4]),
        zero=np.array(0),
        one=np.array(1),
        two=np.array(2),
        join=np.array([0, 0, 8]),
        wo=random(8, 8, seed=2),
    )


def pixel_shuffle_written_out():
    """Upscaling as the exporter of PyTorch writes it, and SpaceToDepth back, rows first."""
    return build(
        f"""(float[N,3,4,4] x) => (float[N,2,4,4] y) {{
            a = Conv {PADS} (x, k0)  s = Reshape (a, six)
            t = Transpose <perm = [0, 1, 4, 2, 5, 3]> (s)  u = Reshape (t, four)
            b = Conv {PADS} (u, k1)  d = SpaceToDepth <blocksize = 2> (b)
            e = Conv (d, k2)  f = DepthToSpace <blocksize = 1> (e)  y = Conv (f, k3)
        }}""",
        k0=kernels(12, 3),
        six=np.array([0, 3, 2, 2, 4, 4]),
        four=np.array([0, 3, 8, 8]),
        k1=kernels(4, 3, seed=1),
        k2=kernels(5, 16, 1, seed=2),
        k3=kernels(2, 5, 1, seed=3),
    )


def gru_with_states():
    """A bidirectional GRU that resets linearly; its initial state comes from a layer."""
    return build(
        """(float[T,N,4] x) => (float[N,5] y) {
            m = ReduceMean <keepdims = 0> (x, zero)  h = MatMul (m, w0)  r = Relu (h)
            u = Unsqueeze (r, zero)  both = Concat <axis = 0> (u, u)
            all, last = GRU <hidden_size = 6, direction = "bidirectional", linear_before_reset = 1>
                (x, w, rec, b, , both)
            p = ReduceMax <keepdims = 0> (all, front)  s = ReduceSum <keepdims = 0> (last, zero)
            z = Add (p, s)  y = MatMul (z, w1)
        }""",
        zero=np.array([0]),
        front=np.array([0, 1]),
        w0=random(4, 6),
        w=random(2, 18, 4, seed=1),
        rec=random(2, 18, 6, seed=2),
        b=random(2, 36, seed=3),
        w1=random(6, 5, seed=4),
    )


def tied_embedding():
    """The table of an embedding, transposed, is the last layer: its columns are cut in both."""
    return build(
        """(int64[N,T] ids) => (float[N,T,11] y) {
            e = Gather (table, ids)  h = MatMul (e, w1)  g = Gelu (h)  d = MatMul (g, w2)
            r = Add (d, e)  back = Transpose <perm = [1, 0]> (table)  y = MatMul (r, back)
        }""",
        table=random(11, 6),
        w1=random(6, 9, seed=1),
        w2=random(9, 6, seed=2),
    )


def transposed_convolutions():
    """Grouped and depthwise ConvTranspose, and a bias that is added."""
    return build(
        """(float[N,3,4,4] x) => (float[N,2,8,8] y) {
            a = Conv (x, k0)  b = ConvTranspose <group = 3> (a, k1)  r = LeakyRelu (b)
            c = ConvTranspose <group = 6, strides = [2, 2]> (r, k2, c2)  d = Add (c, shift)
            y = Conv (d, k3)
        }""",
        k0=kernels(6, 3, 1),
        k1=random(6, 2, 1, 1),
        k2=random(6, 1, 2, 2, seed=1),
        c2=random(6),
        shift=random(1, 6, 1, 1, seed=2),
        k3=kernels(2, 6, 1, seed=1),
    )


def einsums():
    """Attention of three-dimensional weights, as Keras and JAX write it."""
    return build(
        """(float[N,T,6] x) => (float[N,T,5] y) {
            q = Einsum <equation = "btd,dhk->bthk"> (x, wq)  qb = Add (q, bq)
            k = Einsum <equation = "btd,dhk->bthk"> (x, wk)
            v = Einsum <equation = "b t d, d h k -> b t h k"> (x, wv)
            s = Einsum <equation = "bqhk,bshk->bhqs"> (qb, k)  p = Softmax <axis = -1> (s)
            o = Einsum <equation = "bhqs,bshk->bqhk"> (p, v)
            z = Einsum <equation = "...hk,hkd->...d"> (o, wo)  r = Relu (z)
            y = Einsum <equation = "btd,de->bte"> (r, we)
        }""",
        wq=random(6, 2, 4),
        bq=random(2, 4),
        wk=random(6, 2, 4, seed=1),
        wv=random(6, 2, 3, seed=2),
        wo=random(2, 3, 7, seed=3),
        we=random(7, 5, seed=4),
    )


def attention_operator():
    """The operator Attention of opset 23: grouped queries flat, and heads as an axis."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
            o = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)  z = MatMul (o, wo)
            r = Relu (z)  q2 = MatMul (r, wp)  q4 = Reshape (q2, split)
            qh = Transpose <perm = [0, 2, 1, 3]> (q4)
            o2 = Attention (qh, qh, qh)  t = Transpose <perm = [0, 2, 1, 3]> (o2)
            f = Reshape (t, join)  y = MatMul (f, we)
        }""",
        opset=23,
        wq=random(8, 12),
        wk=random(8, 6, seed=1),
        wv=random(8, 10, seed=2),
        wo=random(20, 7, seed=3),
        wp=random(7, 6, seed=4),
        split=np.array([0, 0, 2, 3]),
        join=np.array([0, 0, 6]),
        we=random(6, 8, seed=5),
    )


def instance_normalised():
    return build(
        f"""(float[N,3,8,8] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  n = InstanceNormalization (a, s, o)  r = Relu (n)
            b = Conv (r, k1)  g = GlobalMaxPool (b)  f = Flatten (g)  y = MatMul (f, w)
        }}""",
        k0=kernels(6, 3),
        s=random(6),
        o=random(6, seed=1),
        k1=kernels(7, 6, seed=1),
        w=random(7, 5),
    )


def fused_convolutions():
    """What ONNX Runtime makes of a residual block."""
    return build(
        """(float[N,3,6,6] x) => (float[N,5] y) {
            a = com.microsoft.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, k0, b0)
            b = com.microsoft.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (a, k1, b1)
            c = com.microsoft.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (b, k2, b2, a)
            g = GlobalAveragePool (c)  f = Flatten (g)
            h = com.microsoft.FusedGemm <transB = 1, activation = "Relu"> (f, w0, c0)
            y = com.microsoft.FusedMatMul <transB = 1, alpha = 0.5> (h, w1)
        }""",
        k0=kernels(6, 3),
        b0=random(6),
        k1=kernels(8, 6, seed=1),
        b1=random(8, seed=1),
        k2=kernels(6, 8, seed=2),
        b2=random(6, seed=2),
        w0=random(7, 6),
        c0=random(7, seed=3),
        w1=random(5, 7, seed=1),
    )


def fused_encoder():
    """A layer of BERT as ONNX Runtime's optimiser for transformers writes it."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            a = com.microsoft.Attention <num_heads = 2> (x, wqkv, bqkv)  p = MatMul (a, wo)
            n = com.microsoft.SkipLayerNormalization <epsilon = 1e-5> (p, x, s, o, bo)
            h = MatMul (n, w1)  g = com.microsoft.BiasGelu (h, b1)  u = MatMul (g, w2)
            v = com.microsoft.FastGelu (u, b2)  q = MatMul (v, wq)  k = MatMul (v, wk)
            v2 = MatMul (v, wv)  r = com.microsoft.QuickGelu (q)
            m = com.microsoft.MultiHeadAttention <num_heads = 2> (r, k, v2, b3)
            y = MatMul (m, we)
        }""",
        wqkv=random(8, 24) / 3,
        bqkv=random(24, seed=1),
        wo=random(8, 8, seed=2),
        s=random(8, seed=3),
        o=random(8, seed=4),
        bo=random(8, seed=5),
        w1=random(8, 9, seed=6),
        b1=random(9, seed=7),
        w2=random(9, 7, seed=8),
        b2=random(7, seed=9),
        wq=random(7, 6, seed=10) / 3,
        wk=random(7, 6, seed=11) / 3,
        wv=random(7, 6, seed=12),
        b3=random(18, seed=13),
        we=random(6, 8, seed=14),
    )


BLOCKS = (
    *(convnext, glu, packed_heads, pixel_shuffle_written_out, gru_with_states, tied_embedding),
    *(transposed_convolutions, einsums, attention_operator, instance_normalised),
)
FUSED = (fused_convolutions, fused_encoder)
