"""Laws of selection: what is kept covers alpha, none of it could be spared, and ranks decide."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from onnx_relief.errors import SettingsError
from onnx_relief.selection.coverage import keep_covering_set

ANY_SIZE = st.floats(0, 1e308, allow_subnormal=True)
FEW_VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0])  # many ties
MODERATE = st.floats(0, 1e6).map(lambda value: round(value, 3))
alphas = st.floats(1e-3, 1, exclude_max=True) | st.sampled_from([0.25, 0.5, 0.75, 0.95])


def rows(elements: Any) -> Any:
    """Return small matrices of scores, (units, connections)."""
    return arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=elements)


def mass(values: Any) -> Fraction:
    """Return the exact sum: the laws must not depend on rounding of their own."""
    return sum((Fraction(value) for value in values.tolist()), Fraction(0))


@given(rows(ANY_SIZE) | rows(FEW_VALUES), alphas)
def test_what_is_kept_covers_alpha(scores: Any, alpha: float) -> None:
    for row, keep in zip(scores, keep_covering_set(scores, alpha), strict=True):
        assert mass(row[keep]) >= Fraction(alpha) * mass(row) * (1 - Fraction(1, 10**12))


@given(rows(ANY_SIZE) | rows(FEW_VALUES), alphas)
def test_nothing_kept_could_be_spared(scores: Any, alpha: float) -> None:
    for row, keep in zip(scores, keep_covering_set(scores, alpha), strict=True):
        if keep.any():
            spared = mass(row[keep]) - Fraction(row[keep].min())
            assert spared < Fraction(alpha) * mass(row) * (1 + Fraction(1, 10**12))


@given(rows(ANY_SIZE), alphas)
def test_what_is_kept_outranks_what_is_dropped(scores: Any, alpha: float) -> None:
    for row, keep in zip(scores, keep_covering_set(scores, alpha), strict=True):
        if keep.any() and not keep.all():
            assert row[keep].min() >= row[~keep].max()


@given(rows(FEW_VALUES), alphas)
def test_equal_scores_keep_their_column_order(scores: Any, alpha: float) -> None:
    for row, keep in zip(scores, keep_covering_set(scores, alpha), strict=True):
        for value in np.unique(row):
            kept = keep[row == value]
            assert not np.any(~kept[:-1] & kept[1:])


@given(st.lists(MODERATE, min_size=1, max_size=9, unique=True), alphas, st.data())
def test_permuted_columns_permute_the_mask(row: list[float], alpha: float, data: Any) -> None:
    order = data.draw(st.permutations(range(len(row))))
    scores = np.array([row])
    permuted = keep_covering_set(scores[:, order], alpha)
    np.testing.assert_array_equal(permuted, keep_covering_set(scores, alpha)[:, order])


@given(rows(MODERATE), alphas, st.integers(-900, 900))
def test_the_scale_of_a_row_does_not_matter(scores: Any, alpha: float, exponent: int) -> None:
    scaled = keep_covering_set(np.ldexp(scores, exponent), alpha)
    np.testing.assert_array_equal(scaled, keep_covering_set(scores, alpha))


@given(rows(FEW_VALUES), alphas)
def test_rows_do_not_depend_on_each_other(scores: Any, alpha: float) -> None:
    alone = [keep_covering_set(row[None], alpha)[0] for row in scores]
    np.testing.assert_array_equal(keep_covering_set(scores, alpha), alone)


@given(rows(ANY_SIZE), alphas)
def test_a_row_with_mass_keeps_something_and_a_row_without_keeps_nothing(
    scores: Any, alpha: float
) -> None:
    keep = keep_covering_set(scores, alpha)
    np.testing.assert_array_equal(keep.any(axis=1), scores.any(axis=1))
    assert not np.any(keep & (scores == 0))


@given(rows(ANY_SIZE), alphas)
def test_more_coverage_never_drops_more(scores: Any, alpha: float) -> None:
    less, more = keep_covering_set(scores, alpha / 2), keep_covering_set(scores, alpha)
    assert not np.any(less & ~more)


@given(rows(ANY_SIZE))
def test_full_coverage_changes_nothing(scores: Any) -> None:
    assert keep_covering_set(scores, 1.0).all()


@given(rows(ANY_SIZE), alphas)
def test_scores_are_not_changed(scores: Any, alpha: float) -> None:
    before = scores.copy()
    keep_covering_set(scores, alpha)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(
    ("row", "alpha", "kept"),
    [
        ([1.0, 1.0, 1.0, 1.0], 0.5, [1, 1, 0, 0]),  # the authors' code drops all four
        ([0.9, 0.05, 0.05], 0.95, [1, 1, 0]),  # and keeps only .90 here
        ([0.3], 0.01, [1]),  # a depthwise filter without bias
        ([0.0], 0.5, [0]),
        ([0.95, 0.05], 0.95, [1, 0]),
        ([5e-324] * 4, 0.5, [1, 1, 0, 0]),
        ([5e-324] * 3, 0.1, [1, 0, 0]),
        ([1.7e308] * 3, 0.3, [1, 0, 0]),
        ([1e308, 5e-324, 0.0], 0.999, [1, 0, 0]),
    ],
)
def test_single_rows(row: list[float], alpha: float, kept: list[int]) -> None:
    assert keep_covering_set(np.array([row]), alpha).tolist() == [[bool(k) for k in kept]]


def test_no_columns_and_no_rows_are_allowed() -> None:
    assert keep_covering_set(np.zeros((3, 0)), 0.5).shape == (3, 0)
    assert keep_covering_set(np.zeros((0, 3)), 0.5).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e-300])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_scores_that_are_none_are_refused(bad: float, alpha: float) -> None:
    with pytest.raises(SettingsError, match="finite and not negative"):
        keep_covering_set(np.array([[1.0, bad]]), alpha)


@pytest.mark.parametrize("alpha", [0.0, -0.5, 1.0000001, np.nan, np.inf])
def test_alpha_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(SettingsError, match=r"alpha must lie in \(0, 1\]"):
        keep_covering_set(np.ones((1, 2)), alpha)
