"""Metrics against numbers counted by hand, and laws of the difference of two outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from onnx_relief.comparing.gap import Gap
from onnx_relief.comparing.metrics import (
    are_directions,
    choices,
    decisions,
    metric_named,
    top1_hits,
    top5_hits,
)
from onnx_relief.errors import DataError, SettingsError

BFLOAT16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.0, 0.1, 0.9]])
values = st.floats(-100, 100, width=32)
pairs = st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(*(arrays(np.float32, shape, elements=values) for _ in range(2)))
)


def gap_of(dense, pruned, cuts=()):
    gap = Gap("y")
    for one, other in zip(np.split(dense, cuts), np.split(pruned, cuts), strict=True):
        if len(one):
            gap.add(one, other, len(one))
    return gap.finish()


@pytest.mark.parametrize(
    ("output", "chosen"),
    [
        (SCORES, [1, 0, 2]),
        (SCORES[:, :, None, None], [1, 0, 2]),
        (np.array([3, 1, 2]), [3, 1, 2]),
        (np.array([[3], [1], [2]]), [3, 1, 2]),
        (np.array([[0.9], [0.1], [0.5]]), [1, 0, 0]),
        (np.array([True, False, True]), [1, 0, 1]),
    ],
    ids=["scores", "maps of one pixel", "classes", "column", "probabilities", "booleans"],
)
def test_choices(output, chosen):
    assert choices(output).tolist() == chosen


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, BFLOAT16])
def test_nan_chooses_and_decides_nothing(dtype):
    scores = np.array([[np.nan, 1, 2], [0, np.nan, 2], [0, 1, 2], [np.nan] * 3]).astype(dtype)
    assert choices(scores).tolist() == decisions(scores).tolist() == [-1, -1, 2, -1]
    assert choices(scores[:3, :1]).tolist() == [-1, 0, 0]
    for label in range(3):
        labels = np.full(4, label)
        assert top1_hits(scores, labels).tolist() == [False, False, label == 2, False]
        assert top5_hits(scores, labels).tolist() == [False, False, True, False]


def test_nan_decides_nothing_in_its_step():
    scores = np.array([[[np.nan, 1], [0, 1]]])
    assert decisions(scores, steps=True).tolist() == [[-1, 1]]


@pytest.mark.parametrize("output", [np.ones((2, 3, 4)), np.ones((2, 0))])
def test_what_chooses_no_class_says_why(output):
    with pytest.raises(ValueError, match="neither"):
        choices(output)


@pytest.mark.parametrize(
    ("output", "decided"),
    [
        (np.array([[4, 5]]), [[4, 5]]),
        (SCORES, [1, 0, 2]),
        (np.array([[[0.3, 0.7], [0.6, 0.4]]]), [[1, 0]]),
        (5 + SCORES[None], None),
        (np.array([[[0.2], [0.8]]]), [1]),
        (np.array([[[0.2], [0.9]]]), [[[False], [True]]]),
        (np.array([[[2.5], [7.5]]]), None),
        (np.array([[0.2], [0.8]]), [[False], [True]]),
        (np.full((1, 1, 2, 2), 0.7), [[[[True] * 2] * 2]]),
        (np.array([[1.5]]), None),
        (np.full((1, 2, 2, 2), 7.0), None),
        (np.full((1, 3, 3, 1), 7.0), None),
        (np.full((1, 2, 2, 1), 0.7), [[[True] * 2] * 2]),
    ],
    ids=[
        *("integers", "scores", "sequence", "places of a detector", "classes and an axis more"),
        *("shares of steps", "numbers of steps", "shares", "map", "regression", "feature map"),
        *("picture, channels last", "map, channels last"),
    ],
)
def test_decisions(output, decided):
    found = decisions(output)
    assert (None if found is None else found.tolist()) == decided


def test_where_steps_are_known_the_last_axis_decides():
    assert decisions(5 + SCORES[None], steps=True).tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 16), (2, 5, 384)])
def test_embeddings_are_rows_of_length_1(dtype, shape):
    rows = np.random.default_rng(0).standard_normal(shape)
    unit = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(dtype)
    assert are_directions(unit)
    assert not are_directions(1.01 * unit), "logits"
    assert not are_directions(np.abs(unit)), "shares of something, maybe"
    assert not are_directions(unit[..., :3]), "too few to tell"
    assert not are_directions(unit[:0])


def test_top1_counts_first_choices():
    assert top1_hits(SCORES, np.array([1, 1, 2])).tolist() == [True, False, True]


def test_top5_is_wider_than_top1_and_ties_go_to_the_lower_class():
    scores = np.array([[9, 8, 7, 6, 5, 4, 3], [1, 1, 1, 1, 1, 1, 1]], dtype=np.float32)
    assert top5_hits(scores, np.array([4, 5])).tolist() == [True, False]
    assert top5_hits(scores, np.array([5, 4])).tolist() == [False, True]


def test_top5_needs_scores():
    with pytest.raises(ValueError, match="top5 needs scores"):
        top5_hits(np.array([1, 2]), np.array([1, 2]))


@pytest.mark.parametrize("hits", [top1_hits, top5_hits])
def test_a_label_beyond_the_classes_is_named(hits):
    with pytest.raises(DataError, match=r"label 3, but the output has 3 classes \(0 to 2\)"):
        hits(SCORES, np.array([0, 3, 1]))


def test_labels_have_to_be_as_many_as_rows():
    with pytest.raises(DataError, match=r"2 labels for an output of shape \(3, 3\)"):
        top1_hits(SCORES, np.array([0, 1]))


def test_an_unknown_metric_lists_those_that_exist():
    with pytest.raises(SettingsError, match="choose one of accuracy, top5, agreement, cosine, err"):
        metric_named("f1")


@given(pairs)
def test_a_gap_is_what_numpy_says(pair):
    dense, pruned = (part.astype(np.float64) for part in pair)
    found = gap_of(*pair)
    assert found.largest == np.abs(pruned - dense).max()
    if np.linalg.norm(dense):
        expected = np.linalg.norm(pruned - dense) / np.linalg.norm(dense)
        assert found.relative_error == pytest.approx(expected, rel=1e-9)
    spread = np.linalg.norm(dense - dense.mean(axis=0))
    if spread > 1e-3 * np.linalg.norm(dense):
        unexplained = np.linalg.norm(pruned - dense) / spread
        assert found.unexplained == pytest.approx(unexplained, rel=1e-6)


@given(pairs, st.integers(0, 4))
def test_a_gap_does_not_depend_on_the_batches(pair, cut):
    whole, parts = gap_of(*pair), gap_of(*pair, cuts=[cut])
    assert parts.largest == whole.largest
    assert (parts.cosine is None) == (whole.cosine is None) == (pair[0].shape[1] == 1)
    if whole.cosine is not None:
        assert parts.cosine == pytest.approx(whole.cosine, abs=1e-12)
    dense = pair[0].astype(np.float64)
    if np.linalg.norm(dense - dense.mean(axis=0)) > 1e-3 * np.linalg.norm(dense):
        assert parts.unexplained == pytest.approx(whole.unexplained, rel=1e-6)


@given(pairs)
def test_cosines_lie_between_minus_one_and_one(pair):
    if pair[0].shape[1] == 1:
        assert gap_of(*pair).cosine is None
        return
    assert -1 <= gap_of(*pair).cosine <= 1
    assert gap_of(pair[0], pair[0]).cosine == pytest.approx(1.0)


def test_the_gap_notices_one_percent():
    found = gap_of(np.ones((2, 3)), np.full((2, 3), 1.01))
    assert found.relative_error == pytest.approx(0.01)
    assert found.largest == pytest.approx(0.01)


def test_against_a_dense_output_of_zeros_there_is_no_relative_error():
    assert gap_of(np.zeros((1, 2)), np.ones((1, 2))).relative_error is None
    assert gap_of(np.zeros((1, 2)), np.zeros((1, 2))).relative_error == 0


def test_what_is_no_number_in_the_dense_output_is_left_out():
    dense, pruned = np.ones((2, 2)), np.ones((2, 2))
    dense[0, 0], dense[1, 0], pruned[1, 0] = np.nan, np.inf, 5
    found = gap_of(dense, pruned)
    assert (found.nan_dense, found.nan_pruned, found.broken) == (1, 0, 0)
    assert (found.largest, found.relative_error, found.cosine) == (0, 0, 1)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_in_the_pruned_output_alone_is_as_far_as_can_be(broken):
    pruned = np.ones((2, 2))
    pruned[1, 1] = broken
    found = gap_of(np.ones((2, 2)), pruned)
    assert (found.largest, found.relative_error) == (np.inf, np.inf)
    assert found.cosine == pytest.approx(0.5)
    assert found.broken == 1


def test_class_numbers_have_no_angle():
    found = gap_of(np.array([1, 2]), np.array([1, 5]))
    assert (found.largest, found.cosine, found.relative_error) == (3, None, None)
