"""Networks in which a careless cut goes wrong: each has one trap, named by its function."""

from __future__ import annotations

import numpy as np
from structures import PADS, kernels, norm
from text_models import build, random


def captured_by_a_body():
    """The body of an If reads a tensor of the outer graph, and one of its weights."""
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            h = MatMul (x, w0)  r = Relu (h)  total = ReduceSum <keepdims = 0> (x)
            positive = Greater (total, zero)
            z = If (positive) <
                then_branch = t () => (float[N,5] a) { a = MatMul (r, w1) },
                else_branch = e () => (float[N,5] b) { c = Neg (r)  b = MatMul (c, w1) }>
            g = MatMul (x, w2)  s = Relu (g)  u = MatMul (s, w1)  y = Add (z, u)
        }""",
        w0=random(6, 7),
        zero=np.float32(0),
        w1=random(7, 5, seed=1),
        w2=random(6, 7, seed=2),
    )


def transposed_weight_is_read_twice():
    """The second reader takes the transposed weight as a whole."""
    return build(
        """(float[N,6] x) => (float[N,5] y, float[1,7] norm) {
            wt = Transpose <perm = [1, 0]> (w)  h = MatMul (x, wt)  r = Relu (h)
            y = MatMul (r, v)  norm = ReduceL2 <keepdims = 1> (wt, axis)
        }""",
        w=random(7, 6),
        v=random(7, 5, seed=1),
        axis=np.array([0]),
    )


def table_is_the_last_layer():
    """Rows of the embedding are words at the one end and units at the other."""
    return build(
        """(int64[N,T] ids) => (float[N,T] y) {
            e = Gather (table, ids)  back = Transpose <perm = [1, 0]> (table)
            a = MatMul (e, w1)  r = Relu (a)  h = MatMul (r, w2)  z = MatMul (h, back)
            s = Relu (z)  f = MatMul (s, w3)  y = Squeeze (f, last)
        }""",
        table=random(11, 6),
        w1=random(6, 7, seed=1),
        w2=random(7, 6, seed=2),
        w3=random(11, 1, seed=3),
        last=np.array([2]),
    )


def same_channels_twice():
    """Both halves have the same ids, but only one of them is zero where a unit is dead."""
    return build(
        f"""(float[N,3,8,8] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  s = Sigmoid (a)  b = Concat <axis = 1> (s, a)
            c = Conv (b, k1)  g = GlobalAveragePool (c)  f = Flatten (g)  y = MatMul (f, w)
        }}""",
        k0=kernels(4, 3),
        k1=kernels(6, 8, 1, seed=1),
        w=random(6, 5),
    )


def one_head_is_dead():
    """Widths are tied across heads: zero in one of them is not zero in all."""
    return build(
        """(float[N,T,8] x) => (float[N,T,8] y) {
            q = MatMul (x, wq)  k = MatMul (x, wk)  q4 = Reshape (q, fixed)  k4 = Reshape (k, fixed)
            qh = Transpose <perm = [0, 2, 1, 3]> (q4)  kh = Transpose <perm = [0, 2, 3, 1]> (k4)
            s = MatMul (qh, kh)  p = ReduceMean <keepdims = 0> (s, axes)  o = MatMul (p, x)
            y = Add (o, x)
        }""",
        wq=random(8, 8) * (np.arange(8) >= 3),
        wk=random(8, 8, seed=1),
        fixed=np.array([0, 0, 2, 4]),
        axes=np.array([1]),
    )


def sizes_name_channels():
    """Resize is told the number of channels: once by a constant, once computed from Shape."""
    return build(
        f"""(float[N,3,4,4] x) => (float[N,2,8,8] y) {{
            a = Conv {PADS} (x, k0)  ra = Relu (a)
            shape = Shape (ra)  front = Slice (shape, zero, two)
            both = Concat <axis = 0> (front, hw)
            u = Resize <mode = "nearest"> (ra, , , both)
            batch = Slice (shape, zero, one)  told = Concat <axis = 0> (batch, four, hw)
            b = Conv {PADS} (x, k1)  v = Resize <mode = "linear"> (b, , , told)
            j = Concat <axis = 1> (u, v)  y = Conv (j, k2)
        }}""",
        k0=kernels(6, 3),
        k1=kernels(4, 3, seed=1),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        four=np.array([4]),
        hw=np.array([8, 8]),
        k2=kernels(2, 10, 1, seed=2),
    )


def counted():
    """The number of channels becomes the size of a reshape, and a divisor."""
    return build(
        f"""(float[N,3,4,4] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  shape = Shape (a)  c = Gather (shape, one)
            cu = Unsqueeze (c, first)  target = Concat <axis = 0> (open, cu, flat)
            r = Reshape (a, target)  m = ReduceMean <keepdims = 0> (r, last)
            b = Conv (x, k1)  bs = Shape (b)  bc = Gather (bs, one)
            bf = Cast <to = 1> (bc)  bm = GlobalAveragePool (b)  bd = Div (bm, bf)
            bq = Flatten (bd)  u = MatMul (m, w1)  v = MatMul (bq, w2)  y = Add (u, v)
        }}""",
        k0=kernels(6, 3),
        one=np.array(1),
        first=np.array([0]),
        open=np.array([-1]),
        flat=np.array([16]),
        last=np.array([2]),
        k1=kernels(4, 3, 1, seed=1),
        w1=random(6, 5),
        w2=random(4, 5, seed=1),
    )


def expanded():
    """Expand names the number of channels, with fewer axes than what it expands."""
    return build(
        """(float[N,6] x) => (float[N,2,5] y) {
            h = MatMul (x, w0)  u = Unsqueeze (h, one)  e = Expand (u, target)
            r = Relu (e)  y = MatMul (r, w1)
        }""",
        w0=random(6, 7),
        one=np.array([1]),
        target=np.array([2, 7]),
        w1=random(7, 5, seed=1),
    )


def single_channels():
    """Slices and units of width one have nothing to lose."""
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            h = Gemm (x, w0, b0)  a = Slice (h, zero, one, one)  b = Slice (h, one, four, one)
            s = Mul (b, a)  u = MatMul (s, w1)  v = MatMul (a, w2)  y = Add (u, v)
        }""",
        w0=random(6, 4),
        b0=random(4),
        w1=random(3, 5, seed=1),
        w2=random(1, 5, seed=2),
        zero=np.array([0]),
        one=np.array([1]),
        four=np.array([4]),
    )


