"""Which outputs are sigmoids, and which hold classes on their last axis."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from text_models import build, random

from onnx_relief.graph.document import load
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
        ("v = DequantizeLinear (v8, c, z)  y = MatMul (x, v)", True),
        ("a = MatMul (x, w)  y = Transpose <perm = [0, 2, 1]> (a)", False),
        ("y = MatMul (x, x)", False),
        ("y = Conv (x, k)", False),
        ("m = Mul (k, k)  y = Conv (x, m)", False),
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
            "v = ReduceMean (e)  q = Sqrt (v)  r = Reciprocal (q)  h = Mul (r, s)  "
            "j = Mul (a, h)  g = Mul (m, h)  o = Sub (s, g)  y = Add (j, o)",
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
    constants |= {"v8": np.ones((4, 4), np.int8), "z": np.int8(0)}
    used = {
        name: array for name, array in constants.items() if f" {name}" in body.replace("(", " ")
    }
    text = f"(float[1,4,4] x, float[1,4,1,4] i) => (float[A,B,C] y) {{ {body} }}"
    assert stepwise_outputs(load(build(text, **used))) == ({"y"} if found else set())


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


LAYERS = {
    "MatMul": "y = MatMul (x, {w})",
    "MatMul, weight first": "u = Transpose <perm = [0, 2, 1]> (x)  a = MatMul ({t}, u)"
    "  y = Transpose <perm = [0, 2, 1]> (a)",
    "Gemm": "f = Reshape (x, rows)  a = Gemm (f, {w})  y = Reshape (a, back)",
    "Gemm, turned": "f = Reshape (x, rows)  a = Gemm <transB = 1> (f, {t})  y = Reshape (a, back)",
    "Conv": "t = Transpose <perm = [0, 2, 1]> (x)  a = Conv <kernel_shape = [1]> (t, {k})"
    "  y = Transpose <perm = [0, 2, 1]> (a)",
    "ConvTranspose": "t = Transpose <perm = [0, 2, 1]> (x)"
    "  a = ConvTranspose <kernel_shape = [1]> (t, {j})"
    "  y = Transpose <perm = [0, 2, 1]> (a)",
    "Einsum": 'y = Einsum <equation = "btd,dc->btc"> (x, {w})',
    "Einsum, weight first": 'y = Einsum <equation = "cd,b t d -> btc"> ({t}, x)',
    "Einsum, any rank": 'y = Einsum <equation = "...d,dc"> (x, {w})',
    "Einsum, units in the middle": 'a = Einsum <equation = "btd,dc->bct"> (x, {w})'
    "  y = Transpose <perm = [0, 2, 1]> (a)",
}
WEIGHTS = {
    "initializer": "",
    "Identity": "v = Identity ({})",
    "Cast": "h = Cast <to = 10> ({})  v = Cast <to = 1> (h)",
    "DequantizeLinear": "i = Cast <to = 3> ({})  v = DequantizeLinear (i, scale)",
    "sum": "v = Add ({}, {})",
}


def last_layer(layer, weight, *, in_node=False):
    """Return a model of per-token classes whose last layer is written like this."""
    form = LAYERS[layer]
    name = next(one for one in "wtkj" if f"{{{one}}}" in form)
    made = WEIGHTS[weight].replace("{}", name)
    body = f"{made}  {form.format(**{name: 'v' if made else name})}"
    matrix = random(6, 4)
    turned = np.ascontiguousarray(matrix.T)
    stored = {"w": matrix, "t": turned, "k": turned[..., None], "j": matrix[..., None]}
    more = {"rows": np.array([-1, 6]), "back": np.array([2, 5, 4]), "scale": np.float32(0.1)}
    used = {name: stored[name]} | {key: more[key] for key in more if f" {key})" in body}
    model = build(f"(float[2,5,6] x) => (float[2,5,4] y) {{ {body} }}", **used)
    if in_node:
        held = next(one for one in model.graph.initializer if one.name == name)
        node = onnx.helper.make_node("Constant", [], [name], value=held)
        model.graph.node.insert(0, node)
        model.graph.initializer.remove(held)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("in_node", [False, True])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_classes_are_known_however_the_last_layer_is_written(layer, weight, in_node):
    model = last_layer(layer, weight, in_node=in_node)
    assert stepwise_outputs(load(model)) == {"y"}


@pytest.mark.parametrize(
    "body",
    [
        'y = Einsum <equation = "btd,dt->bdt"> (x, w)',  # places of the data
        'y = Einsum <equation = "btd,bsd->bts"> (x, x)',  # similarities
        'y = Einsum <equation = "btd,dc->bct"> (x, w)',
        'a = Einsum <equation = "btd,dc->btc"> (x, w)  y = Transpose <perm = [0, 2, 1]> (a)',
        "y = MatMul (w, x)",
        "a = Conv (x, k)  b = Identity (k)  y = Conv (a, b)",
    ],
)
def test_places_are_no_classes_however_the_last_layer_is_written(body):
    used = {
        name: random(*[4] * 2, *[1] * (name == "k"))
        for name in "wk"
        if re.search(rf"[ (]{name}[,)]", body)
    }
    model = build(f"(float[2,4,4] x) => (float[2,4,4] y) {{ {body} }}", **used)
    assert stepwise_outputs(load(model)) == set()
