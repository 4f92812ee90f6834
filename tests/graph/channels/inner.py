"""Networks whose channels run through the bodies of If, Loop and Scan."""

from __future__ import annotations

import numpy as np
from structures import PADS, kernels
from text_models import build, random


def branches():
    """Both branches read a tensor and a weight of the graph around, and give the same channels."""
    return build(
        f"""(float[N,3,6,6] x) => (float[N,5] y) {{
            a = Conv {PADS} (x, k0)  r = Relu (a)  total = ReduceSum <keepdims = 0> (x)
            positive = Greater (total, zero)
            z = If (positive) <
                then_branch = t () => (float[N,6,6,6] b) {{
                    c = Conv {PADS} (r, k1)  d = Relu (c)  b = Conv {PADS} (d, k2)
                }},
                else_branch = e () => (float[N,6,6,6] f) {{
                    g = Conv {PADS} (r, k1)  h = Sigmoid (g)  i = Conv (h, own)  f = Neg (i)
                }}>
            s = Sigmoid (z)  j = Conv (s, k4)  p = GlobalAveragePool (j)  q = Flatten (p)
            y = MatMul (q, w)
        }}""",
        k0=kernels(4, 3),
        zero=np.float32(0),
        k1=kernels(8, 4, seed=1),
        k2=kernels(6, 8, seed=2),
        own=kernels(6, 8, 1, seed=3),
        k4=kernels(7, 6, 1, seed=4),
        w=random(7, 5),
    )


def same_names_in_branches():
    """Two bodies use the same names, for tensors of other widths, and one holds its weights."""
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            total = ReduceSum <keepdims = 0> (x)  positive = Greater (total, zero)
            y = If (positive) <
                then_branch = t () => (float[N,5] out) {
                    h = MatMul (x, w1)  r = Relu (h)
                    out = If (positive) <
                        then_branch = t () => (float[N,5] o) { o = MatMul (r, w2) },
                        else_branch = e () => (float[N,5] o) { g = Neg (r)  o = MatMul (g, w2) }>
                },
                else_branch = e () => (float[N,5] out) {
                    h = MatMul (x, w3)  r = Tanh (h)  out = MatMul (r, w4)
                }>
        }""",
        zero=np.float32(0),
        w1=random(6, 8),
        w2=random(8, 5, seed=1),
        w3=random(6, 7, seed=2),
        w4=random(7, 5, seed=3),
    )
    body = model.graph.node[2].attribute[1].g
    for name in ("w3", "w4"):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        body.initializer.append(tensor)
        model.graph.initializer.remove(tensor)
    return model


def looped():
    """A residual state of a Loop: what every step adds to it has its channels."""
    return build(
        """(float[N,6] x) => (float[N,5] y, float[S,N,4] steps) {
            h = MatMul (x, w0)
            last, given = Loop (count, , h) <body = b (int64 i, bool c, float[N,8] state)
                => (bool again, float[N,8] after, float[N,4] seen) {
                again = Identity (c)  a = MatMul (state, w1)  r = Relu (a)  m = MatMul (r, w2)
                f = Cast <to = 1> (i)  k = Mul (m, f)
                after = Add (state, k)  seen = MatMul (r, w3)
            }>
            t = Tanh (last)  y = MatMul (t, w4)  steps = Relu (given)
        }""",
        w0=random(6, 8),
        count=np.array(3),
        w1=random(8, 7, seed=1) / 3,
        w2=random(7, 8, seed=2) / 3,
        w3=random(7, 4, seed=3),
        w4=random(8, 5, seed=4),
    )


def scanned():
    """A recurrent cell written out with Scan over the second axis; its state comes from a layer."""
    return build(
        """(float[N,T,4] x) => (float[N,T,5] y) {
            e = MatMul (x, w0)  first = ReduceMean <keepdims = 0> (x, one)
            start = MatMul (first, w1)
            last, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                body = b (float[N,7] h, float[N,6] now) => (float[N,7] next, float[N,7] out) {
                u = MatMul (now, w2)  v = MatMul (h, w3)  s = Add (u, v)  next = Tanh (s)
                out = Relu (next)
            }> (start, e)
            wide = Unsqueeze (last, one)  z = Add (all, wide)  y = MatMul (z, w4)
        }""",
        w0=random(4, 6),
        one=np.array([1]),
        w1=random(4, 7, seed=1),
        w2=random(6, 7, seed=2),
        w3=random(7, 7, seed=3) / 3,
        w4=random(7, 5, seed=4),
    )


def handed_by_a_scan():
    """The same cell, with its weights as states that never change, as Keras models have them."""
    return build(
        """(float[N,T,4] x) => (float[N,T,5] y) {
            e = MatMul (x, w0)  first = ReduceMean <keepdims = 0> (x, one)
            start = MatMul (first, w1)  turned = Transpose <perm = [1, 0]> (w3)
            last, o1, o2, o3, all = Scan <
                num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                body = b (float[N,7] h, float[6,7] k, float[7,7] r, float[7] c, float[N,6] now)
                => (float[N,7] next, float[6,7] same, float[7,7] r2, float[7] c1, float[N,7] out) {
                u = MatMul (now, k)  v = MatMul (h, r)  s = Add (u, v)  z = Add (s, c)
                next = Tanh (z)  out = Relu (next)
                same = Identity (k)  r1 = Identity (r)  r2 = Identity (r1)  c1 = Identity (c)
            }> (start, w2, turned, bias, e)
            wide = Unsqueeze (last, one)  z1 = Add (all, wide)  y = MatMul (z1, w4)
        }""",
        w0=random(4, 6),
        one=np.array([1]),
        w1=random(4, 7, seed=1),
        w2=random(6, 7, seed=2),
        w3=random(7, 7, seed=3) / 3,
        bias=random(7, seed=4),
        w4=random(7, 5, seed=5),
    )


def handed_by_loops():
    """A loop hands a weight to a loop in it, which hands it on; the body reads another one too."""
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            h = MatMul (x, w0)
            last, o = Loop (count, , h, w1) <body = b (int64 i, bool c, float[N,8] a, float[8,7] w)
                => (bool more, float[N,8] after, float[8,7] w) {
                more = Identity (c)
                p, after = Loop (count, , w, a) <body = d
                    (int64 j, bool e, float[8,7] v, float[N,8] s)
                    => (bool still, float[8,7] v, float[N,8] t) {
                    still = Identity (e)  m = MatMul (s, v)  r = Relu (m)  n = MatMul (r, w2)
                    t = Add (s, n)
                }>
            }>
            y = MatMul (last, w3)
        }""",
        w0=random(6, 8),
        count=np.array(2),
        w1=random(8, 7, seed=1) / 3,
        w2=random(7, 8, seed=2) / 3,
        w3=random(8, 5, seed=3),
    )


