"""What is known of channels that are one and the same number whatever the data."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.channels.ids import STAYS, Groups, Ids
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.channels.weights import ArrayOf

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Steady:
    """What is known so far.

    Attributes:
        trace: The ids.
        groups: Which belong together.
        array: Returns a constant by the name that nodes see.
        found: By tensor, the number that each of its channels is; NaN where it is not known.
    """

    trace: Trace
    groups: Groups
    array: ArrayOf
    found: dict[str, Floats] = field(default_factory=dict)

    def at(self, tensor: str, count: int) -> Floats:
        """Return the numbers of the `count` channels of a tensor."""
        found = self.found.get(tensor)
        return np.full(count, np.nan) if found is None or found.size != count else found

    def shaped(self, tensor: str, like: Ids) -> Floats:
        """Return them in the shape of other ids, if they lie along the same axis."""
        ids = self.trace.ids.get(tensor)
        if ids is None or ids.shape != like.shape[like.ndim - ids.ndim :] or ids.size != like.size:
            return np.full(like.shape, np.nan)
        return self.at(tensor, ids.size).reshape(like.shape)


def nothing(steady: Steady, out: str) -> Floats:
    """Return that nothing is known of the channels of a tensor."""
    return np.full(steady.trace.ids[out].size, np.nan)


def only_zero(values: Floats) -> Floats:
    """Return zeros where they are, and nothing of other numbers."""
    return np.where(values == 0, 0.0, np.nan)


def looked_up(steady: Steady, name: str, ids: Ids) -> Floats:
    """Return what is known of other channels of the same groups as those of a tensor."""
    before, found = steady.trace.ids.get(name), steady.found.get(name)
    if before is None or found is None:
        return np.full(ids.size, np.nan)
    if np.array_equal(before.reshape(-1), ids):
        return found
    roots = steady.groups.of(before.reshape(-1))
    low = np.full(steady.trace.pool.size, np.inf)
    high = np.full(steady.trace.pool.size, -np.inf)
    np.minimum.at(low, roots, np.where(np.isnan(found), -np.inf, found))
    np.maximum.at(high, roots, np.where(np.isnan(found), np.inf, found))
    known = np.where(low == high, low, np.nan)
    known[STAYS] = np.nan
    return known[steady.groups.of(ids)]


def along(steady: Steady, name: str, axis: int, size: int) -> Floats:
    """Return the numbers of a tensor along an axis, which is counted from the last."""
    if not steady.trace.is_constant(name):
        return steady.at(name, size)
    values = steady.array(name)
    if values is None:
        return np.full(size, np.nan)
    wide = values.reshape((1,) * (-axis - values.ndim) + values.shape)
    return np.broadcast_to(uniform(wide, axis % wide.ndim), (size,))


def uniform(values: NDArray[np.generic], axis: int) -> Floats:
    """Return what stands at every place of an axis, NaN where it is not the same throughout."""
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    same = (rows == rows[:, :1]).all(axis=1)
    return np.where(same, rows[:, 0].astype(np.float64), np.nan)
