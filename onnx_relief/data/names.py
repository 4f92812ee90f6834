"""Which array of the data feeds which input of the model, and the labels among them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from onnx_relief.data.batch import Array, Rows
from onnx_relief.errors import DataError
from onnx_relief.tensors import TensorSpec

LABELS = "labels"


def match_names(
    given: Sequence[str], inputs: Sequence[TensorSpec], origin: str
) -> dict[str, TensorSpec]:
    """Return the input that each array feeds; labels are left out.

    A model that needs one input takes a single array whatever its name.

    Raises:
        DataError: An array has no input, or an input that the model needs has no array.
    """
    specs = {spec.name: spec for spec in inputs}
    arrays = [name for name in given if name in specs or name != LABELS]
    needed = [spec for spec in inputs if not spec.optional] or list(inputs)
    if len(arrays) == 1 and len(needed) == 1 and arrays[0] not in specs:
        return {arrays[0]: needed[0]}
    unknown = [name for name in arrays if name not in specs]
    missing = [spec.name for spec in inputs if not spec.optional and spec.name not in arrays]
    if unknown or missing or not arrays:
        raise DataError(
            f"{origin} holds {listed(given)}, but the model takes {listed(specs)}"
            f"{_optional(inputs)}; name the arrays like the inputs (and the classes 'labels')"
        )
    return {name: specs[name] for name in arrays}


def listed(names: Iterable[str]) -> str:
    """Return names in quotes, between commas."""
    return ", ".join(repr(name) for name in names) or "nothing"


def _optional(inputs: Sequence[TensorSpec]) -> str:
    names: Collection[str] = [spec.name for spec in inputs if spec.optional]
    return f" ({listed(names)} may be missing)" if names else ""


def check_labels(labels: Array, origin: str, size: int | None) -> Rows:
    """Return class numbers as int64 of shape (samples,).

    Args:
        labels: As they were stored; a last axis of length 1 is dropped.
        origin: What to call the data in an error.
        size: How many samples there are, None where that is not known.

    Raises:
        DataError: They are no whole numbers from 0, or not one for each sample.
    """
    kind: np.dtype[Any] = labels.dtype
    if kind.kind not in "biu":
        raise DataError(
            f"the labels of {origin} are {kind.name}, but classes are whole numbers from 0; "
            "store classes as int64, and leave values and names out: models are then compared with "
            "the dense one"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or (size is not None and len(labels) != size):
        wanted = "one" if size is None else f"({size},), one"
        raise DataError(
            f"the labels of {origin} have shape {labels.shape}, but {wanted} class number for each "
            "sample is needed; correct 'labels' or leave it out"
        )
    if labels.size and int(labels.min()) < 0:
        raise DataError(
            f"the labels of {origin} hold {labels.min()} at sample {int(labels.argmin())}, but "
            "classes are counted from 0; leave samples without a class out"
        )
    if labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(
            f"the labels of {origin} hold {labels.max()} at sample {int(labels.argmax())}, but "
            "classes are counted from 0; leave samples without a class out"
        )
    return labels.astype(np.int64)
