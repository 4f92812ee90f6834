"""Operators that pick some of the channels, or put others around them.

Where one of them is told places by a constant, the constant follows the cut.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx_relief.graph.channels.cut import Left, set_attribute
from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.channels.origins import origins
from onnx_relief.graph.channels.records import Fix
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import attributes


def slice_(trace: Trace, node: onnx.NodeProto) -> None:
    """Slice: channels between constant bounds pass; steps only along other axes."""
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
        if any(name and not trace.is_told(name) for name in node.input[1:]):
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
    """Gather: columns of a table are channels; of channels those at constant places pass."""
    data, places, out = node.input[0], node.input[1], node.output[0]
    rank = len(trace.shape(data))
    axis = int(attributes(node).get("axis", 0)) % rank
    if trace.carries(places):
        raise NotFollowedError("Gather takes them for places")
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
    """Pad: channels that are added can go with those that they are joined with."""
    x, out = node.input[0], node.output[0]
    ids, rank = trace.of(x), len(trace.shape(x))
    pads = _pads(trace, node, rank)
    for axis in varying(ids):
        before, after = pads[axis], pads[axis + rank]
        if trace.opset >= 11 and not trace.is_constant(node.input[1]):
            _check_computed(trace, node, (axis, axis + rank))
        if not (before or after):
            continue
        if attributes(node).get("mode", "constant") != "constant" or min(before, after) < 0:
            raise NotFollowedError("Pad repeats channels")
        around = [trace.pool.fresh(count) for count in (before, after)]
        vector = np.concatenate([around[0], ids.reshape(-1), around[1]])
        ids = trace.along(rank, axis, vector)
        trace.fixes.append(Fix(trace.index, _repad))
    trace.set(out, ids)


def _check_computed(trace: Trace, node: onnx.NodeProto, places: tuple[int, int]) -> None:
    """Refuse computed pads unless those of the channels are constants, and zero."""
    found, sources = trace.values(node.input[1]), origins(trace, node.input[1])
    if len(node.input) > 3 or found is None or len(sources) != found.size:
        raise NotFollowedError("Pad has pads that are computed")
    if any(sources[place] is None or found[place] != 0 for place in places):
        raise NotFollowedError("Pad has pads that are computed")


def _pads(trace: Trace, node: onnx.NodeProto, rank: int) -> list[int]:
    if trace.opset < 11:
        settings = attributes(node)
        return [int(n) for n in settings.get("pads", settings.get("paddings", ()))]
    found = trace.values(node.input[1])
    if found is None:
        raise NotFollowedError("Pad has pads that are not known")
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


gather.starts = True  # type: ignore[attr-defined]

RULES: dict[str, Rule] = {"Slice": slice_, "Gather": gather, "Pad": pad}
