"""Laws of the running mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_relief.activity.mean import Mean

ROWS = arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(0, 1e6))


def mean_of(rows: Any) -> Mean:
    mean = Mean()
    for row in rows:
        mean = mean.add(row, 1)
    return mean


@given(ROWS)
def test_it_is_the_mean(rows: Any) -> None:
    np.testing.assert_allclose(mean_of(rows).finish(), rows.mean(axis=0), rtol=1e-13, atol=0)


@given(ROWS, st.integers(0, 9))
def test_two_parts_merged_are_the_whole(rows: Any, cut: int) -> None:
    both = mean_of(rows[:cut]).merge(mean_of(rows[cut:]))
    assert both.count == len(rows)
    np.testing.assert_allclose(both.finish(), mean_of(rows).finish(), rtol=1e-13, atol=0)


@given(ROWS, ROWS)
def test_the_order_of_merging_does_not_matter(one: Any, other: Any) -> None:
    first, second = mean_of(one), mean_of(other)
    np.testing.assert_array_equal(first.merge(second).finish(), second.merge(first).finish())


@given(ROWS)
def test_nothing_merged_changes_nothing(rows: Any) -> None:
    mean = mean_of(rows)
    for same in (mean.merge(Mean()), Mean().merge(mean)):
        np.testing.assert_array_equal(same.finish(), mean.finish())


def test_adding_returns_anew() -> None:
    rows = np.ones(3)
    start = Mean(rows, 1)
    start.add(rows, 1)
    assert start.count == 1
    np.testing.assert_array_equal(rows, 1)


def test_single_precision_is_added_up_in_double() -> None:
    mean = Mean(np.float32(2**24), 1).add(np.ones((), np.float32), 1)
    assert mean.total == 2**24 + 1


def test_without_samples_the_mean_is_zero() -> None:
    assert Mean().finish() == 0
    np.testing.assert_array_equal(Mean(np.zeros(2), 0).finish(), [0, 0])
