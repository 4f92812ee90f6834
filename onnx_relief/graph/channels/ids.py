"""Channel ids: numbers that stand for one channel each, what ties them, and what must stay.

An array of ids has the rank of its tensor, and size 1 along the axes where the ids do not vary
(batch, space, time). Id 0 is what is never cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
STAYS = 0


@dataclass(frozen=True, eq=False)
class Groups:
    """Ids that live or die together.

    Attributes:
        root: For every id the smallest id of its group; 0 for what must stay.
        reasons: Why a group must stay, by the smallest id that it would have had.
    """

    root: Ids
    reasons: dict[int, str]

    def of(self, ids: Ids) -> Ids:
        """Return the group of every id."""
        return self.root[ids]


@dataclass(eq=False)
class Pool:
    """Hands out ids and collects ties; groups are found once, at the end."""

    size: int = 1
    pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    kept: list[tuple[Ids, str]] = field(default_factory=list)

    def fresh(self, *shape: int) -> Ids:
        """Return new ids, each different."""
        count = int(np.prod(shape, dtype=np.int64))
        ids = np.arange(self.size, self.size + count, dtype=np.int64).reshape(shape)
        self.size += count
        return ids

    def tie(self, first: Ids, second: Ids) -> None:
        """Let ids live or die together, entry by entry; both shapes broadcast."""
        one, other = np.broadcast_arrays(first, second)
        differ = one != other
        if differ.any():
            self.pairs.append((one[differ], other[differ]))

    def tie_along(self, ids: Ids, axis: int) -> Ids:
        """Tie all ids along an axis together and return them with size 1 there."""
        first = np.take(ids, [0], axis=axis)
        self.tie(ids, first)
        return first

    def keep(self, ids: Ids, reason: str) -> None:
        """Never cut these ids; the reason is for people."""
        live = np.unique(ids[ids != STAYS])
        if live.size:
            self.kept.append((live, reason))

    def groups(self) -> Groups:
        """Return which ids belong together."""
        label = np.arange(self.size, dtype=np.int64)
        if self.pairs:
            first = np.concatenate([one.reshape(-1) for one, _ in self.pairs])
            second = np.concatenate([other.reshape(-1) for _, other in self.pairs])
            label = _components(label, first, second)
        reasons: dict[int, str] = {}
        stays = np.zeros(self.size, dtype=bool)
        for ids, reason in self.kept:
            for root in np.unique(label[ids]).tolist():
                reasons.setdefault(root, reason)
                stays[root] = True
        root = np.where(stays[label] | (label == label[STAYS]), STAYS, label)
        return Groups(root, reasons)


def _components(label: Ids, first: Ids, second: Ids) -> Ids:
    """Return the smallest member of every connected component, by propagating minima."""
    while True:
        low = np.minimum(label[first], label[second])
        before = label.copy()
        np.minimum.at(label, label[first], low)
        np.minimum.at(label, label[second], low)
        np.minimum.at(label, first, low)
        np.minimum.at(label, second, low)
        while not np.array_equal(label, label[label]):
            label = label[label]
        if np.array_equal(label, before):
            return label


def compress(ids: Ids) -> Ids:
    """Return ids with size 1 along every axis along which they do not vary."""
    for axis in range(ids.ndim):
        if ids.shape[axis] > 1:
            first = np.take(ids, [0], axis=axis)
            if np.array_equal(np.broadcast_to(first, ids.shape), ids):
                ids = first
    return ids


def varying(ids: Ids) -> tuple[int, ...]:
    """Return the axes along which ids vary."""
    return tuple(axis for axis, size in enumerate(ids.shape) if size > 1)
