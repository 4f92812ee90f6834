"""Operators that mix no channels with each other, or all of them, but move none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from onnx_relief.graph.channels.cut import set_attribute
from onnx_relief.graph.channels.ids import Ids, varying
from onnx_relief.graph.channels.records import Fix
from onnx_relief.graph.channels.sizes import follow_sizes
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import attributes


def elementwise(trace: Trace, node: onnx.NodeProto) -> None:
    """Joined element by element: what lies over each other lives or dies together.

    Source: ONNX, Broadcasting: shapes are aligned at the last axis; size 1 is repeated.
    """
    out = trace.shape(node.output[0])
    names = [name for name in node.input if name]
    aligned = {name: _aligned(trace.of(name), len(out)) for name in names}
    axes = sorted({axis for ids in aligned.values() for axis in varying(ids)})
    if not axes and not any(trace.carries(name) for name in names):
        _spread_out(trace, node, names, out)
        return
    if not axes:
        raise NotFollowedError("a tensor has no other channel")
    found: Ids | None = None
    waiting = []
    for name in names:
        shape = (1,) * (len(out) - len(trace.shape(name))) + trace.shape(name)
        spread = [axis for axis in axes if shape[axis] == 1 and out[axis] > 1]
        if len(spread) == len(axes):
            continue
        if spread:
            raise NotFollowedError(f"{name!r} is repeated along one axis of channels")
        full = np.broadcast_to(aligned[name], [out[a] if a in axes else 1 for a in range(len(out))])
        if trace.is_constant(name):
            waiting.append((name, shape))
        elif not trace.carries(name):
            raise NotFollowedError(f"{node.op_type} joins them with {name!r}, which stays")
        elif found is None:
            found = full
        else:
            trace.pool.tie(found, full)
    if found is None:
        raise NotFollowedError(f"{node.op_type} has constant operands only")
    for name, shape in waiting:
        _tie_constant(trace, name, shape, found)
    trace.set(node.output[0], found)


def _spread_out(
    trace: Trace, node: onnx.NodeProto, names: Sequence[str], out: tuple[int, ...]
) -> None:
    """Start channels where a constant alone has several entries: angles of positions, slopes."""
    held = [name for name in names if trace.is_constant(name)]
    told = trace.values(node.output[0])
    if len(held) != 1 or len(names) != 2 or (told is not None and told.dtype.kind != "f"):
        return
    (moving,) = set(names) - set(held)
    shapes = [_padded(trace.shape(name), len(out)) for name in (held[0], moving)]
    axes = [axis for axis, size in enumerate(shapes[0]) if size > 1]
    if len(axes) != 1 or shapes[1][axes[0]] > 1 or max(shapes[1], default=1) == 1:
        return
    trace.offers.append(node.output[0])
    if trace.spreads:
        made = trace.along(len(out), axes[0], trace.pool.fresh(out[axes[0]]))
        _tie_constant(trace, held[0], shapes[0], made)
        trace.set(node.output[0], made)


def spreading(trace: Trace, node: onnx.NodeProto) -> None:
    """Joined element by element; a constant may bring channels that the other has not."""
    elementwise(trace, node)


spreading.starts = True  # type: ignore[attr-defined]


def _padded(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape)) + shape


def _tie_constant(trace: Trace, name: str, shape: tuple[int, ...], ids: Ids) -> None:
    """Let the entries of a constant follow the channels that they are combined with."""
    axes = varying(ids)
    if len(axes) > 1:
        raise NotFollowedError(f"{name!r} meets channels along several axes")
    extra = len(shape) - len(trace.shape(name))
    for axis in axes:
        trace.constant(name, {axis - extra: ids.reshape(-1)})


def _aligned(ids: Ids, rank: int) -> Ids:
    return ids.reshape((1,) * (rank - ids.ndim) + ids.shape)


def same(trace: Trace, node: onnx.NodeProto) -> None:
    """Element by element: the same channels come out."""
    _only_first_carries(trace, node)
    trace.set(node.output[0], trace.of(node.input[0]))
    for name in node.output[1:]:
        if name and trace.whole.uses.get(name):
            raise NotFollowedError(f"{node.op_type} has several outputs that are read")


def channelwise(trace: Trace, node: onnx.NodeProto) -> None:
    """Pooling: the same channels come out on axis 1."""
    _only_first_carries(trace, node)
    ids = trace.of(node.input[0])
    if any(axis != 1 for axis in varying(ids)):
        raise NotFollowedError(f"{node.op_type} works along an axis of channels")
    if trace.shape(node.input[0])[1] != trace.shape(node.output[0])[1]:
        raise NotFollowedError(f"{node.op_type} changes the number of channels")
    same(trace, node)


def resized(trace: Trace, node: onnx.NodeProto) -> None:
    """Resize, Upsample: the scale of the channel axis is 1, or its size follows."""
    channelwise(trace, node)
    settings, rank = attributes(node), len(trace.shape(node.input[0]))
    axes = [int(axis) % rank for axis in settings.get("axes", range(rank))]
    if 1 not in axes:
        return
    place = axes.index(1)
    if len(node.input) > 3 and node.input[3]:
        if settings.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise NotFollowedError("Resize computes sizes from each other")
        follow_sizes(trace, node, 3, {1: place} if varying(trace.of(node.output[0])) else {})
        return
    scales = settings.get("scales")
    if scales is None:
        scales = trace.values(node.input[2 if len(node.input) > 2 else 1])
    if scales is None or scales[place] != 1:
        raise NotFollowedError(f"{node.op_type} scales the channels, too")


def batch_normalization(trace: Trace, node: onnx.NodeProto) -> None:
    """BatchNormalization: scale, bias and statistics belong to the channels of axis 1."""
    ids = trace.channel_axis(node.input[0], 1, "BatchNormalization")
    for name in node.input[1:]:
        if not trace.is_constant(name):
            raise NotFollowedError("BatchNormalization has parameters that are computed")
        trace.constant(name, {0: ids})
    same(trace, node)


def normalised_over(trace: Trace, node: onnx.NodeProto) -> None:
    """Statistics over some axes: channels along them must stay, others pass.

    Softmax, LayerNormalization and the like.
    """
    ids = trace.of(node.input[0])
    rank, axes = ids.ndim, _normalised_axes(trace, node)
    for axis in varying(ids):
        if axis in axes:
            raise NotFollowedError(f"{node.op_type} takes statistics over them")
    if node.op_type == "InstanceNormalization":
        for name in node.input[1:]:
            trace.constant(name, {0: trace.channel_axis(node.input[0], 1, node.op_type)})
    elif any(
        axis >= rank - len(trace.shape(name))
        for axis in varying(ids)
        for name in node.input[1:]
        if name
    ):
        raise NotFollowedError(f"{node.op_type} scales them")
    same(trace, node)


def quantised(trace: Trace, node: onnx.NodeProto) -> None:
    """QuantizeLinear, DequantizeLinear: scales for each channel go with their channels."""
    settings, ids = attributes(node), trace.of(node.input[0])
    if settings.get("block_size", 0):
        raise NotFollowedError(f"{node.op_type} has a scale for each block")
    axis = int(settings.get("axis", 1)) % ids.ndim
    for name in node.input[1:]:
        if name and not trace.is_constant(name):
            raise NotFollowedError(f"{node.op_type} has a scale that is computed")
        if name and trace.shape(name) not in ((), (1,)) and axis in varying(ids):
            trace.constant(name, {0: trace.channel_axis(node.input[0], axis, node.op_type)})
    same(trace, node)


def group_normalization(trace: Trace, node: onnx.NodeProto) -> None:
    """GroupNormalization: only whole groups go, since statistics run over each."""
    ids = trace.channel_axis(node.input[0], 1, "GroupNormalization")
    count = int(attributes(node)["num_groups"])
    if any(not trace.is_constant(name) for name in node.input[1:]):
        raise NotFollowedError("GroupNormalization has parameters that are computed")
    by_group = ids.reshape(count, -1)
    trace.pool.tie(by_group, by_group[:, :1])
    for name in node.input[1:]:
        whole = trace.shape(name) == (ids.size,)
        trace.constant(name, {0: ids if whole else by_group[:, 0]})
    same(trace, node)
    per_group = by_group.shape[1]
    trace.fixes.append(
        Fix(
            trace.index,
            lambda one, left: set_attribute(
                one, "num_groups", left.size(one.input[0], 1) // per_group
            ),
        )
    )


def _normalised_axes(trace: Trace, node: onnx.NodeProto) -> set[int]:
    rank = len(trace.shape(node.input[0]))
    settings = attributes(node)
    if node.op_type == "InstanceNormalization":
        return set(range(2, rank))
    old = trace.opset < 13 and node.op_type in ("Softmax", "LogSoftmax", "Hardmax")
    axis = int(settings.get("axis", 1 if old else -1)) % rank
    is_range = old or node.op_type in ("LayerNormalization", "RMSNormalization")
    return set(range(axis, rank)) if is_range else {axis}


def reduced(trace: Trace, node: onnx.NodeProto) -> None:
    """Reductions and Squeeze: axes without channels go, the others pass."""
    ids, rank = trace.of(node.input[0]), len(trace.shape(node.input[0]))
    settings = attributes(node)
    axes = settings.get("axes")
    if len(node.input) > 1 and node.input[1]:
        found = trace.values(node.input[1])
        axes = None if found is None else found.reshape(-1).tolist() or None
    if axes is None and node.op_type == "Squeeze":
        axes = [axis for axis, size in enumerate(trace.shape(node.input[0])) if size == 1]
    which = set(range(rank)) if axes is None else {int(axis) % rank for axis in axes}
    if any(axis in which for axis in varying(ids)):
        raise NotFollowedError(f"{node.op_type} reduces over them")
    if node.op_type == "Squeeze":
        trace.squeezes(node, [ids.reshape(-1)] if varying(ids) else [])
    if node.op_type == "Squeeze" or not settings.get("keepdims", 1):
        ids = ids.reshape([size for axis, size in enumerate(ids.shape) if axis not in which])
    trace.set(node.output[0], ids)


def _only_first_carries(trace: Trace, node: onnx.NodeProto) -> None:
    for name in node.input[1:]:
        if trace.carries(name):
            raise NotFollowedError(f"they are a parameter of {node.op_type}")


def _rows(rule: Rule, operators: Iterable[str]) -> dict[str, Rule]:
    return dict.fromkeys(operators, rule)


RULES: dict[str, Rule] = {
    **_rows(spreading, ("Add", "Sub", "Mul", "Div")),
    **_rows(
        elementwise,
        (
            *("Sum", "Max", "Min", "Mean", "Pow", "Where"),
            *("Equal", "Greater", "Less", "And", "Or", "PRelu", "BitShift", "Mod"),
        ),
    ),
    **_rows(
        same,
        (
            *("Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Gelu", "Swish"),
            *("HardSwish", "Mish", "Softsign", "Softplus", "Tanh", "Erf", "Sin", "Cos", "Sigmoid"),
            *("HardSigmoid", "Exp", "Log", "Neg", "Abs", "Sqrt", "Reciprocal", "Sign", "Floor"),
            *("Ceil", "Round", "Identity", "Dropout", "Cast", "Clip", "Not", "IsNaN"),
        ),
    ),
    **_rows(
        channelwise,
        ("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"),
    ),
    **_rows(resized, ("Upsample", "Resize")),
    **_rows(
        normalised_over,
        (
            *("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"),
            "InstanceNormalization",
        ),
    ),
    **_rows(
        reduced,
        (
            *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceL1"),
            *("ReduceProd", "ReduceSumSquare", "Squeeze"),
        ),
    ),
    "BatchNormalization": batch_normalization,
    **_rows(quantised, ("QuantizeLinear", "DequantizeLinear")),
    "GroupNormalization": group_normalization,
}
