"""Values as the model takes them: pixels scaled, element type changed where nothing is lost.

Floats become floats of another width and whole numbers become wider ones without a word. What would
need a guess (pixels for a float input) or lose something (1.5 for an integer) is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnx_relief.data.batch import Array, Rows
from onnx_relief.data.preprocess import Layout, Preprocess
from onnx_relief.errors import DataError, SettingsError
from onnx_relief.tensors import TensorSpec, is_float


def normalised(
    block: Array,
    preprocess: Preprocess,
    spec: TensorSpec,
    layout: Layout | None,
    *,
    origin: str,
) -> Array:
    """Return (block * scale - mean) / std as floats, or `block` itself where none was said.

    Args:
        block: Samples in the model's layout, first axis first.
        preprocess: What to apply.
        spec: The model's input.
        layout: Where the channels are, if known.
        origin: What to call the data in an error.

    Raises:
        DataError: They are no numbers to calculate with, or complex.
        SettingsError: A mean or std for each channel has no axis of that length.
    """
    if not preprocess.changes_values:
        return block
    if block.dtype.kind not in "biu" and not is_float(block.dtype):
        raise DataError(
            f"{origin} holds {block.dtype.name}, and --scale, --mean and --std work on real "
            "numbers only; leave them out"
        )
    wide = spec.dtype == np.float64 or block.dtype.itemsize > 4
    values: Array = block.astype(np.float64 if wide else np.float32)
    if preprocess.scale is not None:
        values *= values.dtype.type(preprocess.scale)
    if preprocess.mean is not None:
        values -= _along_channels("--mean", preprocess.mean, values, layout)
    if preprocess.std is not None:
        values /= _along_channels("--std", preprocess.std, values, layout)
    return values


def _along_channels(
    flag: str, numbers: tuple[float, ...], values: Array, layout: Layout | None
) -> Array:
    """Return `numbers` shaped so that they meet the channels of `values`."""
    vector = np.asarray(numbers, dtype=values.dtype)
    if len(numbers) == 1:
        return vector
    last = values.ndim - 1
    axes = {"nchw": {1}, "nhwc": {last}, "flat": set()}[layout] if layout else {1, last}
    fitting = [axis for axis in axes if axis > 0 and values.shape[axis] == len(numbers)]
    if len(fitting) != 1:
        sizes = ", ".join(str(size) for size in values.shape[1:])
        problem = "two axes" if fitting else "no channel axis"
        remedy = "say which axis it is with --layout" if fitting else f"give one value with {flag}"
        raise SettingsError(
            f"{flag}, or the preset for it, has {len(numbers)} values, but samples of shape "
            f"({sizes}) have {problem} of that length; {remedy}"
        )
    shape = [1] * values.ndim
    shape[fitting[0]] = len(numbers)
    return vector.reshape(shape)


def cast_values(
    block: Array, spec: TensorSpec, *, origin: str, rows: Rows | None, remedy: str
) -> Array:
    """Return `block` in the element type of `spec`, checked for NaN and Inf.

    Args:
        block: Values, samples first.
        spec: The model's input.
        origin: What to call the data in an error.
        rows: Number of each sample in the data, or None for a whole feed.
        remedy: What to do about whole numbers for an input of floats.

    Raises:
        DataError: The type cannot change without loss, or a value is NaN or infinite.
    """
    wanted = spec.dtype
    if wanted is None:
        raise DataError(
            f"the model's input {spec.name!r} is of a type that NumPy does not have, so no data "
            "can be fed to it; convert the model's input to float32 first"
        )
    source = block.dtype
    refusal = f"{origin} holds {source.name}, but the model's input {spec.name!r} takes {wanted}"
    if is_float(wanted) and (is_float(source) or source.kind == "b"):
        with np.errstate(over="ignore"):  # what no longer fits is Inf, and found below
            result = block.astype(wanted, copy=False)
        _check_finite(result, spec, origin, rows)
        return result
    if is_float(wanted) and source.kind in "iu":
        raise DataError(f"{refusal}: {remedy}")
    if wanted.kind in "biu" and source.kind in "biu":
        return _as_integers(block, wanted, refusal, rows)
    if wanted.kind == "O" and all(isinstance(value, str) for value in block.flat):
        return block.astype(object)
    if wanted.kind == "c" and source.kind in "biufc":
        return block.astype(wanted, copy=False)
    raise DataError(f"{refusal}; store it in that type{_fractions(source, wanted)}")


def _fractions(source: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    if is_float(source) and wanted.kind in "iu":
        return ", and leave --scale, --mean, --std and --preset out, which make fractions"
    return ""


def _as_integers(block: Array, wanted: np.dtype[Any], refusal: str, rows: Rows | None) -> Array:
    """Return whole numbers in another width if every value exists there."""
    if not np.can_cast(block.dtype, wanted, casting="safe"):
        low, high = (0, 1) if wanted.kind == "b" else _limits(wanted)
        place = _first_bad(block, rows, lambda values: (values < low) | (values > high))
        if place is not None:
            raise DataError(
                f"{refusal}, and {place} has values outside {low} to {high}; "
                f"store numbers that fit {wanted}"
            )
    return block.astype(wanted, copy=False)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return info.min, info.max


def _check_finite(block: Array, spec: TensorSpec, origin: str, rows: Rows | None) -> None:
    # bfloat16 has no isfinite of its own in every release, float32 holds all its values.
    values = block if block.dtype.kind == "f" else block.astype(np.float32)
    place = _first_bad(values, rows, lambda part: ~np.isfinite(part))
    if place is not None:
        raise DataError(
            f"{origin} has NaN or Inf (or a value too large for {block.dtype}) in {place}, for the "
            f"model's input {spec.name!r}; leave such samples out"
        )


def _first_bad(block: Array, rows: Rows | None, is_bad: Callable[[Array], Array]) -> str | None:
    """Return where the first bad value is, in words, or None."""
    bad = is_bad(block)
    if not bad.any():
        return None
    if rows is None:
        return "this feed"
    first = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
    return f"sample {rows[first]}"
