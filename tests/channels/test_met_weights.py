"""Channels that no layer reads go by what they bring where they meet weights."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build, initializer, random

from onnx_relief.channels.meetings import said_to_weights
from onnx_relief.channels.pruning import prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.data import open_data
from onnx_relief.graph.channels import RULES, trace_channels
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.observe import observe
from onnx_relief.settings import Settings

HEADS = """(float[N,12] x) => (float[N,4] y) {
    a = Einsum <equation = "bd,dhk->bhk"> (x, w1)  r = Relu (a)
    b = Einsum <equation = "bhk,hko->bho"> (r, w2)  s = Tanh (b)
    y = Einsum <equation = "bho,hoe->be"> (s, w3)
}"""
LAYER = 'z = Einsum <equation = "bhk,hkz->bz"> (r, wz)'
WEIGHTS = {"w1": (12, 3, 8), "w2": (3, 8, 5), "w3": (3, 5, 4)}
FEED = {"x": random(96, 12, seed=9)}
SETTINGS = Settings(provider="cpu")


def heads(**changed):
    """Return a model in which every head has a matrix of its own."""
    drawn = {
        name: random(*shape, seed=place) / 3 for place, (name, shape) in enumerate(WEIGHTS.items())
    }
    return build(HEADS, **(drawn | changed))


def opened(document):
    return open_data(FEED, input_specs(document.proto))


@pytest.mark.parametrize("criterion", ["obs", "relief", "magnitude"])
@pytest.mark.parametrize("quiet", ["w1", "w2"])
@pytest.mark.parametrize("idle", [[0, 1, 2, 3], [1, 4, 6, 7], [4, 5, 6, 7]])
def test_those_go_that_say_least_to_matrices_of_heads(idle, quiet, criterion):
    """Either they are next to nothing themselves, or next to nothing is read of them."""
    weight = random(*WEIGHTS[quiet], seed=5) / 3
    np.moveaxis(weight, 2 if quiet == "w1" else 1, 0)[idle] *= 1e-3
    document = load(heads(**{quiet: weight}))
    settings = Settings(provider="cpu", criterion=criterion, only=("a",))
    wanted = ChannelSettings(ratio=0.5, round_to=1, repair="none")
    small = prune_channels(document, opened(document), settings, wanted).document.proto
    kept = [width for width in range(8) if width not in idle]
    before = initializer(document.proto, "w1")
    np.testing.assert_array_equal(initializer(small, "w1"), before[:, :, kept])


@pytest.mark.parametrize("first", [False, True])
def test_a_channel_brings_its_energy_times_that_of_the_weights_it_meets(first):
    model = heads()
    if first:
        model.graph.node[2].input[:] = ["w2", "r"]
        model.graph.node[2].attribute[0].s = b"hko, bhk -> bho"
    document = load(model)
    survey = find_layers(document)
    trace, groups = trace_channels(survey.model, observe(survey, FEED), RULES)
    found = said_to_weights(survey, trace, groups, opened(document), SETTINGS)
    hidden = np.maximum(np.einsum("bd,dhk->bhk", FEED["x"].astype(float), random(12, 3, 8) / 3), 0)
    weights = initializer(model, "w2").astype(float)
    expected = np.square(hidden).mean(axis=(0, 1)) * np.square(weights).sum(axis=(0, 2))
    roots = groups.of(trace.of("r")).reshape(-1)
    np.testing.assert_allclose(found[roots], expected, rtol=1e-5)
    assert np.count_nonzero(found) == roots.size  # what layers read is none of its


@pytest.mark.parametrize("criterion", ["obs", "relief"])
def test_what_channels_bring_to_such_weights_counts_beside_what_a_layer_reads(criterion):
    """Of widths 0 and 1 the layer reads nothing and the matrices much, of 2 and 3 all little."""
    weights = {name: random(*shape, seed=3) / 3 for name, shape in WEIGHTS.items()}
    beside = random(3, 8, 4, seed=5) / 3
    beside[:, :2] = 0
    beside[:, 2:4] *= 1e-3
    weights["w2"][:, 2:4] *= 1e-3
    text = HEADS.replace("[N,4] y", "[N,4] y, float[N,4] z").replace("s =", LAYER + " s =")
    document = load(build(text, **weights, wz=beside))
    settings = Settings(provider="cpu", criterion=criterion, only=("a", "z"))
    wanted = ChannelSettings(ratio=0.25, round_to=1, repair="none")
    small = prune_channels(document, opened(document), settings, wanted).document.proto
    kept = [0, 1, 4, 5, 6, 7]
    np.testing.assert_array_equal(initializer(small, "w1"), weights["w1"][:, :, kept])
