"""LSTM, GRU and RNN against ONNX Runtime, which computes them its own way."""

from __future__ import annotations

import numpy as np
import pytest
from bridged import assert_agree, gradients_are_right, node_model, through_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import random

from onnx_relief.bridge.ops.gate_functions import choose
from onnx_relief.errors import UnsupportedError

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": ["Y", "Y_h", "Y_c"], "GRU": ["Y", "Y_h"], "RNN": ["Y", "Y_h"]}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
OPTIONS = {"LSTM": "input_forget", "GRU": "linear_before_reset"}
SIDES = {"forward": 1, "reverse": 1, "bidirectional": 2}
CHOICES = [
    *("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", "Affine", "LeakyRelu", "ScaledTanh"),
    *("ThresholdedRelu", "HardSigmoid", "Elu"),
]


def feed_of(kind, sides, *, time=4, batch=3, inputs=2, hidden=3, dtype=np.float32, without=()):
    """Return arrays for all inputs, None for those in `without`."""
    state = (sides, batch, hidden)
    feed = {
        "x": random(time, batch, inputs, seed=1),
        "w": 0.3 * random(sides, GATES[kind] * hidden, inputs, seed=2),
        "r": 0.3 * random(sides, GATES[kind] * hidden, hidden, seed=3),
        "b": 0.3 * random(sides, 2 * GATES[kind] * hidden, seed=4),
        "lengths": np.random.default_rng(5).integers(1, time + 1, batch).astype(np.int32),
        "h": random(*state, seed=6),
    }
    if kind == "LSTM":
        feed |= {"c": random(*state, seed=7), "p": random(sides, 3 * hidden, seed=8)}
    feed = {k: a.astype(dtype) if a.dtype == np.float32 else a for k, a in feed.items()}
    return [None if name in without else array for name, array in feed.items()]


@st.composite
def recurrent_nodes(draw, kind, *, plain):
    """Return a model and a feed; with `plain` only what PyTorch's own operators know."""
    direction = draw(st.sampled_from(list(SIDES)))
    without = set(draw(st.sets(st.sampled_from(["b", "h", "c"]))))
    if plain:
        without |= {"lengths", "p"}
        attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    else:
        without |= draw(st.sets(st.sampled_from(["lengths", "p"])))
        attributes = draw(unusual_attributes(kind, SIDES[direction]))
    wanted = draw(st.sets(st.sampled_from(OUTPUTS[kind]), min_size=1))
    outputs = [name if name in wanted else "" for name in OUTPUTS[kind]]
    feed = feed_of(kind, SIDES[direction], time=draw(st.integers(1, 5)), without=without)
    return node_model(kind, feed, outputs, hidden_size=3, direction=direction, **attributes), feed


@st.composite
def unusual_attributes(draw, kind, sides):
    attributes = {"clip": 0.5} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        many = FUNCTIONS[kind] * sides
        names = draw(st.lists(st.sampled_from(CHOICES), min_size=many, max_size=many))
        numbers = st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=1, max_size=many)
        attributes["activations"] = names
        attributes["activation_alpha"] = draw(numbers)
        attributes["activation_beta"] = draw(numbers)
    if kind in OPTIONS:
        attributes[OPTIONS[kind]] = draw(st.integers(0, 1))
    return attributes


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("kind", GATES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_outputs_are_those_of_onnx_runtime(kind, plain, data):
    assert_agree(*data.draw(recurrent_nodes(kind, plain=plain)))


@pytest.mark.parametrize("direction", SIDES)
@pytest.mark.parametrize("kind", GATES)
def test_empty_and_full_sequences_stand_side_by_side(kind, direction):
    feed = feed_of(kind, SIDES[direction])
    feed[4] = np.array([0, 4, 2], np.int32)
    model = node_model(kind, feed, OUTPUTS[kind], hidden_size=3, direction=direction)
    assert_agree(model, feed)


@pytest.mark.parametrize("kind", GATES)
def test_batch_first_is_the_same_with_swapped_axes(kind):
    feed = feed_of(kind, 2)
    swapped = [a.swapaxes(0, 1) if i in (0, 5, 6) else a for i, a in enumerate(feed)]
    choice = {"hidden_size": 3, "direction": "bidirectional"}
    y, *states = through_torch(node_model(kind, feed, OUTPUTS[kind], **choice), feed)
    model = node_model(kind, swapped, OUTPUTS[kind], layout=1, **choice)
    other, *other_states = through_torch(model, swapped)
    np.testing.assert_allclose(other, y.transpose(2, 0, 1, 3), rtol=1e-5, atol=1e-6)
    for one, two in zip(states, other_states, strict=True):
        np.testing.assert_allclose(two, one.swapaxes(0, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("without", [("lengths", "p"), ()])
@pytest.mark.parametrize("option", [0, 1])
@pytest.mark.parametrize("kind", GATES)
def test_gradients_reach_every_input(kind, option, without):
    feed = feed_of(kind, 2, time=3, batch=2, dtype=np.float64, without=without)
    attributes = {OPTIONS[kind]: option} if kind in OPTIONS else {}
    model = node_model(
        kind, feed, OUTPUTS[kind], hidden_size=3, direction="bidirectional", **attributes
    )
    assert gradients_are_right(model, feed)


def test_unknown_function_is_named():
    with pytest.raises(UnsupportedError, match=r"LSTM 'l' .*'swish'.*sigmoid"):
        choose(["Swish"], (), (), "LSTM 'l'")
