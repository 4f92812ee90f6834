"""Numbers of channels that a graph computes with: where they come from and where they go.

`Shape` says how many channels there are, and after a cut it says another number. That is right
where the number becomes the size of an axis of just these channels; anywhere else they stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import onnx

from onnx_relief.graph.channels.cut import Left
from onnx_relief.graph.channels.ids import STAYS, Groups, Ids, varying
from onnx_relief.graph.channels.origins import Origin, origins, readers
from onnx_relief.graph.channels.records import Fix
from onnx_relief.graph.channels.trace import NotFollowedError, Trace
from onnx_relief.graph.nodes import STANDARD, attributes, node_key

Counts = list[Ids | None]


def counts_of(trace: Trace, node: onnx.NodeProto) -> Counts | None:
    """Return of what each number that a node gives is the count; None if the node is not known."""
    if node.domain not in STANDARD or node.op_type not in _KNOWN or len(node.output) != 1:
        return None
    if node.op_type == "Shape":
        return _counted(trace, node)
    if node.op_type == "Concat":
        return [entry for name in node.input for entry in _entries(trace, name)]
    if node.op_type in _COMPUTED:
        return _COMPUTED[node.op_type](trace, node)
    data = _entries(trace, node.input[0])
    if any(name in trace.counts for name in node.input[1:]):
        return None
    if node.op_type not in ("Gather", "Slice"):
        return data if len(trace.shape(node.output[0])) < 2 else None
    if int(attributes(node).get("axis", 0)) != 0 or trace.opset < 10:
        return None
    given = [trace.values(name) if trace.is_constant(name) else None for name in node.input[1:]]
    if any(values is None for values in given):
        return None
    places = np.arange(len(data))
    numbers = [np.asarray(values).reshape(-1) for values in given]
    if node.op_type == "Gather":
        return [data[at] for at in places[numbers[0]].tolist()]
    step = int(numbers[3][0]) if len(numbers) > 3 else 1
    return [data[at] for at in places[int(numbers[0][0]) : int(numbers[1][0]) : step].tolist()]


def _times(trace: Trace, node: onnx.NodeProto) -> Counts | None:
    """Return for sizes that are multiplied: so many times the channels of the one that counts."""
    first, second = (_entries(trace, name) for name in node.input)
    sizes = [trace.values(name) for name in node.input]
    if len(first) != len(second) or any(values is None for values in sizes):
        return None
    found: Counts = []
    numbers = (np.asarray(values).reshape(-1).tolist() for values in sizes)
    for one, other, left, right in zip(first, second, *numbers, strict=True):
        if one is not None and other is not None:
            return None
        ids, times = (one, right) if one is not None else (other, left)
        found.append(None if ids is None else np.tile(ids, times))
    return found


def _compared(trace: Trace, node: onnx.NodeProto) -> Counts | None:
    """Return no counts: a number of channels is never one of those below zero."""
    for name, other in (node.input, reversed(node.input)):
        values = trace.values(other)
        if other not in trace.counts and values is not None and (values < 0).all():
            return [None] * len(_entries(trace, name))
    return None


def _unless(trace: Trace, node: onnx.NodeProto) -> Counts | None:
    """Return the counts of what stays where it is not -1, as exporters write a target's sizes."""
    maker = trace.whole.producers.get(node.input[0])
    if maker is None or maker.op_type != "Equal" or node.input[2] not in maker.input:
        return None
    if node.input[1] in trace.counts or _compared(trace, maker) is None:
        return None
    return _entries(trace, node.input[2])


_COMPUTED = {"Mul": _times, "Equal": _compared, "Where": _unless}
_KNOWN = (
    *("Shape", "Concat", "Gather", "Slice", "Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape"),
    *_COMPUTED,
)


def _counted(trace: Trace, node: onnx.NodeProto) -> Counts:
    ids, shape = trace.of(node.input[0]), trace.shape(node.input[0])
    settings = attributes(node)
    found: Counts = [
        np.broadcast_to(_line(ids), (shape[axis],)) if axis in varying(ids) else None
        for axis in range(ids.ndim)
    ]
    return found[int(settings.get("start", 0)) : settings.get("end")]


def _line(ids: Ids) -> Ids:
    """Return the ids along the only axis that they vary along."""
    if len(varying(ids)) > 1:
        raise NotFollowedError("Shape counts channels along several axes")
    return ids.reshape(-1)


def _entries(trace: Trace, name: str) -> Counts:
    if name in trace.counts:
        return trace.counts[name]
    return [None] * int(np.prod(trace.shape(name), dtype=np.int64))


