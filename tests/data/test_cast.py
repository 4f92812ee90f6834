from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_relief.data import Preprocess, open_data
from onnx_relief.errors import DataError
from onnx_relief.tensors import TensorSpec


@pytest.mark.parametrize(
    ("stored", "taken"),
    [
        ("float64", "float32"),
        ("float16", "float32"),
        ("float32", "float16"),
        ("bool", "float32"),
        ("int8", "int64"),
        ("int64", "int32"),
        ("uint64", "int8"),
        ("int64", "bool"),
        ("bool", "bool"),
        ("float32", "complex64"),
        ("uint8", "uint8"),
    ],
)
def test_types_that_lose_nothing_change_without_a_word(
    spec: Any, walk: Any, stored: Any, taken: Any
) -> None:
    values = np.array([[0, 1], [1, 0]]).astype(stored)
    fed, _ = walk(open_data(values, [spec("N", 2, dtype=taken)]))
    assert fed["x"].dtype == np.dtype(taken)
    assert np.array_equal(fed["x"], values)


@pytest.mark.parametrize(
    ("values", "taken", "message"),
    [
        (np.array([[1.5]]), "int64", r"holds float64, but .*'x' takes int64; store it"),
        (np.array([[1.0]]), "bool", "takes bool"),
        (np.array([[1], [300]]), "uint8", "sample 1 has values outside 0 to 255"),
        (np.array([[0], [-1]]), "uint64", "sample 1 has values outside 0"),
        (np.array([[0], [2]]), "bool", "sample 1 has values outside 0 to 1"),
        (np.array([["a"]]), "float32", "takes float32"),
        (np.array([[1 + 1j]]), "float32", "takes float32"),
        (np.array([[1.0]]), "object", "takes object"),
        (np.array([[3]], np.uint8), "float32", r"--scale 1/255 or --preset NAME"),
        (np.array([[3]], np.int64), "float32", r"--scale 1 takes them as they are"),
        (np.array([[None]]), "float32", "holds object"),
    ],
)
def test_types_that_would_need_a_guess_are_refused(
    spec: Any, values: Any, taken: Any, message: Any
) -> None:
    with pytest.raises(DataError, match=message):
        list(open_data(values, [spec("N", 1, dtype=taken)]).batches(9))


@pytest.mark.parametrize(
    "values",
    [
        np.array([["a"]]),
        np.array([["1.5"]]),
        np.array([[1 + 1j]]),
        np.array([["2020-01-01"]], "M8[s]"),
        np.array([[(1.0,)]], [("a", "f4")]),
    ],
)
def test_only_real_numbers_are_scaled(spec: Any, values: Any) -> None:
    with pytest.raises(DataError, match="--scale, --mean and --std work on real numbers only"):
        open_data(values, [spec("N", 1)], preprocess=Preprocess(scale=1))


def test_text_is_fed_as_python_strings(spec: Any, walk: Any) -> None:
    fed, _ = walk(open_data(np.array(["a", "bc"]), [spec("N", dtype="object")]))
    assert fed["x"].tolist() == ["a", "bc"]
    assert fed["x"].dtype == object


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_nan_and_inf_are_named_by_input_and_sample(spec: Any, bad: Any, batch_size: Any) -> None:
    values = np.zeros((10, 2, 2), np.float32)
    values[7, 1, 0] = bad
    data = open_data(values, [spec("N", 2, 2, name="signal")])
    with pytest.raises(DataError, match=r"NaN or Inf .*in sample 7, .*'signal'"):
        list(data.batches(batch_size))


def test_a_sample_keeps_its_number_when_only_some_are_taken(spec: Any) -> None:
    values = np.full((100, 1), np.nan, np.float32)
    values[0] = 0
    data = open_data(values, [spec("N", 1)]).take(10)
    first = next(row for row in data.rows if row)
    with pytest.raises(DataError, match=f"in sample {first},"):
        list(data.batches(10))


def test_a_number_too_large_for_the_model_is_named(spec: Any) -> None:
    with pytest.raises(DataError, match=r"too large for float16\) in sample 1"):
        list(open_data(np.array([[1.0], [1e6]]), [spec("N", 1, dtype="float16")]).batches(2))


def test_an_input_without_a_type_is_refused() -> None:
    spec = TensorSpec(name="sequence", dtype=None, shape=None)
    with pytest.raises(DataError, match="'sequence' is of a type that NumPy does not have"):
        open_data(np.zeros((2, 2)), [spec])


def test_pixels_for_an_integer_input_are_fed_raw(spec: Any, walk: Any) -> None:
    pixels = np.array([[0, 255]], np.uint8)
    assert walk(open_data(pixels, [spec("N", 2, dtype="uint8")]))[0]["x"].tolist() == [[0, 255]]
    with pytest.raises(DataError, match="leave --scale"):
        open_data(pixels, [spec("N", 2, dtype="uint8")], preprocess=Preprocess(scale=0.5))
