"""Operators that only move data: what they do to data, they do to the ids."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_relief.graph.channels.cut import Left, set_attribute
from onnx_relief.graph.channels.ids import STAYS, Ids, compress, varying
from onnx_relief.graph.channels.records import Fix
from onnx_relief.graph.channels.sizes import follow_sizes
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import attributes


def transpose(trace: Trace, node: onnx.NodeProto) -> None:
    """Transpose: channels move to another axis."""
    ids = trace.of(node.input[0])
    order = attributes(node).get("perm") or tuple(reversed(range(ids.ndim)))
    trace.set(node.output[0], ids.transpose(order))


def reshape(trace: Trace, node: onnx.NodeProto) -> None:
    """Reshape and the like: channels move; of two axes that they are split in, one is cut."""
    x, out = node.input[0], node.output[0]
    shape = trace.shape(out)
    ids = compress(trace.full(x).reshape(shape))
    axes = varying(ids)
    if len(axes) > 1:
        # Heads or their widths, groups or places in them: by default the finer of the two is cut.
        chosen = axes[trace.split(out, len(axes))]
        for axis in axes:
            if axis != chosen:
                ids = trace.pool.tie_along(ids, axis)
    trace.set(out, ids)
    if node.op_type == "Reshape":
        _check_copied(trace, node)
        follow_sizes(trace, node, 1, {axis: axis for axis in varying(ids)}, free=(0, -1))


def _check_copied(trace: Trace, node: onnx.NodeProto) -> None:
    """A 0 in the target copies the size of the input at the same place: that has to be right."""
    target = trace.values(node.input[1])
    before, after = trace.of(node.input[0]), trace.of(node.output[0])
    for axis in np.flatnonzero(np.asarray(target) == 0).tolist() if target is not None else ():
        sizes = [1 if axis >= ids.ndim else ids.shape[axis] for ids in (before, after)]
        if max(sizes) > 1 and not np.array_equal(before.reshape(-1), after.reshape(-1)):
            raise NotFollowedError("Reshape copies a size that changes")


def concat(trace: Trace, node: onnx.NodeProto) -> None:
    """Concat: channels follow each other; along other axes they live or die together."""
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
    live = next(vector for vector in vectors if (vector != STAYS).any())
    for name, vector in zip(node.input, vectors, strict=True):
        if trace.is_constant(name):
            trace.constant(name, {axis: live})
        elif not trace.carries(name):
            raise NotFollowedError(f"Concat joins them with {name!r}, which stays")
        else:
            trace.pool.tie(live, vector)
    trace.set(node.output[0], trace.along(len(trace.shape(node.output[0])), axis, live))


def split(trace: Trace, node: onnx.NodeProto) -> None:
    """Split: every output takes its stretch of the channels."""
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
        if len(node.input) > 1 and node.input[1] and not trace.is_told(node.input[1]):
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


def space_to_depth(trace: Trace, node: onnx.NodeProto) -> None:
    """SpaceToDepth: a channel becomes one channel for each place in a block.

    Source: ONNX: output channel = (row in block, column in block, channel).
    """
    ids = trace.channel_axis(node.input[0], 1, "SpaceToDepth")
    block = int(attributes(node)["blocksize"]) ** 2
    trace.set(node.output[0], trace.along(4, 1, np.tile(ids, block)))


def expand(trace: Trace, node: onnx.NodeProto) -> None:
    """Repetition: channels pass, as long as not they are repeated."""
    x, out = trace.shape(node.input[0]), trace.shape(node.output[0])
    ids = trace.of(node.input[0])
    ids = ids.reshape((1,) * (len(out) - len(x)) + ids.shape)
    x = (1,) * (len(out) - len(x)) + x
    if any(x[axis] != out[axis] for axis in varying(ids)):
        raise NotFollowedError(f"{node.op_type} repeats channels")
    trace.set(node.output[0], ids)
    if node.op_type == "Expand":
        target = trace.values(node.input[1])
        if target is None:
            raise NotFollowedError("Expand has a target that is not known")
        places = {axis: axis - len(out) + target.size for axis in varying(ids)}
        said = {a: place for a, place in places.items() if place >= 0 and target[place] != 1}
        follow_sizes(trace, node, 1, said)


RULES: dict[str, Rule] = {
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": reshape,
    "Unsqueeze": reshape,
    "Concat": concat,
    "Split": split,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Expand": expand,
    "Tile": expand,
}
