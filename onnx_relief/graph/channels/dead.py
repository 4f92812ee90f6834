"""Which groups of channels can go from a masked model without changing what it computes.

A group can go if wherever its channels are read they are exactly zero, or what they are multiplied
with is. Both are proven from the weights and the operators, never from data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.channels.cut import leave_one
from onnx_relief.graph.channels.ids import STAYS, Groups
from onnx_relief.graph.channels.trace import Read, Trace
from onnx_relief.graph.channels.weights import ArrayOf, Pairs, pairs_of
from onnx_relief.graph.channels.zeros import Zeros, zero_channels

Bools = NDArray[np.bool_]


def removable(trace: Trace, groups: Groups, array: ArrayOf) -> Bools:
    """Return which groups can go, by root.

    Args:
        trace: The ids of the masked model.
        groups: Which belong together.
        array: Returns a constant by the name that nodes see.
    """
    zeros = zero_channels(trace, groups, array)
    reads = [(read, *_live(zeros, read)) for read in trace.reads]
    candidates = np.zeros(trace.pool.size, dtype=bool)
    for member in trace.members:
        candidates[groups.of(member.ids)] = True
    candidates[STAYS] = False
    while True:
        gone = _least(trace, groups, reads, candidates)
        left = leave_one(trace, groups, gone)
        if np.array_equal(left, gone):
            return gone
        candidates &= ~(gone & ~left)  # what must stay after all may need others


def _least(
    trace: Trace,
    groups: Groups,
    reads: list[tuple[Read, Bools, Pairs | None]],
    candidates: Bools,
) -> Bools:
    """Return the candidates that nothing needs, with what is needed by these only."""
    gone = np.zeros(trace.pool.size, dtype=bool)
    while True:
        needed = np.zeros(trace.pool.size, dtype=bool)
        for read, live, pairs in reads:
            here = live if pairs is None else live & _wanted(trace, groups, gone, read, pairs)
            needed[groups.of(read.ids[here])] = True
        now = candidates & ~needed
        if np.array_equal(now, gone):
            return gone
        gone = now


def _live(zeros: Zeros, read: Read) -> tuple[Bools, Pairs | None]:
    """Return which channels are not known to be zero where they are read, and the weights."""
    live = ~zeros.at(read.tensor, read.ids.size)
    if read.other is not None:
        name, ids = read.other
        return live & ~zeros.at(name, ids.size), None
    pairs = pairs_of(zeros.trace.whole.nodes[read.node], zeros.array, read.tensor)
    return live, pairs if pairs is not None and pairs.inputs == read.ids.size else None


def _wanted(trace: Trace, groups: Groups, gone: Bools, read: Read, pairs: Pairs) -> Bools:
    """Return which input channels of a layer meet a weight of an output that stays."""
    outputs = trace.whole.nodes[read.node].output
    made = trace.ids.get(next(name for name in outputs if name))
    found = pairs.pairs
    if made is not None and made.size == found.shape[0]:
        found = found & ~gone[groups.of(made.reshape(-1))][:, None]
    by_group = found.reshape(pairs.groups, -1, found.shape[1])
    return np.asarray(by_group.any(axis=1).reshape(-1))
