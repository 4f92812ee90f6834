"""Which outputs are sigmoids, and which hold classes on their last axis."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build, random

from onnx_relief.graph.endings import joined_parts, sigmoid_outputs, stepwise_outputs


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("y = Sigmoid (x)", True),
        ("y = HardSigmoid (x)", True),
        ("s = Sigmoid (x)  t = Transpose (s)  y = Cast <to = 1> (t)", True),
        ("s = Sigmoid (x)  t = HardSigmoid (x)  y = Concat <axis = 1> (s, t, s)", True),
        ("s = Sigmoid (x)  t = Relu (x)  y = Concat <axis = 1> (s, t)", False),
        ("s = Sigmoid (x)  y = Mul (s, s)", False),
        ("y = Softmax (x)", False),
        ("y = Identity (x)", False),
    ],
)
def test_outputs_that_are_sigmoids_are_known(body, found):
    model = build(f"(float[N,N] x) => (float[N,M] y, float[N,N] z) {{ {body}  z = Relu (x) }}")
    assert sigmoid_outputs(model) == ({"y"} if found else set())


def test_an_operator_of_another_domain_may_be_anything():
    model = build("(float[N,N] x) => (float[N,N] y) { y = Relu (x) }")
    model.graph.node[0].op_type, model.graph.node[0].domain = "Sigmoid", "com.example"
    assert sigmoid_outputs(model) == set()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("y = MatMul (x, w)", True),
        ("a = MatMul (x, w)  b = Add (c, a)  y = LogSoftmax (b)", True),
        ("v = DequantizeLinear (q, c, z)  y = MatMul (x, v)", True),
        ("a = MatMul (x, w)  y = Transpose <perm = [0, 2, 1]> (a)", False),
        ("y = MatMul (x, x)", False),
        ("y = Conv (x, k)", False),
        ("a = Conv (x, k)  y = Transpose <perm = [0, 2, 1]> (a)", True),
        ("a = Conv (i, l)  b = Squeeze (a, two)  y = Transpose <perm = [0, 2, 1]> (b)", True),
        ("a = Conv (x, k)  b = Transpose <perm = [0, 2, 1]> (a)  y = Concat <axis = 1> (b, b)", 0),
        ("f = Reshape (x, to)  a = Gemm (f, w)  y = Reshape (a, back)", True),
        ("a = MatMul (x, w)  b = Add (a, x)  y = LayerNormalization (b, s)", False),
        (
            "a = MatMul (x, w)  m = ReduceMean <keepdims = 1> (a)  c0 = Sub (a, m)  e = Abs (c0)  "
            "v = ReduceMean <keepdims = 1> (e)  d = Div (c0, v)  g = Mul (d, s)  y = Add (g, s)",
            False,
        ),
        ("a = MatMul (x, w)  b = Div (a, c)  y = Add (b, s)", True),
        ("a = MatMul (x, w)  b = Sqrt (c)  y = Div (a, b)", True),
        ("a = MatMul (x, w)  b = Sqrt (c)  y = Mul (b, a)", True),
        (
            "a = MatMul (x, w)  n = Shape (a)  f = Cast <to = 1> (n)  q = Sqrt (f)  y = Div (a, q)",
            True,
        ),
        ("a = MatMul (x, w)  m = ReduceMax (x)  y = Div (a, m)", True),
        (
            "a = MatMul (x, w)  m = ReduceMean (a)  c0 = Sub (a, m)  e = Mul (c0, c0)  "
            "v = ReduceMean (e)  q = Sqrt (v)  r = Reciprocal (q)  i = Mul (r, s)  "
            "j = Mul (a, i)  k = Mul (m, i)  o = Sub (s, k)  y = Add (j, o)",
            False,
        ),
        ("y = Identity (x)", False),
        ("c0 = Constant <value_floats = [1.0, 2.0]> ()  y = Identity (c0)", False),
    ],
)
def test_outputs_whose_last_axis_holds_classes_are_known(body, found):
    constants = {
        "w": random(4, 4),
        "c": np.float32(1),
        "s": random(4),
        "k": random(4, 4, 1),
        "l": random(4, 4, 1, 1),
    }
    constants |= {"two": np.array([2]), "to": np.array([-1, 4]), "back": np.array([1, -1, 4])}
    constants |= {"q": np.ones((4, 4), np.int8), "z": np.int8(0)}
    used = {
        name: array for name, array in constants.items() if f" {name}" in body.replace("(", " ")
    }
    text = f"(float[1,4,4] x, float[1,4,1,4] i) => (float[A,B,C] y) {{ {body} }}"
    assert stepwise_outputs(build(text, **used)) == ({"y"} if found else set())


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("a = Relu (x)  b = Tanh (x)  y = Concat <axis = 1> (a, b)", ("a", "b")),
        ("a = Relu (x)  b = Tanh (x)  c = Concat <axis = 1> (a, b)  y = Identity (c)", ("a", "b")),
        (
            "a = Relu (x)  b = Tanh (x)  c = Concat <axis = 1> (a, b)  d = Cast <to = 1> (c)"
            "  e = Neg (x)  y = Concat <axis = 1> (e, d, a)",
            ("e", "a", "b"),
        ),
        ("a = Relu (x)  y = Concat <axis = 1> (a, x)", None),
        ("a = Relu (x)  b = Tanh (x)  c = Concat <axis = 1> (a, b)  y = Neg (c)", None),
    ],
)
def test_what_an_output_joins_is_known(body, found):
    model = build(f"(float[N,N] x) => (float[N,M] y) {{ {body} }}")
    assert joined_parts(model) == ({"y": found} if found else {})
