"""The one feed that a command runs models on: the first sample of data, or made-up values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_relief.commands.options import PrepareOptions, preprocess_of
from onnx_relief.data import open_data
from onnx_relief.data.batch import Array, first_sample
from onnx_relief.errors import SettingsError
from onnx_relief.measuring.positions import check_shapes, made_up_feed, shape_of, shapes_to_give
from onnx_relief.tensors import TensorSpec


def one_feed(
    inputs: Sequence[TensorSpec],
    data: str | None,
    shapes: Mapping[str, tuple[int, ...]],
    options: PrepareOptions,
) -> dict[str, Array]:
    """Return the first sample of `data`; without data the same made-up values each time.

    Raises:
        SettingsError: A shape is of no input; or as `made_up`, where there is no data.
        DataError: The data cannot be used.
    """
    check_shapes(inputs, shapes)
    if data is not None:
        opened = open_data(data, inputs, preprocess=preprocess_of(options), strict=options.strict)
        return dict(first_sample(opened).feed)
    return made_up(inputs, shapes)


def made_up(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """Return the same made-up values each time.

    Raises:
        SettingsError: A size is free, or a type cannot be made up.
    """
    check_shapes(inputs, shapes)
    free = [one.name for one in inputs if shape_of(one, shapes.get(one.name)) is None]
    if free:
        raise SettingsError(
            f"sizes of inputs are free; give {shapes_to_give(inputs, free)}, or --data where the "
            "command takes it"
        )
    feed = made_up_feed(inputs, shapes)
    if feed is None:
        raise SettingsError(
            "an input has a type that cannot be made up; give --data where the command takes it"
        )
    rng = np.random.default_rng(0)
    return {name: _varied(array, rng) for name, array in feed.items()}


def _varied(array: Array, rng: np.random.Generator) -> Array:
    """Return normal numbers instead of ones, which would hide a transposition.

    Whole numbers stay as they are: they are often indices into something.
    """
    if array.dtype.kind == "f":
        return np.asarray(rng.standard_normal(array.shape), dtype=array.dtype)
    if array.dtype == np.uint8:
        return rng.integers(0, 256, array.shape, dtype=np.uint8)
    return array
