"""What exporters write for dynamic shapes: sizes from other tensors, angles, joined weights."""

from __future__ import annotations

import numpy as np
from structures import PADS, kernels
from text_models import build, random

from onnx_relief.graph.document import load
from onnx_relief.graph.folded import with_whole_weights


def rotary():
    """Angles are positions times rates; the first half of a head turns with the second."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            shape = Shape (x)  steps = Gather (shape, at)  p = Range (zero, steps, one)
            column = Unsqueeze (p, last)  c = Cast <to = 1> (column)  angles = Mul (c, rates)
            cos = Cos (angles)  sin = Sin (angles)
            k = MatMul (x, w0)  first, second = Split <axis = 2, num_outputs = 2> (k)
            n = Neg (second)  turned = Concat <axis = -1> (n, first)
            a = Mul (k, cos)  b = Mul (turned, sin)  q = Add (a, b)  y = MatMul (q, w1)
        }""",
        at=np.array(1),
        zero=np.array(0),
        one=np.array(1),
        last=np.array([-1]),
        rates=random(6),
        w0=random(8, 6, seed=1),
        w1=random(6, 8, seed=2),
    )


def sizes_of_the_stream():
    """The width that heads are joined to is taken from a tensor that stays as wide."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            s = MatMul (x, w0)  stream = LayerNormalization <axis = -1> (s, scale)
            shape = Shape (stream)
            n = Gather (shape, i0)  t = Gather (shape, i1)  width = Gather (shape, i2)
            told = Concat <axis = 0> (n, t, width)
            v = MatMul (stream, w1)  split = Reshape (v, heads)
            m = Transpose <perm = [0, 2, 1, 3]> (split)  r = Relu (m)
            back = Transpose <perm = [0, 2, 1, 3]> (r)  joined = Reshape (back, told)
            y = MatMul (joined, w2)
        }""",
        w0=random(8, 8),
        scale=random(8, seed=1),
        i0=np.array([0]),
        i1=np.array([1]),
        i2=np.array([2]),
        w1=random(8, 8, seed=2),
        heads=np.array([0, 0, 2, 4]),
        w2=random(8, 8, seed=3),
    )


def expanded_to_what_is_not_minus_one():
    """TorchScript's expand: sizes from Shape, and 1 for those that are -1."""
    return build(
        """(float[N,T,8] x) => (float[N,T,5] y) {
            k = MatMul (x, w0)  split = Reshape (k, heads)
            shape = Shape (split)  n = Gather (shape, i0)  t = Gather (shape, i1)
            h = Gather (shape, i2)  w = Gather (shape, i3)
            c = Concat <axis = 0> (n, t, h, three, w)  told = Reshape (c, flat)
            many = Shape (told)  ones = ConstantOfShape <value = int64[1] {1}> (many)
            minus = Mul (ones, negative)  is = Equal (told, minus)  sizes = Where (is, ones, told)
            wide = Unsqueeze (split, i3)  e = Expand (wide, sizes)
            both = Mul (h, three)  d = Concat <axis = 0> (n, t, both, w)  r = Reshape (e, d)
            sum = ReduceSum (r, i2)  flat2 = Squeeze (sum, i2)  y = MatMul (flat2, w1)
        }""",
        w0=random(8, 8),
        heads=np.array([0, 0, 2, 4]),
        flat=np.array([-1]),
        negative=np.array(-1),
        three=np.array([3]),
        i0=np.array([0]),
        i1=np.array([1]),
        i2=np.array([2]),
        i3=np.array([3]),
        w1=random(4, 5, seed=2),
    )


def gates():
    """PyTorch's newer exporter: the gates of an LSTM in another order, states from one zero."""
    return build(
        """(float[T,N,4] x) => (float[T,N,5] y) {
            i0 = Slice (wi, g0, g1)  o0 = Slice (wi, g3, g4)  f0 = Slice (wi, g1, g3)
            w2 = Concat <axis = 0> (i0, o0, f0)  w = Unsqueeze (w2, g0)
            i1 = Slice (wh, g0, g1)  o1 = Slice (wh, g3, g4)  f1 = Slice (wh, g1, g3)
            r2 = Concat <axis = 0> (i1, o1, f1)  r = Unsqueeze (r2, g0)
            shape = Shape (x)  n = Slice (shape, one, two)
            told = Concat <axis = 0> (one, n, units)
            state = Expand (nothing, told)
            a, h, c = LSTM <hidden_size = 3> (x, w, r, , , state, state)
            t = Transpose <perm = [0, 2, 1, 3]> (a)
            sizes = Shape (t)  begin = Slice (sizes, g0, two)  d = Slice (sizes, two, three)
            width = Slice (sizes, three, four)  both = Mul (d, width)
            target = Concat <axis = 0> (begin, both)  m = Reshape (t, target)
            y = MatMul (m, w1)
        }""",
        wi=random(12, 4),
        wh=random(12, 3, seed=1),
        g0=np.array([0]),
        g1=np.array([3]),
        g3=np.array([9]),
        g4=np.array([12]),
        one=np.array([1]),
        two=np.array([2]),
        three=np.array([3]),
        four=np.array([4]),
        units=np.array([3]),
        nothing=np.float32(0),
        w1=random(3, 5, seed=2),
    )


def joined_gates():
    """The same with whole weights."""
    return with_whole_weights(load(gates())).proto


def ones_of_all_norms():
    """Norms of two widths in as many groups, whose ones and zeros are stored once for all."""
    return build(
        f"""(float[N,3,4,4] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  fa = Reshape (a, three)
            ia = InstanceNormalization (fa, ones, zeros)  sa = Shape (a)  na = Reshape (ia, sa)
            ma = Mul (na, ta)  r = Relu (ma)  b = Conv (r, k1)  fb = Reshape (b, three)
            ib = InstanceNormalization (fb, ones, zeros)  sb = Shape (b)  nb = Reshape (ib, sb)
            mb = Mul (nb, tb)  q = Relu (mb)
            c = Conv (q, k2)  nc = BatchNormalization (c, four, none, mean, four)
            d = Conv (q, k3)  nd = BatchNormalization (d, four, none, mean, four)
            e = Sub (nc, nd)  p = Conv (e, k4)  g = GlobalAveragePool (p)
            f = Flatten (g)  y = MatMul (f, w)
        }}""",
        k0=kernels(6, 3),
        three=np.array([0, 3, -1]),
        ones=np.ones(3, np.float32),
        zeros=np.zeros(3, np.float32),
        ta=random(6, 1, 1),
        k1=kernels(9, 6, 1, seed=1),
        tb=random(9, 1, 1, seed=1),
        k2=kernels(4, 9, 1, seed=2),
        k3=kernels(4, 9, 1, seed=3),
        four=np.ones(4, np.float32),
        none=np.zeros(4, np.float32),
        mean=random(4),
        k4=kernels(7, 4, 1, seed=4),
        w=random(7, 5),
    )


EXPORTED = (
    *(rotary, sizes_of_the_stream, expanded_to_what_is_not_minus_one, joined_gates),
    ones_of_all_norms,
)
