"""Weights that are stored as integers: which they are, and how other numbers are stored as these.

The files call it DequantizeLinear: (stored - zero point) * scale is what nodes see (ONNX operators,
DequantizeLinear).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.nodes import STANDARD
from onnx_relief.graph.sites import Site
from onnx_relief.graph.views import Constants, TensorView
from onnx_relief.graph.walk import Model, Scope, TensorHome

Seen = tuple[Scope, str, TensorView]
"""Where a constant is seen, by which name, and how."""


def dequantised(constants: Constants, model: Model) -> dict[TensorHome, list[Seen]]:
    """Return by home the stored integers of which floats are all that nodes see.

    Those are left out that pass through something else before a DequantizeLinear, that something
    else reads, too, and that nodes see as different numbers.
    """
    found: dict[TensorHome, list[Seen]] = {}
    for scope, name, view in _dequantised(constants, model):
        if len(view.steps) == 1:
            found.setdefault(view.home, []).append((scope, name, view))
    readers = {id(scope.producers[name]) for group in found.values() for scope, name, _ in group}
    return {
        home: group
        for home, group in found.items()
        if _alike([view for _, _, view in group]) and _read_by(model, home, readers)
    }


def stored_types(constants: Constants, model: Model) -> set[str]:
    """Return the names of the integer types that weights are stored in."""
    return {view.stored_type.name for _, _, view in _dequantised(constants, model)}


def in_integers(site: Site) -> bool:
    """Whether runtimes can compute a layer in integers: its weight and its input come as these."""
    maker = site.scope.producers.get(site.data)
    return (
        site.parts[0].view.quantised and maker is not None and maker.op_type == "DequantizeLinear"
    )


def as_integers(constants: Constants, view: TensorView, seen: NDArray[Any]) -> NDArray[np.float64]:
    """Return the integers within `limits` that read about as `seen`, in the shape that nodes see.

    What reads as it did stays: an int32 has more digits than the float that it reads as.

    Args:
        constants: Of the model.
        view: The constant.
        seen: Values in its shape; what is zero there reads as zero again.
    """
    steps = np.zeros(seen.shape)
    # A scale of zero makes zeros of all that is stored.
    np.divide(seen, view.scale, out=steps, where=view.scale != 0)
    wanted = np.clip(np.rint(steps) + view.zero, *limits(constants, view))
    held = np.broadcast_to(constants.stored(view.home), view.stored_shape)
    same = constants.values(view) == seen
    return np.where(same, view.as_seen(held.reshape(-1)), wanted)


def limits(constants: Constants, view: TensorView) -> tuple[int, int]:
    """Return the least and the greatest integer that may be stored.

    Weights stay in the range of those that are there, and of zero: quantisers leave some of the
    type's out on purpose, since processors without VNNI overflow otherwise. Biases (which have one
    axis) may become anything.
    """
    types = [np.iinfo(kind) for kind in (view.stored_type, view.zero.dtype) if kind.kind in "iu"]
    low, high = max(int(one.min) for one in types), min(int(one.max) for one in types)
    if sum(size > 1 for size in view.shape) > 1:
        known = constants.stored(view.home), view.zero
        low = max(low, min(int(one.min()) for one in known))
        high = min(high, max(int(one.max()) for one in known))
    return low, high


def _dequantised(constants: Constants, model: Model) -> Iterator[Seen]:
    for scope in model.scopes:
        for name, node in scope.producers.items():
            if node.op_type == "DequantizeLinear" and node.domain in STANDARD:
                view = constants.resolve(scope, name)
                if not isinstance(view, str) and view.quantised:
                    yield scope, name, view


def _read_by(model: Model, home: TensorHome, readers: Collection[int]) -> bool:
    """Whether only nodes of these numbers read a constant, and it is no output."""
    scopes = {scope.path: scope for scope in model.scopes}
    return all(
        use.node is not None and id(use.node) in readers and use.index == 0
        for path, name in model.places.get(home, ())
        for use in scopes[path].uses.get(name, ())
    )


def _alike(views: list[TensorView]) -> bool:
    first, *others = views
    return all(
        np.array_equal(first.scale, view.scale) and np.array_equal(first.zero, view.zero)
        for view in others
    )
