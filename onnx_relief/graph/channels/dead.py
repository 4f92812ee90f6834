"""Which groups of channels can go from a masked model without changing what it computes.

A group can go if wherever its channels are read they are exactly zero, or what they are multiplied
with is. Both are proven from the weights and the operators, never from data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.channels.ids import STAYS, Groups, Ids, varying
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.walk import attributes

Array = NDArray[Any]
Bools = NDArray[np.bool_]
ArrayOf = Callable[[str], Array | None]

# f(0) = 0, whatever else f does along axes without channels.
_ZERO_STAYS_ZERO = frozenset(
    (
        *("Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Gelu", "Swish"),
        *("HardSwish", "Mish", "Softsign", "Tanh", "Erf", "Sin", "Neg", "Abs", "Sqrt", "Sign"),
        *("Floor", "Ceil", "Round", "Identity", "Dropout", "Cast", "PRelu"),
        *("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool"),
        *("GlobalLpPool", "Upsample", "Resize"),
        *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceL1"),
        *("ReduceProd", "ReduceSumSquare", "Squeeze"),
        *("Transpose", "Reshape", "Flatten", "Unsqueeze", "Split", "Slice", "Gather"),
        *("DepthToSpace", "Expand", "Tile"),
    )
)
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def removable(trace: Trace, groups: Groups, array: ArrayOf) -> Bools:
    """Return which groups can go, by root.

    Args:
        trace: The ids of the masked model.
        groups: Which belong together.
        array: Returns a constant by the name that nodes see.
    """
    zeros = zero_channels(trace, array)
    gone = np.zeros(trace.pool.size, dtype=bool)
    candidates = np.zeros(trace.pool.size, dtype=bool)
    for member in trace.members:
        candidates[groups.of(member.ids)] = True
    candidates[STAYS] = False
    while True:
        needed = np.zeros(trace.pool.size, dtype=bool)
        for read in trace.reads:
            node = trace.scope.graph.node[read.node]
            live = ~_zero_at(zeros, read.tensor, read.ids)
            if read.other is not None:
                live &= ~_zero_at(zeros, *read.other)
            else:
                live &= _reads(trace, groups, gone, node, array)
            needed[groups.of(read.ids[live])] = True
        now = candidates & ~needed
        _leave_one(trace, groups, now)
        if np.array_equal(now, gone):
            return gone
        gone = now


def zero_channels(trace: Trace, array: ArrayOf) -> dict[str, Bools]:
    """Return for tensors that carry channels which of these are zero whatever the data."""
    zeros: dict[str, Bools] = {}
    for node in trace.scope.graph.node:
        for name in node.output:
            ids = trace.ids.get(name)
            if ids is not None and varying(ids):
                zeros[name] = _zeros_of(trace, node, name, zeros, array)
    return zeros


def _zeros_of(
    trace: Trace, node: onnx.NodeProto, out: str, zeros: dict[str, Bools], array: ArrayOf
) -> Bools:
    ids = trace.ids[out].reshape(-1)
    nothing = np.zeros(ids.size, dtype=bool)
    passing = [name for name in node.input if _passes(trace, name, ids)]
    if node.op_type == "MatMul" and passing:
        return _looked_up(trace, passing, ids, zeros)
    if node.op_type in _LAYERS:
        weighted = _weighted(node, zeros, array)
        return nothing if weighted is None else weighted
    if node.op_type == "BatchNormalization":
        return _normalised(node, ids, zeros, array)
    if node.op_type in ("Add", "Sub", "Sum", "Max", "Min", "Mean"):
        parts = [_operand(trace, name, out, zeros, array) for name in node.input]
        return np.asarray(np.logical_and.reduce(parts))
    if node.op_type == "Mul":
        parts = [_operand(trace, name, out, zeros, array) for name in node.input]
        return np.asarray(np.logical_or.reduce(parts))
    if node.op_type == "Div":
        divisor = array(node.input[1])
        safe = divisor is not None and bool(np.all(divisor != 0))
        return _operand(trace, node.input[0], out, zeros, array) if safe else nothing
    if node.op_type == "Clip":
        limits = [array(name) for name in node.input[1:] if name]
        settings = attributes(node)
        low, high = settings.get("min", 0.0), settings.get("max", 0.0)
        if low > 0 or high < 0 or not _clip_keeps_zero(limits, len(node.input)):
            return nothing
        return _looked_up(trace, node.input[:1], ids, zeros)
    if node.op_type == "Concat":
        return _looked_up(trace, node.input, ids, zeros)
    if node.op_type in _ZERO_STAYS_ZERO:
        return _looked_up(trace, node.input[:1], ids, zeros)
    return nothing


def _passes(trace: Trace, name: str, ids: Ids) -> bool:
    """Whether a tensor has just these channels, too: a product along other axes let them pass."""
    found = trace.ids.get(name)
    return found is not None and np.array_equal(found.reshape(-1), ids)


def _clip_keeps_zero(limits: list[Array | None], inputs: int) -> bool:
    if any(limit is None or limit.size != 1 for limit in limits):
        return False
    numbers = [float(limit.reshape(())) for limit in limits if limit is not None]
    if inputs == 2:
        return numbers[0] <= 0
    return not numbers or (numbers[0] <= 0 <= numbers[-1])


def _looked_up(trace: Trace, names: Any, ids: Ids, zeros: dict[str, Bools]) -> Bools:  # noqa: ANN401
    """Follow channels through what moves them, by their ids."""
    known = np.zeros(trace.pool.size, dtype=bool)
    for name in names:
        if name in zeros:
            known[trace.ids[name].reshape(-1)] = zeros[name]
    known[STAYS] = False
    return known[ids]


def _zero_at(zeros: dict[str, Bools], tensor: str, ids: Ids) -> Bools:
    found = zeros.get(tensor)
    return np.zeros(ids.size, dtype=bool) if found is None or found.size != ids.size else found


def _operand(trace: Trace, name: str, out: str, zeros: dict[str, Bools], array: ArrayOf) -> Bools:
    """Return where an operand of an elementwise operator is zero, channel by channel of `out`."""
    ids = trace.ids[out]
    axis = varying(ids)[0] - ids.ndim
    size = ids.size
    if trace.is_constant(name):
        values = array(name)
        if values is None:
            return np.zeros(size, dtype=bool)
        if values.ndim < -axis or values.shape[axis] == 1:
            return np.full(size, bool(np.all(values == 0)))
        others = tuple(a for a in range(values.ndim) if a != values.ndim + axis)
        return np.asarray(np.all(values == 0, axis=others))
    found = zeros.get(name)
    if found is None or found.size != size:
        return np.zeros(size, dtype=bool)
    return found


def _normalised(node: onnx.NodeProto, ids: Ids, zeros: dict[str, Bools], array: ArrayOf) -> Bools:
    parts = [array(name) for name in node.input[1:5]]
    if any(part is None for part in parts):
        return np.zeros(ids.size, dtype=bool)
    scale, bias, mean, _ = (np.asarray(part).reshape(-1) for part in parts)
    nothing_in = _zero_at(zeros, node.input[0], ids)
    return np.asarray((bias == 0) & ((scale == 0) | (nothing_in & (mean == 0))))


def _matrix(node: onnx.NodeProto, array: ArrayOf) -> tuple[Bools, int] | None:
    """Return which (output, input of its group) pairs have a weight, and the number of groups."""
    weight = array(node.input[1])
    if weight is None:
        return None
    settings = attributes(node)
    groups = int(settings.get("group", 1)) if node.op_type.startswith("Conv") else 1
    some = weight != 0
    if node.op_type == "Conv":
        return some.reshape(*some.shape[:2], -1).any(axis=2), groups
    if node.op_type == "ConvTranspose":  # (in, out / groups) -> (out, in / groups)
        pairs = some.reshape(groups, -1, *some.shape[1:2], int(np.prod(some.shape[2:])))
        return pairs.any(axis=3).transpose(0, 2, 1).reshape(-1, some.shape[0] // groups), groups
    if some.ndim != 2:
        return None
    return (some if settings.get("transB", 0) else some.T), 1


def _weighted(node: onnx.NodeProto, zeros: dict[str, Bools], array: ArrayOf) -> Bools | None:
    """Return which outputs of a layer are zero: no bias, and no weight at an input that is not."""
    matrix = _matrix(node, array)
    if matrix is None:
        return None
    pairs, groups = matrix
    units = pairs.shape[0]
    dead = zeros.get(node.input[0])
    live = np.ones(pairs.shape[1] * groups, dtype=bool)
    if dead is not None and dead.size == live.size:
        live = ~dead
    grouped = pairs.reshape(groups, -1, pairs.shape[1]) & live.reshape(groups, 1, -1)
    silent = ~grouped.any(axis=2).reshape(-1)
    if len(node.input) > 2 and node.input[2]:
        bias = array(node.input[2])
        if bias is None:
            return None
        silent &= np.broadcast_to(bias.reshape(-1) == 0, (units,))
    return np.asarray(silent)


def _reads(
    trace: Trace, groups: Groups, gone: Bools, node: onnx.NodeProto, array: ArrayOf
) -> Bools:
    """Return which input channels of a layer meet a weight of an output that stays."""
    matrix = _matrix(node, array)
    made = trace.ids.get(node.output[0])
    if matrix is None:
        return np.ones(trace.shape(node.input[0])[1], dtype=bool)
    pairs, count = matrix
    if made is not None and made.size == pairs.shape[0]:
        pairs = pairs & ~gone[groups.of(made.reshape(-1))][:, None]
    return pairs.reshape(count, -1, pairs.shape[1]).any(axis=1).reshape(-1)


def _leave_one(trace: Trace, groups: Groups, gone: Bools) -> None:
    """Let no tensor lose its last channel: an axis of size 0 is no model."""
    for ids in trace.ids.values():
        roots = groups.of(ids.reshape(-1))
        if gone[roots].all() and not (roots == STAYS).any():
            gone[roots[0]] = False
