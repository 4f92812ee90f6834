"""Layers whose units are outputs: past no other layer, and not beside what comes another way."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from text_models import build, random

from onnx_relief.graph.document import load
from onnx_relief.graph.giving import giving_outputs
from onnx_relief.graph.layers import find_layers


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("h = {a} MatMul (x, v)  y = {b} MatMul (h, v)", "b"),
        ("h = {a} MatMul (x, v)  s = Softmax (h)  y = Transpose (s)", "a"),
        ("h = {a} MatMul (x, v)  g = {b} MatMul (x, v)  y = Concat <axis = 0> (h, g)", "ab"),
        ("h = {a} MatMul (x, v)  y = Add (h, b)", "a"),
        ("h = {a} MatMul (x, v)  r = Relu (h)  y = Add (h, r)", "a"),
        ("h = {a} MatMul (x, v)  s = Sigmoid (h)  y = Mul (s, x)", "a"),
        ("h = {a} MatMul (x, v)  s = Tanh (h)  r = Relu (s)  y = Sum (r, h, s)", "a"),
        ("h = {a} MatMul (x, v)  y = Add (h, x)", ""),
        ("h = {a} MatMul (x, v)  s = Add (h, x)  y = Add (s, h)", ""),
        ("h = {a} MatMul (x, v)  g = {b} MatMul (h, v)  y = Add (g, h)", "a"),
        ("h = {a} MatMul (x, v)  g = {b} MatMul (x, v)  y = Add (h, g)", "a"),
        ("r = Relu (x)  h = {a} MatMul (x, v)  g = {b} MatMul (r, v)  y = Sum (g, h, r)", ""),
        ("h = {a} MatMul (x, v)  e = Gather (v, places)  y = Add (h, e)", ""),
        (
            "h = {a} MatMul (x, v)  r = Relu (h)  s = Add (r, h)  g = {b} MatMul (x, v) "
            "y = Sub (s, g)",
            "a",
        ),
        (
            "h = {a} MatMul (x, v)  r = Relu (h)  y = If (yes) <then_branch = t () => "
            "(float[4,4] o) { o = Add (h, r) }, else_branch = e () => (float[4,4] p) "
            "{ p = Sub (h, r) }>",
            "a",
        ),
        (
            "h = {a} MatMul (x, v)  y = If (yes) <then_branch = t () => (float[4,4] o) "
            "{ o = Add (h, x) }, else_branch = e () => (float[4,4] p) { p = Sub (x, h) }>",
            "",
        ),
        ("h = {a} MatMul (x, v)  i = Shape (x)  f = Cast <to = 1> (i)  y = Add (h, f)", "a"),
        ("h = {a} MatMul (x, v)  i = Shape (h)  y = Expand (x, i)", ""),
        (
            "h = {a} MatMul (x, v)  y = If (yes) <then_branch = t () => (float[4,4] o) "
            "{ o = {b} MatMul (h, v) }, else_branch = e () => (float[4,4] p) { p = Relu (h) }>",
            "ab",
        ),
        (
            "y = Loop (trips, yes, x) <body = b (int64 i, bool c, float[4,4] s) => "
            "(bool go, float[4,4] n) { m = {a} MatMul (s, v)  n = Tanh (m)  go = Identity (c) }>",
            "a",
        ),
    ],
)
def test_layers_that_give_outputs_are_known(body, found):
    named = body.replace("y = {a}", "[a] y =").replace("y = {b}", "[b] y =")
    for name in "hgmo":
        for layer in "ab":
            named = named.replace(f"{name} = {{{layer}}}", f"[{layer}] {name} =")
    given = build(
        f"(float[4,4] x, bool yes, int64 trips, int64[4] places) => (float[N,M] y) {{ {named} }}",
        v=random(4, 4, seed=1),
        b=random(4, seed=2),
    )
    names = {name.rpartition("/")[2] for name in giving_outputs(find_layers(load(given)))}
    assert names == set(found)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("[a] h = MatMul (x, v)  y = Add (h, x)", ""),
        ("[a] h = MatMul (x, v)  y = Add (h, all)", ""),
        ("[a] h = MatMul (x, v)  y = Add (h, one)", "a"),
        ("[a] h = MatMul (x, v)  r = ReduceMean (x, last)  y = Add (h, r)", "a"),
        ("[a] h = MatMul (x, v)  r = Add (one, b)  y = Add (h, r)", "a"),
        ("[a] h = MatMul (x, v)  r = Tile (one, twice)  y = Add (h, r)", "a"),
        ("[a] h = MatMul (x, v)  r = Mul (x, one)  y = Add (h, r)", ""),
        ("[a] h = MatMul (x, v)  r = Reshape (x, form)  y = Add (h, r)", "a"),
        ("[a] h = MatMul (x, k)  y = Add (h, x)", ""),
        (  # the example of the module
            "[a] h = MatMul (x, v)  n = Shape (h)  [b] g = MatMul (h, v)  r = Relu (g) "
            "s = Add (g, r)  [c] z = MatMul (x, v)  y = Add (s, z)",
            "b",
        ),
        # The head of a dueling network, its value first or its advantages.
        (
            "[a] h = MatMul (x, k)  [b] g = MatMul (x, v)  m = ReduceMean (g, last) "
            "c = Sub (g, m)  y = Add (h, c)",
            "ab",
        ),
        (
            "[a] g = MatMul (x, v)  [b] h = MatMul (x, k)  m = ReduceMean (g, last) "
            "c = Sub (g, m)  y = Add (h, c)",
            "a",
        ),
        # Of a layer some units are zero.
        ("[a] h = MatMul (x, half)  [b] g = MatMul (x, v)  y = Add (h, g)", "ab"),
        ("[a] h = MatMul (x, v)  [b] g = MatMul (x, half)  y = Add (h, g)", "a"),
    ],
)
def test_only_what_tells_all_units_apart_stands_in_for_them(body, found):
    some = random(4, 4, seed=1)
    half = np.where(np.arange(4) < 2, some, 0)
    fed = "float[N,4] x, float[N,1] one, float[1,4] all, int64[R] form"
    given = build(
        f"({fed}) => (float[N,M] y) {{ {body} }}",
        **{"v": some, "half": half, "k": random(4, 1, seed=2), "b": random(4, seed=3)},
        **{"last": np.array([1]), "twice": np.array([1, 4])},
    )
    assert giving_outputs(find_layers(load(given))) == set(found)


def test_deep_models_are_no_deeper_than_shallow_ones():
    steps = " ".join(f"r{at + 1} = Tanh (r{at})" for at in range(1000))
    given = build(
        f"(float[4,4] x) => (float[4,4] y) {{ r0 = MatMul (x, v) {steps} "
        "[last] h = MatMul (r1000, v)  y = Add (r1000, h) }",
        v=random(4, 4, seed=1),
    )
    assert len(giving_outputs(find_layers(load(given)))) == 1


@pytest.mark.parametrize("shape", ["", "6", "N,7", "N,6,1"])
@pytest.mark.parametrize("name", ["h", "g", "y"])
def test_shapes_that_a_file_states_wrongly_do_no_harm(name, shape):
    body = "h = MatMul (x, v)  g = MatMul (x, v)  s = Relu (g)  y = Add (h, s)"
    model = build(f"(float[N,6] x) => (float[N,6] y) {{ {body} }}", v=random(6, 6))
    stated = onnx.parser.parse_graph(f"g (float[{shape}] {name}) => () {{}}").input[0]
    if name == "y":
        model.graph.output[0].CopyFrom(stated)
    else:
        model.graph.value_info.append(stated)
    giving_outputs(find_layers(load(model)))
