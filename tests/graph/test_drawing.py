"""Models that draw random numbers: all versions of one draw the same, and go on from run to run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import inliner
from text_models import build, differences, function, random

from onnx_relief.graph.document import load
from onnx_relief.graph.drawing import draws, with_seeds
from onnx_relief.runtime import open_session

X = np.abs(random(5, 40)) / 9
CALLED = function("noise", "(a) => (c)", "n = RandomNormalLike (a)  c = Add (a, n)")

BODIES = {
    "RandomNormal": "n = RandomNormal <shape = [5, 40]> ()  y = Add ({x}, n)",
    "RandomNormalLike": "y = RandomNormalLike ({x})",
    "RandomUniform": "n = RandomUniform <shape = [5, 40]> ()  y = Add ({x}, n)",
    "RandomUniformLike": "y = RandomUniformLike ({x})",
    "Bernoulli": "y = Bernoulli ({x})",
    "Multinomial": "z = Multinomial <sample_size = 40> ({x})  y = Cast <to = 1> (z)",
    "If": """yes = Constant <value = bool {{1}}> ()  y = If (yes) <then_branch = t () =>
        (float[N,40] o) {{ o = RandomNormalLike ({x}) }}, else_branch = e () => (float[N,40] p)
        {{ p = Identity ({x}) }}>""",
    "Loop": """trips = Constant <value = int64 {{3}}> ()  yes = Constant <value = bool {{1}}> ()
        y = Loop (trips, yes, {x}) <body = b (int64 i, bool c, float[N,40] s) => (bool go,
        float[N,40] o) {{ n = RandomNormalLike (s)  o = Add (s, n)  go = Identity (c) }}>""",
    "function": "m = my.noise ({x})  y = my.noise (m)",
}


def model(kind, *, behind=0):
    """Return a model that draws, behind so many nodes that change nothing."""
    before = [f"x{at + 1} = Identity (x{at})" for at in range(behind)]
    text = BODIES[kind].replace("{x}", f"x{behind}").replace("{{", "{").replace("}}", "}")
    nodes = "  ".join([*before, text])
    functions = CALLED if kind == "function" else ""
    return build(f"(float[N,40] x0) => (float[N,M] y) {{ {nodes} }}", functions=functions)


def given(session, runs=2):
    return np.stack([session.run({"x0": X})["y"] for _ in range(runs)])


@pytest.mark.parametrize("kind", BODIES)
def test_versions_of_a_model_draw_the_same_numbers(kind):
    session = open_session(model(kind), provider="cpu")
    known = given(session)
    others = [open_session(model(kind, behind=2), provider="cpu"), session.anew()]
    for other in others:
        np.testing.assert_array_equal(given(other), known)
    assert (known[0] != known[1]).any()


def test_a_call_draws_numbers_of_its_own_whether_it_is_written_out_or_not():
    text = "a = my.noise (x0)  b = my.noise (x0)  y = Sub (a, b)"
    called = build(f"(float[N,40] x0) => (float[N,40] y) {{ {text} }}", functions=CALLED)
    written_out = inliner.inline_local_functions(called)
    known, other = (given(open_session(one, provider="cpu")) for one in (called, written_out))
    np.testing.assert_array_equal(known, other)
    assert known.std() == pytest.approx(np.sqrt(2), rel=0.2)


def test_seeds_of_the_model_stay_and_the_model_does():
    text = """(float[N,40] x0) => (float[N,40] y) {
        a = RandomNormalLike <seed = 3.0> (x0)  b = RandomNormalLike (x0)  y = Add (a, b) }"""
    drawing = build(text)
    before = onnx.ModelProto.FromString(drawing.SerializeToString())
    nodes = with_seeds(drawing).graph.node
    assert [attribute.f for attribute in nodes[0].attribute] == [3.0]
    assert [attribute.name for attribute in nodes[1].attribute] == ["seed"]
    open_session(load(drawing), provider="cpu")
    assert differences(drawing, before) == []


def test_what_draws_nothing_is_left_alone():
    kept = build("""(float[N,40] x0) => (float[N,40] y) {
        r = Constant <value_float = 0.5> ()  y = Dropout (x0, r) }""")
    assert not draws(kept)
    session = open_session(kept, provider="cpu")
    assert session.anew() is session


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("given", ["y", "y, kept"])
def test_dropout_drops_nothing_whatever_it_was_written_for(given, optimised):
    model = build(f"""(float[N,40] x0) => (float[N,40] y) {{
        r = Constant <value_float = 0.5> ()  t = Constant <value = bool {{1}}> ()
        {given} = Dropout (x0, r, t) }}""")
    before = onnx.ModelProto.FromString(model.SerializeToString())
    session = open_session(model, provider="cpu", optimised=optimised)
    np.testing.assert_array_equal(session.run({"x0": X})["y"], X)
    assert differences(model, before) == []
