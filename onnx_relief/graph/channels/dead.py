"""Which groups of channels can go from a masked model without changing what it computes.

A group can go if wherever its channels are read they are exactly zero, or what they are multiplied
with is, or they are a constant that the reader's bias can take over. All of this is proven from the
weights and the operators, never from data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.channels.cut import leave_one
from onnx_relief.graph.channels.ids import STAYS, Groups, Ids
from onnx_relief.graph.channels.known import Floats, Steady
from onnx_relief.graph.channels.records import Read
from onnx_relief.graph.channels.steady import steady_channels
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.channels.weights import ArrayOf, Pairs, pairs_of

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Removal:
    """What can go, and what has to be made up for.

    Attributes:
        gone: Whether a group can go, by root.
        constants: By tensor, the number that each of its channels is; 0 where that is not known.
            Biases of layers that read it take over what goes.
        stuck: Why constant channels stay that nothing but their number is needed of, and how many.
        alike: Of these, those that live in the same axes, where there are several.
        settled: By tensor of which all channels are constants, the number that each of them is.
    """

    gone: Bools
    constants: Mapping[str, Floats] = field(default_factory=dict)
    stuck: Mapping[str, int] = field(default_factory=dict)
    settled: Mapping[str, Floats] = field(default_factory=dict)
    alike: Sequence[Ids] = ()


def removable(
    trace: Trace,
    groups: Groups,
    array: ArrayOf,
    why_not: Mapping[int, str],
    staying: Callable[[int, Sequence[int]], int],
) -> Removal:
    """Return which groups can go.

    Args:
        trace: The ids of the masked model.
        groups: Which belong together.
        array: Returns a constant by the name that nodes see.
        why_not: Why the node of a read cannot take over a constant, by index; the others can.
        staying: Of groups that live in the same axes at least so many stay as this returns for
            the number that is needed, and how many entries of each axis one of them takes.
    """
    steady = steady_channels(trace, groups, array)
    reads = [_reading(steady, read, why_not) for read in trace.reads]
    candidates = np.zeros(trace.pool.size, dtype=bool)
    for member in trace.members:
        candidates[groups.of(member.ids)] = True
    candidates[STAYS] = False
    kinds = _kinds(trace, groups)
    while True:
        gone = _least(trace, groups, reads, candidates)
        left = _rounded(kinds, leave_one(trace, groups, gone), staying)
        if np.array_equal(left, gone):
            break
        candidates &= ~(gone & ~left)  # what must stay after all may need others
    constants = {
        one.read.tensor: np.nan_to_num(one.values)
        for one in reads
        if np.nan_to_num(one.values).any()
    }
    settled = {name: values for name, values in steady.found.items() if not np.isnan(values).any()}
    stuck = _stuck(trace, groups, reads, gone, why_not)
    alike = [np.array([root for root in roots.tolist() if root in stuck]) for roots, _ in kinds]
    return Removal(
        gone=gone,
        constants=constants,
        stuck=Counter(stuck.values()),
        settled=settled,
        alike=[roots for roots in alike if roots.size > 1],
    )


@dataclass(frozen=True, eq=False)
class _Reading:
    """A read, and what is known of the channels there.

    Attributes:
        read: Where it is.
        values: The number that each channel is; NaN where it is not known.
        live: Whether the reader needs a channel.
        pairs: The reader's connections, if it is a layer.
    """

    read: Read
    values: Floats
    live: Bools
    pairs: Pairs | None


def _reading(steady: Steady, read: Read, why_not: Mapping[int, str]) -> _Reading:
    values = steady.at(read.tensor, read.ids.size)
    if read.other is not None:
        name, ids = read.other
        live = ~((values == 0) | (steady.at(name, ids.size) == 0))
        return _Reading(read, values, live, None)
    pairs = pairs_of(steady.trace, steady.trace.whole.nodes[read.node], steady.array, read.tensor)
    if pairs is not None and pairs.inputs != read.ids.size:
        pairs = None
    can_take = pairs is not None and read.node not in why_not
    return _Reading(read, values, np.isnan(values) if can_take else ~(values == 0), pairs)


def _least(trace: Trace, groups: Groups, reads: list[_Reading], candidates: Bools) -> Bools:
    """Return the candidates that nothing needs, with what is needed by these only."""
    gone = np.zeros(trace.pool.size, dtype=bool)
    while True:
        needed = np.zeros(trace.pool.size, dtype=bool)
        for one in reads:
            needed[groups.of(one.read.ids[_needed(trace, groups, gone, one)])] = True
        now = candidates & ~needed
        if np.array_equal(now, gone):
            return gone
        gone = now


def _needed(trace: Trace, groups: Groups, gone: Bools, one: _Reading) -> Bools:
    """Return which channels are needed where they are read."""
    if one.pairs is None:
        return one.live
    outputs = trace.whole.nodes[one.read.node].output
    made = trace.ids.get(next(name for name in outputs if name))
    found = one.pairs.pairs
    if made is not None and made.size == found.shape[0]:
        found = found & ~gone[groups.of(made.reshape(-1))][:, None]
    by_group = found.reshape(one.pairs.groups, -1, found.shape[1])
    return np.asarray(one.live & by_group.any(axis=1).reshape(-1))


def _stuck(
    trace: Trace,
    groups: Groups,
    reads: list[_Reading],
    gone: Bools,
    why_not: Mapping[int, str],
) -> dict[int, str]:
    """Return why groups stay although they are constants, by root."""
    moving = np.zeros(trace.pool.size, dtype=bool)
    reasons: dict[int, str] = {}
    for one in reads:
        roots, needed = groups.of(one.read.ids), _needed(trace, groups, gone, one)
        moving[roots[needed & np.isnan(one.values)]] = True
        why = why_not.get(one.read.node, "what reads them cannot take over a constant")
        for root in np.unique(roots[needed & ~np.isnan(one.values)]).tolist():
            reasons.setdefault(root, f"they are constants other than 0, and {why}")
    moving[STAYS] = True
    return {root: why for root, why in reasons.items() if not moving[root]}


def _kinds(trace: Trace, groups: Groups) -> list[tuple[Ids, list[int]]]:
    """Return the groups that live in the same axes of the same constants, each kind in order.

    With how many entries of each of these axes the first of them takes.
    """
    places: dict[tuple[str, int], list[Ids]] = {}
    for member in trace.members:
        places.setdefault((member.constant, member.axis), []).append(groups.of(member.ids))
    numbers = np.random.default_rng(0).integers(1 << 62, size=len(places), dtype=np.uint64)
    label = np.zeros(trace.pool.size, dtype=np.uint64)  # a sum of numbers stands for a set
    for number, found in zip(numbers, places.values(), strict=True):
        label[np.unique(np.concatenate(found))] += number
    label[STAYS] = 0
    entries: dict[int, list[int]] = {}
    for found in places.values():
        for root, count in zip(*np.unique(found[0], return_counts=True), strict=True):
            entries.setdefault(int(root), []).append(int(count))
    kinds = [np.flatnonzero(label == kind) for kind in np.unique(label[label > 0])]
    return [(roots, entries.get(int(roots[0]), [])) for roots in kinds]


def _rounded(
    kinds: list[tuple[Ids, list[int]]],
    gone: Bools,
    staying: Callable[[int, Sequence[int]], int],
) -> Bools:
    """Return what goes when enough of each kind stay; the first of those that could go do."""
    gone = gone.copy()
    for roots, entries in kinds:
        going = roots[gone[roots]]
        needed = roots.size - going.size
        gone[going[: max(0, staying(needed, entries) - needed)]] = False
    return gone
