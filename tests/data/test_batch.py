from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.data import open_data
from onnx_relief.data.batch import spread
from onnx_relief.errors import DataError, SettingsError


@given(st.integers(1, 2000), st.data())
def test_one_index_from_each_of_as_many_stretches(total: Any, data: Any) -> None:
    wanted = data.draw(st.integers(1, total))
    rows = spread(total, wanted)
    edges = np.arange(wanted + 1) * total // wanted
    assert np.all(edges[:-1] <= rows)
    assert np.all(rows < edges[1:])


@pytest.mark.parametrize("step", [2, 5, 10, 20])
def test_classes_that_take_turns_are_all_taken(step: Any) -> None:
    classes = np.arange(1000) % 10
    counts = np.bincount(classes[spread(1000, 1000 // step)], minlength=10)
    assert counts.min() >= 0.7 * counts.mean()


def test_take_keeps_order_and_spreads_over_sorted_classes(spec: Any) -> None:
    arrays = {"x": np.zeros((100, 2), np.float32), "labels": np.repeat(np.arange(5), 20)}
    (batch,) = open_data(arrays, [spec("N", 2)]).take(10).batches(10)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_taking_from_what_was_taken_never_leaves_it(spec: Any, walk: Any) -> None:
    data = open_data(np.arange(100, dtype=np.float32)[:, None], [spec("N", 1)])
    first, _ = walk(data.take(20))
    second, _ = walk(data.take(20).take(5))
    assert set(second["x"].ravel()) <= set(first["x"].ravel())


@pytest.mark.parametrize("samples", [None, 3, 4])
def test_taking_all_changes_nothing(spec: Any, samples: Any) -> None:
    data = open_data(np.zeros((3, 2), np.float32), [spec("N", 2)])
    assert data.take(samples) is data


def test_taking_nothing_names_the_flag(spec: Any) -> None:
    data = open_data(np.zeros((3, 2), np.float32), [spec("N", 2)])
    with pytest.raises(SettingsError, match="--samples"):
        data.take(0)


def test_batch_size_below_one_names_the_flag(spec: Any) -> None:
    data = open_data(np.zeros((3, 2), np.float32), [spec("N", 2)])
    with pytest.raises(SettingsError, match="--batch-size"):
        next(data.batches(0))


def test_description_counts_samples_and_classes(spec: Any) -> None:
    arrays = {"x": np.zeros((6, 2), np.float32), "labels": [0, 1, 2, 0, 1, 2]}
    data = open_data(arrays, [spec("N", 2)])
    assert data.description == "the data (6 samples, 3 classes)"
    assert data.take(2).description == "the data (2 of 6 samples, 3 classes)"
    assert (data.size, data.take(2).size, data.whole_feeds) == (6, 2, False)


def test_a_dataset_is_returned_as_it_is(spec: Any) -> None:
    data = open_data(np.zeros((3, 2), np.float32), [spec("N", 2)])
    assert open_data(data, [spec("N", 5)]) is data


def test_no_samples_are_refused(spec: Any) -> None:
    with pytest.raises(DataError, match="holds no samples"):
        open_data(np.zeros((0, 2), np.float32), [spec("N", 2)])