def written_out_norm():
    """LayerNormalization written out: statistics run over all channels."""
    return build(
        """(float[N,T,6] x) => (float[N,T,5] y) {
            h = MatMul (x, w0)  m = ReduceMean (h, last)  d = Sub (h, m)  q = Pow (d, two)
            v = ReduceMean (q, last)  e = Add (v, eps)  s = Sqrt (e)  n = Div (d, s)
            g = Mul (n, scale)  b = Add (g, shift)  u = MatMul (b, w1)  r = Relu (u)
            y = MatMul (r, w2)
        }""",
        w0=random(6, 8),
        last=np.array([-1]),
        two=np.float32(2),
        eps=np.float32(1e-5),
        scale=random(8),
        shift=random(8, seed=1),
        w1=random(8, 7, seed=2),
        w2=random(7, 5, seed=3),
    )


def never_zero():
    """Padding with ones, clipping away from zero, a maximum with a constant: not zero."""
    return build(
        f"""(float[N,3,8,8] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  p = Pad (a, pads, value)  c = Clip (p, low)
            m = Max (c, floor)  b = Conv (m, k1)  n = BatchNormalization (b, s, o, m0, v0)
            w = Where (flags, n, other)  g = GlobalAveragePool (w)  f = Flatten (g)
            y = MatMul (f, w1)
        }}""",
        k0=kernels(4, 3),
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        value=np.float32(1),
        low=np.float32(0.25),
        floor=random(4, 1, 1),
        k1=kernels(6, 4, 1, seed=1),
        **dict(zip(("s", "o", "m0", "v0"), norm(6), strict=True)),
        flags=np.array([1, 0, 1, 1, 0, 1], bool).reshape(6, 1, 1),
        other=random(6, 1, 1, seed=3),
        w1=random(6, 5),
    )


def shared_but_refused():
    """One weight, two convolutions: the second has a bias that is computed and stays whole."""
    return build(
        f"""(float[N,3,8,8] x) => (float[N,4,8,8] y) {{
            a = Conv {PADS} (x, k0)  b = Relu (a)  t = ReduceMean <keepdims = 0> (x, axes)
            bias = MatMul (t, w)  c = Conv {PADS} (x, k0, bias)  d = Neg (c)  y = Add (b, d)
        }}""",
        k0=kernels(4, 3),
        axes=np.array([0, 2, 3]),
        w=random(3, 4),
    )


def odd_bias():
    """A Gemm whose C has a row for each sample."""
    return build(
        """(float[2,6] x) => (float[2,5] y) {
            h = Gemm (x, w0, c)  r = Relu (h)  y = Gemm (r, w1, d)
        }""",
        w0=random(6, 7),
        c=random(2, 7),
        w1=random(7, 5, seed=1),
        d=random(2, 1, seed=1),
    )


def repeated_picks():
    """Gather takes a channel twice and leaves others."""
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            h = MatMul (x, w0)  r = Relu (h)  g = Gather <axis = 1> (r, places)
            e = Exp (g)  y = MatMul (e, w1)
        }""",
        w0=random(6, 7),
        places=np.array([5, 5, -1, 0]),
        w1=random(4, 5, seed=1),
    )


def shared_targets():
    """A computed target says the number of channels to two, and to a third that has none."""
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            shape = Shape (x)  n = Gather (shape, first)  target = Concat <axis = 0> (n, two, four)
            h = MatMul (x, w0)  a = Reshape (h, target)  ra = Relu (a)
            g = MatMul (x, w1)  b = Reshape (g, target)  s = Add (ra, b)  u = MatMul (s, w2)
            other = Concat <axis = 0> (n, two, three)  k = MatMul (x, w3)
            c = Reshape (k, other)  d = Reshape (x, other)  e = MatMul (d, w4)
            f = MatMul (c, w4)  v = Add (e, f)  t = Add (u, v)
            y = ReduceMean <keepdims = 0> (t, axis)
        }""",
        first=np.array([0]),
        two=np.array([2]),
        three=np.array([3]),
        four=np.array([4]),
        w0=random(6, 8),
        w1=random(6, 8, seed=1),
        w2=random(4, 5, seed=2),
        w3=random(6, 6, seed=3),
        w4=random(3, 5, seed=4),
        axis=np.array([1]),
    )


