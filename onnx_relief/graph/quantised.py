"""Weights that are stored as integers: which they are, and how other numbers are stored as these.

The files call it DequantizeLinear: (stored - zero point) * scale is what nodes see (ONNX operators,
DequantizeLinear).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.views import Constants, TensorView
from onnx_relief.graph.walk import STANDARD, Model, Scope, TensorHome

Seen = tuple[Scope, str, TensorView]
"""Where a constant is seen, by which name, and how."""


def dequantised(constants: Constants, model: Model) -> dict[TensorHome, list[Seen]]:
    """Return by home the stored integers that DequantizeLinear makes floats of.

    Those are left out that pass through something else before, and those that nodes see as
    different numbers.
    """
    found: dict[TensorHome, list[Seen]] = {}
    for scope in model.scopes:
        for name, node in scope.producers.items():
            if node.op_type == "DequantizeLinear" and node.domain in STANDARD:
                view = constants.resolve(scope, name)
                if not isinstance(view, str) and view.quantised and len(view.steps) == 1:
                    found.setdefault(view.home, []).append((scope, name, view))
    return {home: group for home, group in found.items() if _alike([v for _, _, v in group])}


def as_integers(constants: Constants, view: TensorView, seen: NDArray[Any]) -> NDArray[np.float64]:
    """Return the integers within `limits` that read about as `seen`, in the shape that nodes see.

    Args:
        constants: Of the model.
        view: The constant.
        seen: Values in its shape; what is zero there reads as zero again.
    """
    steps = np.zeros(seen.shape)
    # A scale of zero makes zeros of all that is stored.
    np.divide(seen, view.scale, out=steps, where=view.scale != 0)
    found: NDArray[np.float64] = np.clip(np.rint(steps) + view.zero, *limits(constants, view))
    return found


def limits(constants: Constants, view: TensorView) -> tuple[int, int]:
    """Return the least and the greatest integer that may be stored.

    Weights stay in the range of those that are there, and of zero: quantisers leave some of the
    type's out on purpose, since processors without VNNI overflow otherwise.
    """
    if len(view.shape) > 1:
        known = constants.stored(view.home), view.zero
        return min(int(one.min()) for one in known), max(int(one.max()) for one in known)
    of_type = np.iinfo(view.zero.dtype)
    return int(of_type.min), int(of_type.max)


def _alike(views: list[TensorView]) -> bool:
    first, *others = views
    return all(
        np.array_equal(first.scale, view.scale) and np.array_equal(first.zero, view.zero)
        for view in others
    )
