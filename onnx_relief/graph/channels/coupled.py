"""What lives or dies together, in numbers that a person can read."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.channels.ids import STAYS, Groups
from onnx_relief.graph.channels.trace import Trace

Place = tuple[str, int]
"""A constant and one of its axes, as stored."""


@dataclass(frozen=True, eq=False)
class Coupled:
    """Groups of channels that run through the same axes of the same constants.

    Attributes:
        places: These axes.
        roots: The groups.
        entries: By axis, how many of its entries belong to these groups.
    """

    places: tuple[Place, ...]
    roots: NDArray[np.int64]
    entries: dict[Place, int]


def coupled(trace: Trace, groups: Groups) -> list[Coupled]:
    """Return all groups that can be cut, those with the same places together."""
    places: dict[int, Counter[Place]] = defaultdict(Counter)
    for member in trace.members:
        roots, counts = np.unique(groups.of(member.ids), return_counts=True)
        place = (member.constant, member.axis)
        for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
            places[root][place] = count  # a constant that is read twice has its axis once
    places.pop(STAYS, None)
    kinds: dict[tuple[Place, ...], list[int]] = defaultdict(list)
    for root, where in places.items():
        kinds[tuple(sorted(where))].append(root)
    return [
        Coupled(
            where,
            np.array(sorted(roots)),
            {place: sum(places[root][place] for root in roots) for place in where},
        )
        for where, roots in kinds.items()
    ]


def stays(groups: Groups) -> dict[str, int]:
    """Return why channels stay, and how many groups of them for each reason, most first."""
    return dict(Counter(groups.reasons.values()).most_common())
