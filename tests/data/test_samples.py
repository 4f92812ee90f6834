from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.data import open_data
from onnx_relief.errors import DataError
from onnx_relief.tensors import TensorSpec


def numbered(count: Any) -> Any:
    return {"x": np.arange(count * 2, dtype=np.float32).reshape(count, 2), "labels": range(count)}


def input_x(first: Any) -> Any:
    return TensorSpec(name="x", dtype=np.dtype(np.float32), shape=(first, 2))


@given(st.integers(1, 40), st.integers(1, 50))
def test_batch_size_does_not_change_what_is_fed(count: Any, batch_size: Any) -> None:
    arrays = numbered(count)
    batches = list(open_data(arrays, [input_x("N")]).batches(batch_size))
    assert np.array_equal(np.concatenate([b.feed["x"] for b in batches]), arrays["x"])
    assert np.concatenate([b.labels for b in batches]).tolist() == list(range(count))
    assert all(b.count == len(b.feed["x"]) <= batch_size for b in batches)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 50))
def test_a_fixed_batch_is_filled_up_with_the_last_sample(
    count: Any, fixed: Any, asked: Any
) -> None:
    arrays = numbered(count)
    batches = list(open_data(arrays, [input_x(fixed)]).batches(asked))
    assert all(b.feed["x"].shape == (fixed, 2) for b in batches)
    assert np.concatenate([b.labels for b in batches]).tolist() == list(range(count))
    last = batches[-1]
    assert np.all(last.feed["x"][last.count :] == arrays["x"][-1])


def test_data_can_be_walked_again(spec: Any, walk: Any) -> None:
    data = open_data(numbered(9), [spec("N", 2)])
    assert np.array_equal(walk(data)[0]["x"], walk(data, 2)[0]["x"])


def test_what_the_caller_gave_is_not_touched(spec: Any) -> None:
    arrays = numbered(4)
    before = arrays["x"].copy()
    for batch in open_data(arrays, [spec("N", 2)]).batches(2):
        batch.feed["x"][:] = 7
    assert np.array_equal(arrays["x"], before)


def test_several_inputs_and_a_missing_optional_one(spec: Any, walk: Any) -> None:
    inputs = [spec("N", 2, name="a"), spec("N", name="b"), spec("N", name="c", optional=True)]
    arrays = {"b": np.arange(5, dtype=np.float32), "a": np.ones((5, 2), np.float32)}
    fed, labels = walk(open_data(arrays, inputs), 2)
    assert fed.keys() == {"a", "b"}
    assert fed["b"].tolist() == [0, 1, 2, 3, 4]
    assert labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones((5, 2)), "b": np.ones(4)}, r"'a' 5, 'b' 4"),
        ({"a": np.ones((5, 2)), "b": np.float32(1)}, "'b' .* no axis for samples.*folder of .npz"),
        ({"a": np.ones((5, 2))}, r"holds 'a', but the model takes 'a', 'b'"),
        ({"a": np.ones((5, 2)), "B": np.ones(5)}, r"holds 'a', 'B', but .* name the arrays"),
        ({"a": np.ones((5, 2)), "b": np.ones(5), "labels": [0]}, r"shape \(1,\), but \(5,\)"),
        ({"a": np.ones((5, 2)), "b": np.ones(5), "labels": [0.5] * 5}, "float64.*store classes as"),
        ({"a": np.ones((5, 2)), "b": np.ones(5), "labels": [0, 1, -1, 2, 3]}, "-1 at sample 2"),
        (
            {"a": np.ones((2, 2)), "b": np.ones(2), "labels": np.array([0, 2**64 - 1], np.uint64)},
            "hold 18446744073709551615 at sample 1, but classes",
        ),
        ({"a": np.ones((5, 2)), "b": [[1], [2, 3]]}, "'b' of the data is no array"),
    ],
)
def test_arrays_that_do_not_belong_together(spec: Any, arrays: Any, message: Any) -> None:
    with pytest.raises(DataError, match=message):
        open_data(arrays, [spec("N", 2, name="a"), spec("N", name="b")])


def test_inputs_whose_first_axes_differ_need_whole_feeds(spec: Any) -> None:
    inputs = [spec(1, 2, name="a"), spec(2, 2, name="b")]
    with pytest.raises(DataError, match=r"'a' 1, 'b' 2.*complete feed"):
        open_data({"a": np.ones((5, 2)), "b": np.ones((5, 2))}, inputs)


def test_a_model_with_a_scalar_input_needs_whole_feeds(spec: Any) -> None:
    with pytest.raises(DataError, match=r"'rate' is a single number.*complete feed"):
        open_data({"rate": np.ones(5)}, [spec(name="rate")])


def test_a_model_without_a_samples_axis_needs_whole_feeds(spec: Any) -> None:
    with pytest.raises(DataError, match="no axis for samples; give a folder"):
        open_data(np.ones((5, 16), np.float32), [spec(16)])


def test_an_input_called_labels_is_an_input(spec: Any, walk: Any) -> None:
    inputs = [spec("N", 2, name="a"), spec("N", name="labels", dtype="int64")]
    fed, labels = walk(open_data({"a": np.ones((3, 2)), "labels": [3, 4, 5]}, inputs))
    assert fed["labels"].tolist() == [3, 4, 5]
    assert labels is None


def test_a_column_of_labels_is_taken(spec: Any, walk: Any) -> None:
    data = open_data({"x": np.ones((3, 2)), "labels": [[3], [4], [5]]}, [spec("N", 2)])
    assert walk(data)[1].tolist() == [3, 4, 5]
