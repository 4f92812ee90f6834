"""What goes as one: exact counts, whole blocks, ties in order, and no unit cut off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.errors import SettingsError
from onnx_relief.structures import KERNEL, ROW, WEIGHT, largest, parse_structure

NAMES = ["weight", "kernel", "row", "2x1", "1x2", "2x2", "1:2", "2:4", "3:4"]


@st.composite
def scored(draw):
    """Draw a structure and scores whose shape divides into it."""
    structure = parse_structure(draw(st.sampled_from(NAMES)))
    shape = (4 * draw(st.integers(1, 3)), 4 * draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    scores = rng.integers(0, draw(st.sampled_from([2, 1000])), shape).astype(float)
    return structure, scores


@given(scored(), st.floats(0, 1))
def test_the_count_is_exact_and_no_unit_is_cut_off(drawn, share):
    structure, scores = drawn
    count = round(share * structure.blocks(scores.shape))
    keep = structure.keep(scores, count)
    assert keep.shape == scores.shape
    pooled = structure.pooled(keep.astype(float))
    per_block = keep.size / structure.blocks(keep.shape)
    if ":" in str(structure):
        groups = keep.reshape(len(keep), -1, structure.inputs, keep.shape[2])
        assert (groups.sum(axis=2) == structure.units).all()
        return
    assert set(np.unique(pooled)) <= {0.0, per_block}
    least = 1
    if str(structure) != "row":
        bands = structure.pooled(scores).max(axis=1) > 0
        assert (pooled.max(axis=1)[bands] > 0).all()
        least = max(1, int(bands.sum()))
    assert keep.sum() / per_block == max(count, least)


@given(scored(), st.floats(0.1, 0.9))
def test_what_goes_is_worth_no_more_than_what_stays_beyond_the_best_of_its_band(drawn, share):
    structure, scores = drawn
    if ":" in str(structure):
        return
    keep = structure.keep(scores, round(share * structure.blocks(scores.shape)))
    kept = structure.pooled(keep.astype(float)) > 0
    pooled = structure.pooled(scores)
    best = np.zeros_like(kept)
    if str(structure) != "row":
        best[np.arange(len(kept)), pooled.argmax(axis=1)] = True
    others = kept & ~best
    if others.any() and (~kept).any():
        assert pooled[others].min() >= pooled[~kept].max()


@given(scored())
def test_spreading_undoes_pooling(drawn):
    structure, scores = drawn
    if ":" in str(structure):
        return
    kept = structure.pooled(scores) > np.median(structure.pooled(scores))
    wide = structure.spread(kept, scores.shape)
    assert np.array_equal(structure.pooled(wide.astype(float)) > 0, kept)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 20))
def test_of_equal_scores_the_first_stay(values, count):
    scores = np.array(values, float)
    kept = largest(scores, max(count, 1))
    order = np.argsort(-scores, kind="stable")[: max(count, 1)]
    assert np.array_equal(np.flatnonzero(kept), np.sort(order))


def test_names():
    assert [parse_structure(str(one)) for one in (WEIGHT, KERNEL, ROW)] == [WEIGHT, KERNEL, ROW]
    assert parse_structure("2:4").why_not((8, 6, 1)) is not None
    assert parse_structure("2:4").why_not((8, 8, 9)) is None
    assert parse_structure("4x1").why_not((6, 8, 1)) is not None


@pytest.mark.parametrize("name", ["", "4:2", "0x1", "2:2", "two", "4x", "-1x2", "99999x1"])
def test_other_names_are_refused(name):
    with pytest.raises(SettingsError, match="--granularity"):
        parse_structure(name)