def follow_sizes(
    trace: Trace,
    node: onnx.NodeProto,
    at: int,
    places: Mapping[int, int],
    *,
    free: Sequence[int] = (),
) -> None:
    """Let the numbers that say sizes follow the cut.

    Args:
        trace: The ids; those of the node's first output are set.
        node: It makes a tensor of these sizes.
        at: Its input that says them.
        places: By axis of the output that carries channels, the entry that says its size.
        free: Numbers that say no size.

    Raises:
        NotFollowedError: A size is computed in a way that is not followed.
    """
    name, out = node.input[at], node.output[0]
    values = trace.values(name)
    if values is None:
        raise NotFollowedError(f"{node.op_type} is told sizes that are not known")
    counts, sources = _entries(trace, name), None
    for axis, place in places.items():
        ids = np.broadcast_to(trace.of(out).reshape(-1), (trace.shape(out)[axis],))
        count = counts[place]
        if count is not None and count.size == ids.size:
            trace.as_many.append(
                (count, ids, partial(_tell, node=trace.index, at=at, axis=axis, place=place))
            )
        elif count is not None:
            raise NotFollowedError(f"{node.op_type} computes with their number")
        elif int(values.reshape(-1)[place]) not in free and not trace.is_constant(name):
            sources = origins(trace, name) if sources is None else sources
            source = sources[place]
            if source is None:
                raise NotFollowedError(f"{node.op_type} is told sizes that are computed")
            trace.claims.append((source, ids, trace.index))
    if any(count is not None for at, count in enumerate(counts) if at not in places.values()):
        raise NotFollowedError(f"{node.op_type} is told their number as another size")
    trace.understood.add(name)
    fixed = {axis: place for axis, place in places.items() if counts[place] is None}
    if fixed:
        trace.fixes.append(Fix(trace.index, partial(retarget, at=at, places=fixed)))


def freeze(trace: Trace, node: onnx.NodeProto, counted: Sequence[str]) -> None:
    """Let a node that computes with numbers of channels go on with those of the whole model.

    Raises:
        NotFollowedError: It also reads sizes that depend on the data in the same tensor.
    """
    for name in counted:
        if any(ids is None for ids in trace.counts[name]) or trace.values(name) is None:
            raise NotFollowedError(f"their number is read by {node.op_type} {node_key(node)!r}")
        trace.fixes.append(Fix(trace.index, partial(_freeze, name=name)))
    if node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial"):
        return
    if all(not name or trace.is_told(name) or name in trace.counts for name in node.input):
        trace.frozen.update(name for name in node.output if trace.values(name) is not None)


def _freeze(node: onnx.NodeProto, left: Left, *, name: str) -> None:
    counts = left.trace.counts[name]
    if all(ids is None or left.stays(ids).all() for ids in counts):
        return
    for at, read in enumerate(node.input):
        if read == name:
            left.give(node, at, np.array(left.trace.values(name)))


def settle(trace: Trace) -> Groups:
    """Return the groups, after what has to stay equally long is known to, or is tied."""
    _settle_claims(trace)
    while True:
        groups = trace.pool.groups()
        apart = [one for one in trace.as_many if not _as_many(groups, *one[:2])]
        if not apart:
            return groups
        for one, two, tell in apart:
            fixed = tell is not None and (groups.of(one) == STAYS).all()
            if tell is not None and fixed and tell(trace):
                trace.as_many = [pair for pair in trace.as_many if pair[2] is not tell]
            else:
                trace.pool.tie(one, two)


def _tell(trace: Trace, *, node: int, at: int, axis: int, place: int) -> bool:
    """Let a node be told a size on its own, which was taken from a tensor that stays as wide.

    Whether that is possible: no other node may take it for a size, too.
    """
    reader = trace.whole.nodes[node]
    source = origins(trace, reader.input[at])[place]
    if source is None or readers(trace, source) != {node}:
        return False
    trace.fixes.append(Fix(node, partial(retarget, at=at, places={axis: place})))
    return True


def _as_many(groups: Groups, one: Ids, two: Ids) -> bool:
    """Whether as many of both stay, whatever goes: the same groups, equally often."""
    return np.array_equal(np.sort(groups.of(one)), np.sort(groups.of(two)))


def _settle_claims(trace: Trace) -> None:
    """Let what takes one number for its size stay as long; all that read it have to agree."""
    by_source: dict[Origin, list[tuple[Ids, int]]] = defaultdict(list)
    for source, ids, node in trace.claims:
        by_source[source].append((ids, node))
    for source, claims in by_source.items():
        first, agreed = claims[0][0], readers(trace, source)
        known = agreed is not None and agreed <= {node for _, node in claims}
        for ids, _ in claims:
            if known and ids.shape == first.shape:
                trace.as_many.append((first, ids, None))
            else:
                trace.pool.keep(ids, f"{source.constant!r} is their number, and another size")


def retarget(node: onnx.NodeProto, left: Left, *, at: int, places: Mapping[int, int]) -> None:
    """Write the sizes that are left where a node is told them.

    Args:
        node: It makes a tensor of these sizes.
        left: What is left.
        at: Its input that says them.
        places: By axis of the output, the entry that says its size.
    """
    before = np.asarray(left.trace.values(node.input[at]))
    target = np.array(before)
    for axis, place in places.items():
        if target.reshape(-1)[place] > 0:
            target.reshape(-1)[place] = left.size(node.output[0], axis)
    if np.array_equal(target, before):
        return
    if left.trace.is_constant(node.input[at]):
        left.give(node, at, target)
        return
    sources = origins(left.trace, node.input[at])
    for place in np.flatnonzero(target != before).tolist():
        source = sources[place]
        assert source is not None
        reader = left.nodes[source.node]
        # What an earlier step gave this reader is changed on, not undone.
        part = left.current(reader.input[source.input], source.constant)
        part.reshape(-1)[source.index] = target.reshape(-1)[place]
        left.give(reader, source.input, part)
