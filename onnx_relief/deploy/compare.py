"""How far the outputs of a runtime are from those of ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def largest_difference(
    expected: Sequence[Array | None], found: Sequence[Array | None]
) -> float | None:
    """Return the largest difference of an element, relative to the largest of its output.

    Infinite where an output is missing, has another number of elements, or is not finite where it
    should be; None where no output can be compared. A runtime may say `(1, 10)` for `(10,)`.
    """
    gaps = [
        _gap(one, found[place] if place < len(found) else None)
        for place, one in enumerate(expected)
        if one is not None
    ]
    return max(gaps) if gaps else None


def _gap(expected: Array, found: Array | None) -> float:
    if found is None or expected.size != found.size:
        return math.inf
    if expected.size == 0:
        return 0.0
    one = expected.astype(np.float64).ravel()
    other = found.astype(np.float64).ravel()
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return math.inf
    if not np.isfinite(other[finite]).all():
        return math.inf
    difference = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
    # Outputs that are all but zero are compared as they are: their rounding is not news.
    return difference / max(float(np.abs(one[finite]).max(initial=0.0)), 1e-6)
