"""Laws of the criterion: shares of a row, whatever the row's scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from onnx_relief.scoring.relief import relief_scores

SIGNALS = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.just(0.0) | st.floats(1e-100, 1e100),
)


@given(SIGNALS)
def test_rows_sum_to_one_or_to_zero(signals: Any) -> None:
    sums = relief_scores(signals).sum(axis=1)
    np.testing.assert_allclose(sums, signals.any(axis=1).astype(float), rtol=1e-14, atol=0)


@given(SIGNALS)
def test_scores_are_proportional_to_signals(signals: Any) -> None:
    scores = relief_scores(signals)
    totals = signals.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores * totals, signals, rtol=1e-14, atol=0)


@given(SIGNALS, st.integers(-300, 300))
def test_the_scale_of_a_row_does_not_matter(signals: Any, exponent: int) -> None:
    scaled = relief_scores(np.ldexp(signals, exponent))
    np.testing.assert_array_equal(scaled, relief_scores(signals))


@given(SIGNALS, st.data())
def test_permuted_connections_permute_the_scores(signals: Any, data: Any) -> None:
    order = data.draw(st.permutations(range(signals.shape[1])))
    permuted = relief_scores(signals[:, order])
    np.testing.assert_allclose(permuted, relief_scores(signals)[:, order], rtol=1e-14, atol=0)


@given(SIGNALS)
def test_signals_are_not_changed(signals: Any) -> None:
    before = signals.copy()
    relief_scores(signals)
    np.testing.assert_array_equal(signals, before)


def test_no_connections_and_no_units() -> None:
    assert relief_scores(np.zeros((2, 0))).shape == (2, 0)
    assert relief_scores(np.zeros((0, 2))).shape == (0, 2)