def begun_with_zeros():
    """A cell whose state begins with zeros, told its width beside the batch, as Keras has them."""
    return build(
        """(float[N,T,4] x) => (float[N,5] y) {
            e = MatMul (x, w0)  steps = Transpose <perm = [1, 0, 2]> (e)
            shape = Shape (x)  rows = Slice (shape, zero, one)
            seven = Constant <value_ints = [7]> ()  size = Concat <axis = 0> (rows, seven)
            start = Expand (nothing, size)  many = Slice (shape, one, two)  trips = Squeeze (many)
            last, o1, o2 = Loop (trips, , start, w1, w2) <
                body = body (int64 i, bool c, float[N,7] h, float[6,7] k, float[7,7] r)
                => (bool go, float[N,7] next, float[6,7] k, float[7,7] r) {
                go = Identity (c)  now = Gather <axis = 0> (steps, i)  u = MatMul (now, k)
                v = MatMul (h, r)  s = Add (u, v)  next = Tanh (s)
            }>
            y = MatMul (last, w3)
        }""",
        w0=random(4, 6),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        nothing=np.float32(0),
        w1=random(6, 7, seed=1) / 3,
        w2=random(7, 7, seed=2) / 3,
        w3=random(7, 5, seed=3),
    )


def begun_with_constants():
    """An LSTM written out, whose states begin with learned numbers and with one in every place."""
    return build(
        """(float[T,4] x) => (float[T,5] y) {
            e = MatMul (x, w0)  start = ConstantOfShape <value = float[1] {0.5}> (size)
            last, o, all = Scan <
                num_scan_inputs = 1, body = b (float[A,7] h, float[A,7] c, float[6] now)
                => (float[A,7] hn, float[A,7] cn, float[7] out) {
                row = Unsqueeze (now, zero)  u = MatMul (row, w1)  v = MatMul (h, w2)
                s = Add (u, v)  i, f, g, o1 = Split <axis = 1, num_outputs = 4> (s)
                i1 = Sigmoid (i)  f1 = Sigmoid (f)  g1 = Tanh (g)  o2 = Sigmoid (o1)
                old = Mul (f1, c)  new = Mul (i1, g1)  cn = Add (old, new)
                t = Tanh (cn)  hn = Mul (o2, t)  out = Squeeze (hn, zero)
            }> (start, learned, e)
            y = MatMul (all, w3)
        }""",
        w0=random(4, 6),
        size=np.array([1, 7]),
        learned=random(1, 7, seed=5),
        zero=np.array([0]),
        w1=random(6, 28, seed=1) / 3,
        w2=random(7, 28, seed=2) / 3,
        w3=random(7, 5, seed=3),
    )


def begun_with_the_same_zeros():
    """Two loops with two states each, of which the first feeds the second; all begin alike."""
    layer = """first{0}, last{0} = Scan <num_scan_inputs = 1, body = b{0}
                (float[1,6] h{0}, float[1,6] k{0}, float[4] now{0})
                => (float[1,6] hn{0}, float[1,6] kn{0}) {{
                m{0} = MatMul (h{0}, w0)  a{0} = MatMul (now{0}, v{0})  s{0} = Add (m{0}, a{0})
                hn{0} = Tanh (s{0})  u{0} = MatMul (hn{0}, w{0})  n{0} = MatMul (k{0}, w3)
                t{0} = Add (u{0}, n{0})  kn{0} = Tanh (t{0})
            }}> (zeros, zeros, x)"""
    return build(
        f"""(float[N,4] x) => (float[1,5] y) {{
            {layer.format(1)} {layer.format(2)}
            z1 = MatMul (last1, w4)  z2 = MatMul (last2, w5)  y = Add (z1, z2)
        }}""",
        zeros=np.zeros((1, 6), np.float32),
        w0=random(6, 6) / 3,
        v1=random(4, 6, seed=1),
        v2=random(4, 6, seed=2),
        w1=random(6, 6, seed=3) / 3,
        w2=random(6, 6, seed=4) / 3,
        w3=random(6, 6, seed=5) / 3,
        w4=random(6, 5, seed=6),
        w5=random(6, 5, seed=7),
    )


INNER = (
    *(branches, same_names_in_branches, looped, scanned),
    *(handed_by_a_scan, handed_by_loops, begun_with_zeros, begun_with_constants),
    begun_with_the_same_zeros,
)
