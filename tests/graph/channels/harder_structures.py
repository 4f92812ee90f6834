"""Recurrence, normalisation by groups, heads, computed sizes, and quantised signals."""

from __future__ import annotations

import numpy as np
from structures import PADS, kernels
from text_models import build, random


def tagger():
    """A bidirectional LSTM, its outputs merged, then a GRU that starts from zeros it is told."""
    return build(
        """(float[T,N,4] x) => (float[T,N,5] y) {
            e = MatMul (x, w0)  a, ah, ac = LSTM <hidden_size = 3, direction = "bidirectional">
                (e, w, r, b, , h0, c0, p)
            t = Transpose <perm = [0, 2, 1, 3]> (a)  m = Reshape (t, merged)
            shape = Shape (x)  n = Slice (shape, one, two)  told = Concat <axis = 0> (one, n, five)
            zero = ConstantOfShape (told)
            g, gh = GRU <hidden_size = 5> (m, gw, gr, gb, , zero)  s = Squeeze (g, one)
            last = Slice (ac, zeros, one, zeros)  q = Squeeze (last, zeros)
            u = MatMul (s, w1)  v = MatMul (q, w2)  z = Add (u, v)  y = Relu (z)
        }""",
        w0=random(4, 6),
        w=random(2, 12, 6, seed=1),
        r=random(2, 12, 3, seed=2),
        b=random(2, 24, seed=3),
        p=random(2, 9, seed=4),
        h0=random(2, 3, 3, seed=5),
        c0=random(2, 3, 3, seed=6),
        merged=np.array([0, 0, -1]),
        gw=random(1, 15, 6, seed=7),
        gr=random(1, 15, 5, seed=8),
        gb=random(1, 30, seed=9),
        zeros=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        five=np.array([5]),
        w1=random(5, 5, seed=10),
        w2=random(3, 5, seed=11),
    )


def plain_recurrence():
    return build(
        """(float[T,N,4] x) => (float[N,5] y) {
            , h = RNN <hidden_size = 6> (x, w, r)  s = Squeeze (h, first)  y = MatMul (s, w1)
        }""",
        w=random(1, 6, 4),
        r=random(1, 6, 6, seed=1),
        first=np.array([0]),
        w1=random(6, 5, seed=2),
    )


def zeros_of_each_direction():
    """Keras makes initial states of zeros for each direction, and joins them."""
    return build(
        """(float[T,N,4] x) => (float[N,5] y) {
            shape = Shape (x)  n = Slice (shape, one, two)  size = Concat <axis = 0> (n, six)
            none = Expand (zero, size)  first = Unsqueeze (none, axis)
            start = Concat <axis = 0> (first, first)
            , h, = LSTM <direction = "bidirectional", hidden_size = 6> (x, w, r, , , start, start)
            s = ReduceSum <keepdims = 0> (h, axis)  y = MatMul (s, w1)
        }""",
        one=np.array([1]),
        two=np.array([2]),
        six=np.array([6]),
        zero=np.float32(0),
        axis=np.array([0]),
        w=random(2, 24, 4),
        r=random(2, 24, 6, seed=1),
        w1=random(6, 5, seed=2),
    )


def old_group_normalised():
    """As of opset 18, scale and bias have an entry for each group."""
    return build(
        f"""(float[N,3,4,4] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  n = GroupNormalization <num_groups = 4> (a, s, o)
            r = Relu (n)  g = GlobalAveragePool (r)  f = Flatten (g)  y = MatMul (f, w)
        }}""",
        opset=18,
        ir=9,
        k0=kernels(8, 3),
        s=random(4),
        o=random(4, seed=1),
        w=random(8, 5),
    )


def group_normalised():
    """Once by the operator, once as the PyTorch exporter writes it: whole groups go."""
    return build(
        f"""(float[N,3,4,4] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  n = GroupNormalization <num_groups = 4> (a, s, o)
            r = Relu (n)  b = Conv (r, k1)  flat = Reshape (b, three)
            i = InstanceNormalization (flat, ones, zeros)  shape = Shape (b)
            back = Reshape (i, shape)  m = Mul (back, t)  c = Add (m, u)  e = Relu (c)
            g = GlobalAveragePool (e)  f = Flatten (g)  y = MatMul (f, w)
        }}""",
        k0=kernels(8, 3),
        s=random(8),
        o=random(8, seed=1),
        k1=kernels(6, 8, 1, seed=1),
        three=np.array([0, 3, -1]),
        ones=np.ones(3, np.float32),
        zeros=np.zeros(3, np.float32),
        t=random(6, 1, 1),
        u=random(6, 1, 1, seed=1),
        w=random(6, 5),
    )


