"""What a model takes and gives: the facts about a tensor that can be known before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, element type and shape of one input or output of a model.

    Attributes:
        name: The tensor's name in the graph.
        dtype: Element type; `None` when NumPy has no such type or it is not a tensor.
        shape: One entry per axis: an int where the size is fixed, a str or None where it is free.
            `None` instead of a tuple when not even the rank is known.
        optional: Whether a run may leave this input out.
    """

    name: str
    dtype: np.dtype[np.generic] | None
    shape: tuple[int | str | None, ...] | None
    optional: bool = False

    @property
    def fixed_batch(self) -> int | None:
        """Size of the first axis where the model fixes it, else None."""
        if not self.shape or not isinstance(self.shape[0], int):
            return None
        return self.shape[0]

    def may_be(self, other: TensorSpec, *, with_type: bool = True) -> bool:
        """Return whether one array can suit both, as far as is known; free sizes may be any."""
        known = self.dtype is not None and other.dtype is not None  # `==` takes None for float64
        if with_type and known and self.dtype != other.dtype:
            return False
        if self.shape is None or other.shape is None:
            return True
        return len(self.shape) == len(other.shape) and all(
            one == two or not (isinstance(one, int) and isinstance(two, int))
            for one, two in zip(self.shape, other.shape, strict=True)
        )

    def describe(self) -> str:
        """Return for example ``float32 (N, 3, 224, 224)``."""
        kind = "unknown" if self.dtype is None else self.dtype.name
        if self.shape is None:
            return f"{kind} of unknown rank"
        axes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{kind} ({axes})"


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether it is a floating-point type, bfloat16 (an extension of NumPy) included."""
    return dtype.kind == "f" or dtype.name == "bfloat16"
