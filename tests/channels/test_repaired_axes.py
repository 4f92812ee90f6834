"""Repairs compare a smaller model with the dense one, along whichever axes channels were cut."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build, random, run

from onnx_relief.channels.pruning import prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.data import open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.settings import Settings


def cut(model, repair, x, **settings):
    document = load(model)
    data = open_data({"x": x}, input_specs(document.proto))
    channels = ChannelSettings(ratio=0.5, round_to=1, repair=repair)
    return prune_channels(document, data, Settings(**{"criterion": "obs", **settings}), channels)


def error(model, dense, x):
    one, other = (run(m, {"x": x})[0].astype(np.float64) for m in (model, dense))
    return np.square(one - other).sum() / np.square(other).sum()


def mixer(**changed):
    """Return a model in which the channels of one layer lie among the positions of another."""
    weights = {"w": random(12, 16, seed=1), "b": random(16, seed=2), "v": random(16, 5, seed=4)}
    return build(
        """(float[N,4,12] x) => (float[N,4,5] y) {
            a = MatMul (x, w)  c = Add (a, b)  r = Relu (c)  t = Transpose <perm = [0, 2, 1]> (r)
            u = MatMul (t, tokens)  s = Add (u, o)  q = Transpose <perm = [0, 2, 1]> (s)
            y = MatMul (q, v)
        }""",
        **{**weights, "tokens": random(4, 4, seed=3), "o": random(4, seed=6), **changed},
    )


def test_layers_that_mix_positions_are_compared_at_those_that_stay():
    x, others = random(128, 4, 12, seed=5), random(64, 4, 12, seed=7)
    found, plain = (cut(mixer(), one, x, criterion="relief") for one in ("least-squares", "none"))
    assert found.removed == 8
    assert not found.repair.undone
    assert error(found.document.proto, mixer(), others) < error(
        plain.document.proto, mixer(), others
    )


def test_moments_over_positions_of_which_some_went_are_not_restored():
    """Half of the channels say nothing, and stand out where all are looked at together."""
    bias, last = random(16, seed=2), random(16, 5, seed=4)
    bias[:8] += 10
    last[:8] = 0
    model, x = mixer(b=bias, v=last), random(128, 4, 12, seed=5)
    found = cut(model, "bias", x, criterion="relief")
    assert error(found.document.proto, model, x) < 1e-9
    assert any("lie among its positions" in note for note in found.repair.notes)


HEADS = """(float[N,8] x) => (float[N,6] y) {
    z = MatMul (x, first)  r = Relu (z)  a = Einsum <equation = "bd,dhk->bhk"> (r, w)
    c = Add (a, b)  q = Relu (c)  y = Einsum <equation = "bhk,hko->bo"> (q, v)
}"""
JOINED = """(float[N,8] x) => (float[N,6] y) {
    z = MatMul (x, first)  r = Relu (z)  a = MatMul (r, w)  c = Add (a, b)  q = Relu (c)
    h = Reshape (q, apart)  f = Reshape (h, together)  y = MatMul (f, v)
}"""


@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.parametrize("repair", ["bias", "least-squares"])
def test_units_along_several_axes_are_repaired_as_those_along_one(repair, width):
    size = 4 * width
    weights = {
        "first": random(8, 12, seed=7),
        "w": random(12, 4, width, seed=1),
        "b": random(4, width, seed=2),
        "v": random(4, width, 6, seed=3),
    }
    flat = {"w": weights["w"].reshape(12, size), "b": weights["b"].reshape(size)}
    shapes = {"apart": np.array([0, 4, width]), "together": np.array([0, size])}
    heads = build(HEADS, **weights)
    joined = build(JOINED, **{**weights, **flat, "v": weights["v"].reshape(size, 6)}, **shapes)
    x, others = random(300, 8, seed=5), random(100, 8, seed=6)
    one, other = (cut(model, repair, x) for model in (heads, joined))
    assert one.repair.notes == other.repair.notes
    assert one.repair.undone == other.repair.undone
    outputs = (run(found.document.proto, {"x": others})[0] for found in (one, other))
    np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-3)