def grouped_queries():
    """Four heads of queries share two of keys and values, which are repeated."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
            q4 = Reshape (q, four)  qh = Transpose <perm = [0, 2, 1, 3]> (q4)
            k4 = Reshape (k, two)  kh = Transpose <perm = [0, 2, 1, 3]> (k4)
            v4 = Reshape (v, two)  vh = Transpose <perm = [0, 2, 1, 3]> (v4)
            k5 = Unsqueeze (kh, axis)  ke = Expand (k5, twice)  kr = Reshape (ke, heads)
            v5 = Unsqueeze (vh, axis)  ve = Expand (v5, twice)  vr = Reshape (ve, heads)
            kt = Transpose <perm = [0, 1, 3, 2]> (kr)  s = MatMul (qh, kt)
            p = Softmax <axis = -1> (s)  o = MatMul (p, vr)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)  flat = Reshape (ot, back)
            z = MatMul (flat, wo)  y = Add (z, x)
        }""",
        wq=random(8, 12),
        wk=random(8, 6, seed=1),
        wv=random(8, 6, seed=2),
        wo=random(12, 8, seed=3),
        four=np.array([0, 0, 4, 3]),
        two=np.array([0, 0, 2, 3]),
        axis=np.array([2]),
        twice=np.array([1, 1, 2, 1, 1]),
        heads=np.array([0, 4, -1, 3]),
        back=np.array([0, 0, 12]),
    )


def computed_halves():
    """A shuffle whose halves and groups are computed from the number of channels."""
    return build(
        """(float[N,3,4,4] x) => (float[N,5] y) {
            a = Conv (x, k0)  shape = Shape (a)  c = Gather (shape, one)
            half = Div (c, two)  bound = Unsqueeze (half, first)
            l = Slice (a, first, bound, axis)  r = Slice (a, bound, far, axis)
            rc = Conv <group = 4> (r, k1)  j = Concat <axis = 1> (l, rc)
            n = Gather (shape, zero)  nu = Unsqueeze (n, first)
            split = Concat <axis = 0> (nu, two1, bound, rest)  s = Reshape (j, split)
            t = Transpose <perm = [0, 2, 1, 3]> (s)  cu = Unsqueeze (c, first)
            join = Concat <axis = 0> (nu, cu, space)  u = Reshape (t, join)
            g = GlobalAveragePool (u)  f = Flatten (g)  y = MatMul (f, w)
        }""",
        k0=kernels(8, 3, 1),
        k1=kernels(4, 1, 1, seed=1),
        zero=np.array(0),
        one=np.array(1),
        two=np.array(2),
        two1=np.array([2]),
        rest=np.array([16]),
        space=np.array([4, 4]),
        first=np.array([0]),
        far=np.array([1 << 60]),
        axis=np.array([1]),
        w=random(8, 5),
    )


def scaled_by_width():
    """Scores are divided by the root of the width, which is read from the shape."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
            shape = Shape (q)  width = Slice (shape, last, far)  f = Cast <to = 1> (width)
            root = Sqrt (f)  qs = Div (q, root)  kt = Transpose <perm = [0, 2, 1]> (k)
            s = MatMul (qs, kt)  p = Softmax <axis = -1> (s)  o = MatMul (p, v)  y = MatMul (o, wo)
        }""",
        wq=random(8, 6),
        wk=random(8, 6, seed=1),
        wv=random(8, 6, seed=2),
        wo=random(6, 8, seed=3),
        last=np.array([-1]),
        far=np.array([1 << 60]),
    )


def quantised_signals():
    """Activations pass through QuantizeLinear and back, per tensor and per channel."""
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            h = MatMul (x, w1)  r = Relu (h)  q = QuantizeLinear (r, s, z)
            d = DequantizeLinear (q, s, z)  g = MatMul (d, w2)
            q2 = QuantizeLinear <axis = 1> (g, s2, z2)
            d2 = DequantizeLinear <axis = 1> (q2, s2, z2)  y = MatMul (d2, w3)
        }""",
        w1=random(6, 8),
        s=np.float32(0.05),
        z=np.uint8(7),
        w2=random(8, 7, seed=1),
        s2=(np.arange(7) + 1).astype(np.float32) / 20,
        z2=np.arange(7).astype(np.uint8),
        w3=random(7, 5, seed=2),
    )


def angles_in_rows():
    """Places times a row of constants are angles, one channel for each; so are slopes of times."""
    return build(
        """(float[N,T] x) => (float[N,T,5] y) {
            places = Unsqueeze (x, last)  angles = Mul (places, turns)  wave = Cos (angles)
            shifted = Sub (shifts, places)  bent = Tanh (shifted)
            a = MatMul (wave, w0)  b = MatMul (bent, w1)  y = Add (a, b)
        }""",
        last=np.array([2]),
        turns=random(1, 6),
        shifts=random(1, 1, 7, seed=1),
        w0=random(6, 5, seed=2),
        w1=random(7, 5, seed=3),
    )


HARDER = (
    *(
        tagger,
        plain_recurrence,
        old_group_normalised,
        group_normalised,
        grouped_queries,
        computed_halves,
    ),
    *(scaled_by_width, quantised_signals, angles_in_rows, zeros_of_each_direction),
)
