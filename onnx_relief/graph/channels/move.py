"""Operators that only move data: what they do to data, they do to the ids.

Where one of them is told sizes or places by a constant, the constant follows the cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.channels.cut import Left, set_attribute
from onnx_relief.graph.channels.ids import STAYS, Ids, compress, varying
from onnx_relief.graph.channels.origins import origins
from onnx_relief.graph.channels.trace import Fix, NotFollowedError, Rule, Trace
from onnx_relief.graph.walk import attributes

Array = NDArray[Any]


def transpose(trace: Trace, node: onnx.NodeProto) -> None:
    """Transpose the ids."""
    ids = trace.of(node.input[0])
    order = attributes(node).get("perm") or tuple(reversed(range(ids.ndim)))
    trace.set(node.output[0], ids.transpose(order))


def reshape(trace: Trace, node: onnx.NodeProto) -> None:
    """Reshape, Flatten, Unsqueeze: where channels are split in two axes, one of them is cut."""
    out, shape = node.output[0], trace.shape(node.output[0])
    ids = compress(trace.full(node.input[0]).reshape(shape))
    axes = varying(ids)
    if len(axes) > 1:
        # Heads or their widths, groups or places in them: by default the finer of the two is cut.
        chosen = axes[0] if trace.splits.setdefault(out, False) else axes[-1]
        for axis in axes:
            if axis != chosen:
                ids = trace.pool.tie_along(ids, axis)
    trace.set(out, ids)
    if node.op_type == "Reshape":
        _check_target(trace, node, varying(ids))
        trace.fixes.append(Fix(trace.index, _retarget))


def _check_target(trace: Trace, node: onnx.NodeProto, axes: tuple[int, ...]) -> None:
    """Refuse a target that is computed, unless what is cut is open or a constant in it."""
    target = trace.values(node.input[1]) if len(node.input) > 1 else None
    if target is None:
        raise NotFollowedError("Reshape has a target that is not known")
    if trace.is_constant(node.input[1]):
        return
    places = origins(trace, node.input[1])
    for axis in axes:
        if int(target.reshape(-1)[axis]) not in (0, -1) and places[axis] is None:
            raise NotFollowedError("Reshape has a target that is computed")


def _retarget(node: onnx.NodeProto, left: Left) -> None:
    before = left.trace.values(node.input[1])
    assert before is not None
    target = np.array(before)
    for axis in varying(left.trace.of(node.output[0])):
        if target[axis] > 0:
            target[axis] = left.size(node.output[0], axis)
    if np.array_equal(target, before):
        return
    if left.trace.is_constant(node.input[1]):
        left.give(node, 1, target)
        return
    places = origins(left.trace, node.input[1])
    for axis in np.flatnonzero(target != before).tolist():
        place = places[axis]
        assert place is not None
        reader = left.graph.node[place.node]
        part = np.array(left.trace.values(place.constant))
        part.reshape(-1)[place.index] = target[axis]
        left.give(reader, place.input, part)


def concat(trace: Trace, node: onnx.NodeProto) -> None:
    """Concat: along an axis of channels ids follow each other, else they are tied."""
    out = trace.shape(node.output[0])
    axis = int(attributes(node)["axis"]) % len(out)
    parts = [trace.of(name) for name in node.input]
    others = {a for ids in parts for a in varying(ids) if a != axis}
    if others and any(axis in varying(ids) for ids in parts):
        raise NotFollowedError("Concat joins channels of several axes")
    if others:
        _tie_parts(trace, node, parts, others)
        return
    full = []
    for name, ids in zip(node.input, parts, strict=True):
        vector = np.broadcast_to(ids.reshape(-1), (trace.shape(name)[axis],))
        if trace.is_constant(name):
            vector = trace.pool.fresh(vector.size)
            trace.constant(name, {axis: vector})
        full.append(vector)
    trace.set(node.output[0], trace.along(len(out), axis, np.concatenate(full)))


def _tie_parts(trace: Trace, node: onnx.NodeProto, parts: list[Ids], axes: set[int]) -> None:
    if len(axes) > 1:
        raise NotFollowedError("Concat joins channels of several axes")
    axis = axes.pop()
    size = trace.shape(node.output[0])[axis]
    vectors = [np.broadcast_to(ids.reshape(-1), (size,)) for ids in parts]
    for name, vector in zip(node.input, vectors, strict=True):
        if trace.is_constant(name):
            trace.constant(name, {axis: vectors[0]})
        else:
            trace.pool.tie(vectors[0], vector)
    live = next(vector for vector in vectors if (vector != STAYS).any())
    trace.set(node.output[0], trace.along(len(trace.shape(node.output[0])), axis, live))


def split(trace: Trace, node: onnx.NodeProto) -> None:
    """Split: every output takes its stretch of the ids."""
    x = node.input[0]
    axis = int(attributes(node).get("axis", 0)) % len(trace.shape(x))
    ids, start = trace.of(x), 0
    for name in node.output:
        width = trace.shape(name)[axis]
        here = ids
        if axis in varying(ids):
            here = np.take(ids, range(start, start + width), axis=axis)
        trace.set(name, here)
        start += width
    if axis in varying(ids):
        if len(node.input) > 1 and node.input[1] and not trace.is_constant(node.input[1]):
            raise NotFollowedError("Split has sizes that are computed")
        trace.fixes.append(Fix(trace.index, _resplit))


def _resplit(node: onnx.NodeProto, left: Left) -> None:
    axis = int(attributes(node).get("axis", 0)) % len(left.trace.shape(node.input[0]))
    sizes = [left.size(name, axis) for name in node.output]
    if sizes == [left.trace.shape(name)[axis] for name in node.output]:
        return
    if left.trace.opset < 13:
        set_attribute(node, "split", sizes)
        return
    for attribute in [a for a in node.attribute if a.name == "num_outputs"]:
        node.attribute.remove(attribute)
    if len(node.input) < 2:
        node.input.append("")
    left.give(node, 1, np.array(sizes, np.int64))


def slice_(trace: Trace, node: onnx.NodeProto) -> None:
    """Slice: the ids between start and end; with steps only along other axes."""
    x, out = node.input[0], node.output[0]
    ids = trace.of(x)
    bounds = _slice_bounds(trace, node)
    for axis in varying(ids):
        start, end, step = bounds.get(axis, (0, None, 1))
        if step != 1:
            raise NotFollowedError("Slice takes channels in steps")
        if start == 0 and end is None:
            continue
        ids = np.take(ids, range(*slice(start, end, step).indices(trace.shape(x)[axis])), axis=axis)
        if ids.shape[axis] != trace.shape(out)[axis]:
            raise NotFollowedError("Slice takes channels in a way that is not understood")
        if any(name and not trace.is_constant(name) for name in node.input[1:]):
            raise NotFollowedError("Slice has bounds that are computed")
        trace.fixes.append(Fix(trace.index, _reslice))
    trace.set(out, ids)


def _slice_bounds(trace: Trace, node: onnx.NodeProto) -> dict[int, tuple[int, int | None, int]]:
    settings = attributes(node)
    given = [trace.values(name) if name else None for name in node.input[1:]]
    starts = settings.get("starts") if trace.opset < 10 else given[0]
    ends = settings.get("ends") if trace.opset < 10 else given[1]
    axes = settings.get("axes") if trace.opset < 10 else (given[2] if len(given) > 2 else None)
    steps = given[3] if trace.opset >= 10 and len(given) > 3 else None
    if starts is None or ends is None:
        raise NotFollowedError("Slice has bounds that are not known")
    rank = len(trace.shape(node.input[0]))
    axes = list(range(len(starts))) if axes is None else [int(a) % rank for a in axes]
    found = {}
    for place, axis in enumerate(axes):
        size = trace.shape(node.input[0])[axis]
        end = int(ends[place])
        step = 1 if steps is None else int(steps[place])
        found[axis] = (int(starts[place]), None if end >= size else end, step)
    return found


def _reslice(node: onnx.NodeProto, left: Left) -> None:
    trace, x = left.trace, node.input[0]
    if not left.changed(x):
        return
    bounds = _slice_bounds(trace, node)
    starts = {axis: start for axis, (start, _, _) in bounds.items()}
    ends = {axis: end for axis, (_, end, _) in bounds.items()}
    steps = {axis: step for axis, (_, _, step) in bounds.items()}
    for axis in varying(trace.of(x)):
        if axis in bounds:
            size = trace.shape(x)[axis]
            start, end, _ = slice(starts[axis], ends[axis]).indices(size)
            kept = left.kept(x, axis)
            starts[axis] = int((kept < start).sum())
            ends[axis] = int((kept < end).sum())
    far = np.iinfo(np.int64).max
    last = [far if ends[axis] is None else ends[axis] for axis in bounds]
    if trace.opset < 10:
        set_attribute(node, "starts", list(starts.values()))
        set_attribute(node, "ends", last)
        set_attribute(node, "axes", list(bounds))
        return
    while len(node.input) < 5:
        node.input.append("")
    for index, numbers in enumerate(
        (list(starts.values()), last, list(bounds), list(steps.values()))
    ):
        left.give(node, index + 1, np.array(numbers, np.int64))


def gather(trace: Trace, node: onnx.NodeProto) -> None:
    """Gather: from an embedding whole columns, from channels by constant places."""
    data, places, out = node.input[0], node.input[1], node.output[0]
    rank = len(trace.shape(data))
    axis = int(attributes(node).get("axis", 0)) % rank
    if trace.is_constant(data):
        if rank != 2 or axis != 0 or trace.is_constant(places):
            return
        made = trace.pool.fresh(trace.shape(data)[1])
        trace.constant(data, {1: made})
        size = len(trace.shape(out))
        trace.set(out, trace.along(size, size - 1, made))
        return
    ids = trace.of(data)
    if axis not in varying(ids):
        width = len(trace.shape(places))
        shape = (*ids.shape[:axis], *(1,) * width, *ids.shape[axis + 1 :])
        trace.set(out, ids.reshape(shape))
        return
    chosen = trace.values(places)
    if chosen is None or not trace.is_constant(places):
        raise NotFollowedError("Gather picks channels by places that are computed")
    trace.set(out, np.take(ids, chosen, axis=axis))
    if chosen.ndim != 1:
        trace.pool.keep(np.take(ids, chosen, axis=axis), "Gather picks them one by one")
    trace.fixes.append(Fix(trace.index, _regather))


def _regather(node: onnx.NodeProto, left: Left) -> None:
    data = node.input[0]
    if not left.changed(data):
        return
    axis = int(attributes(node).get("axis", 0)) % len(left.trace.shape(data))
    kept = left.kept(data, axis)
    size = left.trace.shape(data)[axis]
    now = np.full(size, -1, np.int64)
    now[kept] = np.arange(len(kept))
    chosen = left.trace.values(node.input[1])
    assert chosen is not None
    moved = now[chosen % size]
    left.give(node, 1, moved[moved >= 0].astype(chosen.dtype) if moved.ndim == 1 else moved)


def pad(trace: Trace, node: onnx.NodeProto) -> None:
    """Pad: new channels are new ids; pads along other axes change nothing."""
    x, out = node.input[0], node.output[0]
    ids, rank = trace.of(x), len(trace.shape(x))
    pads = _pads(trace, node, rank)
    for axis in varying(ids):
        before, after = pads[axis], pads[axis + rank]
        if not (before or after):
            continue
        if attributes(node).get("mode", "constant") != "constant" or min(before, after) < 0:
            raise NotFollowedError("Pad repeats channels")
        around = [trace.pool.fresh(count) for count in (before, after)]
        vector = np.concatenate([around[0], ids.reshape(-1), around[1]])
        ids = trace.along(rank, axis, vector)
        trace.fixes.append(Fix(trace.index, _repad))
    trace.set(out, ids)


def _pads(trace: Trace, node: onnx.NodeProto, rank: int) -> list[int]:
    if trace.opset < 11:
        settings = attributes(node)
        return [int(n) for n in settings.get("pads", settings.get("paddings", ()))]
    found = trace.values(node.input[1])
    if found is None or not trace.is_constant(node.input[1]):
        raise NotFollowedError("Pad has pads that are computed")
    if len(node.input) > 3 and node.input[3]:
        axes = trace.values(node.input[3])
        if axes is None:
            raise NotFollowedError("Pad has axes that are computed")
        pads = [0] * (2 * rank)
        for place, axis in enumerate(axes.tolist()):
            pads[axis % rank] = int(found[place])
            pads[axis % rank + rank] = int(found[place + len(axes)])
        return pads
    return [int(n) for n in found.reshape(-1)]


def _repad(node: onnx.NodeProto, left: Left) -> None:
    x, out = node.input[0], node.output[0]
    if not left.changed(out):
        return
    rank = len(left.trace.shape(x))
    pads = _pads(left.trace, node, rank)
    for axis in varying(left.trace.of(out)):
        kept, size = left.kept(out, axis), left.trace.shape(out)[axis]
        before, after = pads[axis], pads[axis + rank]
        pads[axis] = int((kept < before).sum())
        pads[axis + rank] = int((kept >= size - after).sum())
    if left.trace.opset < 11:
        set_attribute(node, "pads", pads)
        return
    left.give(node, 1, np.array(pads, np.int64))
    if len(node.input) > 3:
        del node.input[3:]


def depth_to_space(trace: Trace, node: onnx.NodeProto) -> None:
    """DepthToSpace: all that becomes one pixel block of a channel goes with it."""
    x, out = node.input[0], node.output[0]
    settings = attributes(node)
    block = int(settings["blocksize"]) ** 2
    ids = trace.channel_axis(x, 1, "DepthToSpace")
    channels = trace.shape(out)[1]
    by_channel = (
        ids.reshape(channels, block)
        if settings.get("mode", "DCR") == "CRD"
        else ids.reshape(block, channels).T
    )
    trace.pool.tie(by_channel, by_channel[:, :1])
    trace.set(out, trace.along(4, 1, by_channel[:, 0]))


def expand(trace: Trace, node: onnx.NodeProto) -> None:
    """Expand and Tile along axes without channels."""
    x, out = trace.shape(node.input[0]), trace.shape(node.output[0])
    ids = trace.of(node.input[0])
    ids = ids.reshape((1,) * (len(out) - len(x)) + ids.shape)
    x = (1,) * (len(out) - len(x)) + x
    for axis in varying(ids):
        if x[axis] != out[axis]:
            raise NotFollowedError(f"{node.op_type} repeats channels")
        target = trace.values(node.input[1])
        if node.op_type == "Expand" and (target is None or int(target[axis]) not in (0, 1)):
            raise NotFollowedError("Expand names the number of channels")
    trace.set(node.output[0], ids)


def shape_(trace: Trace, node: onnx.NodeProto) -> None:
    """Shape reads no channels, but how many there are: only the other sizes may be used."""
    ids = trace.of(node.input[0])
    if node.op_type == "Size" or attributes(node).keys() & {"start", "end"}:
        raise NotFollowedError(f"{node.op_type} counts them")
    for use in trace.scope.uses.get(node.output[0], ()):
        if use.node is None or use.scope is not trace.scope:
            raise NotFollowedError("Shape counts them")
        if set(_places_read(trace, use.node, ids.ndim)) & set(varying(ids)):
            raise NotFollowedError(f"their number is read by {use.node.op_type}")


def _places_read(trace: Trace, node: onnx.NodeProto, count: int) -> Iterable[int]:
    """Return which entries of a Shape's output a node reads."""
    if node.op_type in ("Cast", "Identity"):
        uses = trace.scope.uses.get(node.output[0], ())
        onward = [use.node for use in uses if use.node is not None and use.scope is trace.scope]
        if len(onward) == len(uses):
            return {place for reader in onward for place in _places_read(trace, reader, count)}
    if node.op_type == "Gather" and trace.is_constant(node.input[1]):
        places = trace.values(node.input[1])
        if places is not None:
            return [int(place) % count for place in places.reshape(-1)]
    if node.op_type == "Slice" and all(trace.is_constant(name) for name in node.input[1:] if name):
        start, end, step = _slice_bounds(trace, node)[0]
        return range(*slice(start, end, step).indices(count))
    return range(count)


gather.starts = True  # type: ignore[attr-defined]

RULES: dict[str, Rule] = {
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": reshape,
    "Unsqueeze": reshape,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Tile": expand,
    "Shape": shape_,
    "Size": shape_,
}