def other_axis_of_the_same_length():
    """Six channels become six columns: the second convolution reads one channel, not these."""
    return build(
        """(float[N,3,8,6] x) => (float[N,5] y) {
            a = Conv (x, k0)  t = Transpose <perm = [0, 3, 2, 1]> (a)
            b = Conv <pads = [1, 1, 1, 1]> (t, k1)  r = Relu (b)
            g = GlobalAveragePool (r)  f = Flatten (g)  y = MatMul (f, w)
        }""",
        k0=kernels(6, 3, 1) * (np.arange(6) > 2)[:, None, None, None],
        k1=kernels(7, 6, 3, seed=1),
        w=random(7, 5),
    )


def shared_behind_a_reshape():
    """Two convolutions read one weight, which a Reshape is told the sizes of once."""
    return build(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            k = Reshape (stored, sizes)  a = Conv (x, k0)  b = Conv (a, k)  r = Relu (b)
            c = Conv (r, k)  g = GlobalAveragePool (c)  f = Flatten (g)  y = MatMul (f, w)
        }""",
        stored=random(1, 6, 6, 1, 1),
        sizes=np.array([6, 0, 1, 1]),
        k0=kernels(6, 3, 1, seed=1),
        w=random(6, 5, seed=2),
    )


def squeezed_without_axes():
    """A Squeeze that takes all axes of size 1 must not take the last channel with them."""
    return build(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv (x, k0)  g = GlobalAveragePool (a)  f = Squeeze (g)
            w1 = Squeeze (stored)  h = MatMul (f, w1)  r = Relu (h)  y = MatMul (r, w2)
        }""",
        k0=kernels(6, 3, 1),
        stored=random(6, 1, 4, seed=1),
        w2=random(4, 5, seed=2),
    )


def squeezed_without_axes_before_opset_13():
    """There the axes are an attribute."""
    model = squeezed_without_axes()
    model.opset_import[0].version = 12
    return model


def state_is_forgotten():
    """Offered channels are taken, for angles' sake; a state that is only begun with some stays."""
    return build(
        """(float[N,7] x) => (float[N,5] y) {
            last, all = Loop (trips, , start) <body = b (int64 i, bool c, float[A,7] h)
                => (bool go, float[A,7] next, float[A,6] out) {
                go = Identity (c)  next = Sin (x)  m = MatMul (h, w0)
                out = ReduceSum <keepdims = 1> (m, zero)
            }>
            sum = ReduceSum <keepdims = 0> (all, zero)  r = Relu (sum)  z = MatMul (r, w1)
            place = ReduceSum <keepdims = 1> (x, one)  angle = Mul (place, turns)
            wave = Cos (angle)  u = MatMul (wave, w2)  y = Add (u, z)
        }""",
        trips=np.array(2),
        start=random(1, 7, seed=3),
        zero=np.array([0]),
        one=np.array([1]),
        turns=random(1, 6, seed=2),
        w0=random(7, 6),
        w1=random(6, 5, seed=1),
        w2=random(6, 5, seed=4),
    )


def width_of_a_state_is_that_of_an_input():
    """Offered channels are taken, for angles' sake; a state as wide as the input stays."""
    return build(
        """(float[N,7] x) => (float[N,5] y) {
            size = Shape (x)  start = ConstantOfShape (size)
            last = Loop (trips, , start) <body = b (int64 i, bool c, float[N,7] h)
                => (bool go, float[N,7] next) {
                go = Identity (c)  m = MatMul (h, w0)  s = Add (m, x)  next = Tanh (s)
            }>
            z = MatMul (last, w1)
            place = ReduceSum <keepdims = 1> (x, one)  angle = Mul (place, turns)
            wave = Cos (angle)  u = MatMul (wave, w2)  y = Add (u, z)
        }""",
        trips=np.array(2),
        one=np.array([1]),
        turns=random(1, 6, seed=2),
        w0=random(7, 7) / 3,
        w1=random(7, 5, seed=1),
        w2=random(6, 5, seed=4),
    )


TRAPS = (
    *(captured_by_a_body, transposed_weight_is_read_twice, table_is_the_last_layer),
    *(same_channels_twice, one_head_is_dead, sizes_name_channels, counted, expanded),
    *(single_channels, written_out_norm, never_zero, shared_but_refused, odd_bias),
    *(repeated_picks, shared_targets, other_axis_of_the_same_length),
    *(shared_behind_a_reshape, squeezed_without_axes, squeezed_without_axes_before_opset_13),
    *(state_is_forgotten, width_of_a_state_is_that_of_an_input),
)
