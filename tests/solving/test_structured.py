"""Channels go in an order whose losses are those of the best weights that are left."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.solving.structured import Reader, eliminate
from onnx_relief.solving.support import damped, fit_on_support, output_error


@st.composite
def readers(draw):
    """Draw one to three layers that read the same channels, each through one or more columns."""
    channels = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        taps, blocks = draw(st.integers(1, 3)), draw(st.sampled_from([1, channels]))
        entries = channels * taps // blocks
        inputs = rng.standard_normal((blocks, 40, entries))
        moment = damped(np.einsum("gsi,gsj->gij", inputs, inputs) / 40, 1e-2)
        weights = rng.standard_normal((blocks, draw(st.integers(1, 4)), entries))
        columns = np.arange(channels * taps).reshape(channels, taps)
        found.append(Reader(moment=moment, weights=weights, columns=list(columns)))
    return found, channels


def loss_without(reader, gone):
    """Return the loss of a layer that reads some channels no more, with the best weights."""
    keep = np.ones(reader.weights.shape, bool)
    blocks, _, entries = keep.shape
    for channel in gone:
        for column in reader.columns[channel]:
            keep[column // entries, :, column % entries] = False
    assert blocks
    fitted = fit_on_support(reader.moment, reader.weights @ reader.moment, keep)
    return output_error(reader.moment, fitted - reader.weights).sum() / reader.energy


@given(readers())
def test_losses_are_those_of_the_best_weights(drawn):
    found, channels = drawn
    result = eliminate(found, channels)
    assert sorted(result.order) == list(range(channels))
    for count in range(channels + 1):
        expected = sum(loss_without(reader, result.order[:count]) for reader in found)
        assert np.isclose(result.losses[count], expected, rtol=1e-6, atol=1e-9)


@given(readers())
def test_the_first_to_go_is_the_cheapest(drawn):
    found, channels = drawn
    result = eliminate(found, channels)
    costs = [sum(loss_without(reader, [one]) for reader in found) for one in range(channels)]
    assert np.isclose(costs[result.order[0]], min(costs), rtol=1e-6, atol=1e-9)


@given(readers())
def test_the_probed_weights_are_the_best_at_that_point(drawn):
    found, channels = drawn
    result = eliminate(found, channels, near=0.3)
    for reader, weights in zip(found, result.probed, strict=True):
        loss = output_error(reader.moment, weights - reader.weights).sum() / reader.energy
        expected = loss_without(reader, result.order[: result.probe])
        assert np.isclose(loss, expected, rtol=1e-6, atol=1e-9)


def test_a_channel_that_nobody_reads_goes_first_and_costs_nothing():
    moment = np.eye(2)[None]
    none = np.zeros(0, np.int64)
    columns = [np.array([0]), none, np.array([1])]
    reader = Reader(moment=moment, weights=np.ones((1, 2, 2)), columns=columns)
    result = eliminate([reader], 3)
    assert result.order[0] == 1
    assert result.losses[1] == 0
