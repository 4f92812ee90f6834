"""Which channels of which tensors are zero whatever the data: proven, never guessed.

Only weights and operators count. A product with zero is taken for zero: infinity and NaN do not
appear in a network that works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.channels.ids import STAYS, Groups, Ids, varying
from onnx_relief.graph.channels.recurrent import is_zero
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.channels.weights import ArrayOf, pairs_of
from onnx_relief.graph.walk import STANDARD, attributes

Bools = NDArray[np.bool_]

# f(0) = 0, or nothing but a move; whatever else is done along axes without channels.
_ZERO_STAYS_ZERO = frozenset(
    (
        *("Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Gelu", "Swish"),
        *("HardSwish", "Mish", "Softsign", "Tanh", "Erf", "Sin", "Neg", "Abs", "Sqrt", "Sign"),
        *("Floor", "Ceil", "Round", "Identity", "Dropout", "Cast", "PRelu"),
        *("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool"),
        *("GlobalLpPool", "Upsample", "Resize"),
        *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceL1"),
        *("ReduceProd", "ReduceSumSquare", "Squeeze"),
        *("Transpose", "Reshape", "Flatten", "Unsqueeze", "Split", "Slice"),
        *("DepthToSpace", "SpaceToDepth", "Expand", "Tile"),
    )
)


@dataclass(frozen=True, eq=False)
class Zeros:
    """What is known so far.

    Attributes:
        trace: The ids.
        groups: Which belong together.
        array: Returns a constant by the name that nodes see.
        found: By tensor, which of its channels are zero.
    """

    trace: Trace
    groups: Groups
    array: ArrayOf
    found: dict[str, Bools] = field(default_factory=dict)

    def at(self, tensor: str, count: int) -> Bools:
        """Return which of the `count` channels of a tensor are zero."""
        found = self.found.get(tensor)
        return np.zeros(count, dtype=bool) if found is None or found.size != count else found


Prove = Callable[[Zeros, onnx.NodeProto, str], Bools]


def zero_channels(trace: Trace, groups: Groups, array: ArrayOf) -> Zeros:
    """Return for tensors that carry channels which of these are zero whatever the data."""
    zeros = Zeros(trace, groups, array)
    for node in trace.whole.nodes:
        prove = _PROOFS.get(node.op_type) if node.domain in STANDARD else None
        for name in node.output if prove is not None else ():
            ids = trace.ids.get(name)
            if ids is not None and len(varying(ids)) == 1:
                assert prove is not None
                zeros.found[name] = prove(zeros, node, name)
    return zeros


def _nothing(zeros: Zeros, out: str) -> Bools:
    return np.zeros(zeros.trace.ids[out].size, dtype=bool)


def _moved(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    """The first input, moved: a channel is zero if all of its group are in that input."""
    if attributes(node).get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return _nothing(zeros, out)
    return _looked_up(zeros, node.input[0], zeros.trace.ids[out].reshape(-1))


def _looked_up(zeros: Zeros, name: str, ids: Ids) -> Bools:
    before = zeros.trace.ids.get(name)
    if before is None or name not in zeros.found:
        return np.zeros(ids.size, dtype=bool)
    if np.array_equal(before.reshape(-1), ids):
        return zeros.found[name]
    roots = zeros.groups.of(before.reshape(-1))
    known = np.zeros(zeros.trace.pool.size, dtype=bool)
    known[roots] = True
    known[roots[~zeros.found[name]]] = False
    known[STAYS] = False
    return known[zeros.groups.of(ids)]


def _operand(zeros: Zeros, name: str, out: str) -> Bools:
    """Return where an operand of an elementwise operator is zero, channel by channel of `out`."""
    ids = zeros.trace.ids[out]
    axis = varying(ids)[0] - ids.ndim
    return _along(zeros, name, axis, ids.size)


def _along(zeros: Zeros, name: str, axis: int, size: int) -> Bools:
    """Return where a tensor is zero along an axis, which is counted from the last."""
    if not zeros.trace.is_constant(name):
        return zeros.at(name, size)
    values = zeros.array(name)
    if values is None:
        return np.zeros(size, dtype=bool)
    if values.ndim < -axis or values.shape[axis] == 1:
        return np.full(size, bool(np.all(values == 0)))
    others = tuple(a for a in range(values.ndim) if a != values.ndim + axis)
    return np.asarray(np.all(values == 0, axis=others))


def _all_operands(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    return np.asarray(np.logical_and.reduce([_operand(zeros, name, out) for name in node.input]))


def _any_operand(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    return np.asarray(np.logical_or.reduce([_operand(zeros, name, out) for name in node.input]))


def _chosen(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    """Where: zero where both branches are."""
    return _operand(zeros, node.input[1], out) & _operand(zeros, node.input[2], out)


def _in_all_branches(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    at, count = list(node.output).index(out), zeros.trace.ids[out].size
    branches = zeros.trace.whole.bodies[zeros.trace.node_index(node)]
    parts = [zeros.at(body.output[at].name, count) for body in branches]
    return np.asarray(np.logical_and.reduce(parts))


def _divided(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    divisor = zeros.array(node.input[1])
    if divisor is None or not np.all(divisor != 0):
        return _nothing(zeros, out)
    return _operand(zeros, node.input[0], out)


def _clipped(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    settings = attributes(node)
    limits = [settings.get("min"), settings.get("max")]
    for place, name in enumerate(node.input[1:3]):
        if name:
            limit = zeros.array(name)
            if limit is None or limit.size != 1:
                return _nothing(zeros, out)
            limits[place] = float(limit.reshape(()))
    low, high = limits
    if (low is not None and low > 0) or (high is not None and high < 0):
        return _nothing(zeros, out)
    return _moved(zeros, node, out)


def _concatenated(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    ids = zeros.trace.ids[out]
    axis = int(attributes(node)["axis"]) % ids.ndim
    if varying(ids) != (axis,):
        return _all_operands(zeros, node, out)
    widths = [zeros.trace.shape(name)[axis] for name in node.input]
    parts = zip(node.input, widths, strict=True)
    return np.concatenate([_along(zeros, name, axis - ids.ndim, width) for name, width in parts])


def _padded(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    trace = zeros.trace
    value = attributes(node).get("value", 0.0)
    if len(node.input) > 2 and node.input[2]:
        given = zeros.array(node.input[2])
        value = 1.0 if given is None else float(given.reshape(()))
    if value != 0:
        return _nothing(zeros, out)
    ids, before = trace.ids[out].reshape(-1), trace.ids[node.input[0]].reshape(-1)
    return ~np.isin(ids, before) | _looked_up(zeros, node.input[0], ids)


def _gathered(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    if not zeros.trace.is_constant(node.input[0]):
        return _moved(zeros, node, out)
    table = zeros.array(node.input[0])
    return _nothing(zeros, out) if table is None else np.asarray((table == 0).all(axis=0))


def _normalised(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    """BatchNormalization, InstanceNormalization: scale (x - mean) / deviation + bias."""
    parts = [zeros.array(name) for name in node.input[1:4]]
    if any(part is None for part in parts) or attributes(node).get("training_mode", 0):
        return _nothing(zeros, out)
    scale, bias, *mean = (np.asarray(part).reshape(-1) for part in parts)
    nothing_in = zeros.at(node.input[0], zeros.trace.ids[out].size)
    centred = nothing_in & (mean[0] == 0) if mean else nothing_in
    return np.asarray((bias == 0) & ((scale == 0) | centred))


def _layer(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    """No bias, and no weight at an input that is not zero."""
    ids = zeros.trace.ids[out].reshape(-1)
    passing = [name for name in node.input if _passes(zeros.trace, name, ids)]
    if passing:  # a product along other axes let them pass
        return np.asarray(np.logical_or.reduce([zeros.at(name, ids.size) for name in passing]))
    matrix = pairs_of(node, zeros.array)
    if matrix is None or matrix.pairs.shape[0] != ids.size:
        return _nothing(zeros, out)
    live = ~_read_zeros(zeros, node, matrix.inputs)
    silent = ~(matrix.by_group() & live.reshape(matrix.groups, 1, -1)).any(axis=2).reshape(-1)
    if len(node.input) > 2 and node.input[2]:
        silent &= _bias_is_zero(zeros, node.input[2], ids.size)
    return silent


def _quantised(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    """0 becomes the zero point, and the zero point 0, if it is the same one."""
    maker = zeros.trace.whole.producers.get(node.input[0])
    if maker is not None and maker.op_type == "QuantizeLinear" and maker.domain in STANDARD:
        same = list(maker.input[1:]) == list(node.input[1:])
        ids = zeros.trace.ids[out].reshape(-1)
        if node.op_type == "DequantizeLinear" and same:
            return _looked_up(zeros, maker.input[0], ids)
    point = zeros.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
    return _nothing(zeros, out) if point is None or point.any() else _moved(zeros, node, out)


def _hidden(zeros: Zeros, node: onnx.NodeProto, out: str) -> Bools:
    """A hidden unit stays 0 if it starts at 0 and its candidate, the last gate, is always 0."""
    units = zeros.trace.ids[out].size
    settings = attributes(node)
    arrays = [zeros.array(name) for name in node.input[1:3]]
    bias = zeros.array(node.input[3]) if len(node.input) > 3 and node.input[3] else np.zeros((1, 1))
    if any(one is None for one in (*arrays, bias)) or settings.get("activations"):
        return _nothing(zeros, out)  # a candidate may be made by a function with f(0) != 0
    silent = np.ones(units, dtype=bool)
    for weight in arrays:
        assert weight is not None
        silent &= ~(weight[:, -units:] != 0).any(axis=(0, 2))
    if bias is not None and bias.size > 1:
        parts = bias.reshape(bias.shape[0], 2, -1, units)[:, :, -1]
        silent &= ~(parts != 0).any(axis=(0, 1))
    for name in node.input[5:7]:
        if name:
            silent &= _starts_at_zero(zeros, name, units)
    return silent


def _starts_at_zero(zeros: Zeros, name: str, units: int) -> Bools:
    if is_zero(zeros.trace, name):
        return np.ones(units, dtype=bool)
    return _along(zeros, name, -1, units)


def _read_zeros(zeros: Zeros, node: onnx.NodeProto, count: int) -> Bools:
    """Return which channels of a layer's input are zero; those along other axes are not read."""
    ids = zeros.trace.ids.get(node.input[0])
    if ids is None or varying(ids) != (ids.ndim - 1 if node.op_type == "MatMul" else 1,):
        return np.zeros(count, dtype=bool)
    return zeros.at(node.input[0], count)


def _bias_is_zero(zeros: Zeros, name: str, units: int) -> Bools:
    bias = zeros.array(name)
    if bias is None:
        return np.zeros(units, dtype=bool)
    rows = bias.reshape(-1, bias.shape[-1]) if bias.ndim else bias.reshape(1, 1)
    return np.asarray(np.broadcast_to((rows == 0).all(axis=0), (units,)))


def _passes(trace: Trace, name: str, ids: Ids) -> bool:
    """Whether a tensor has just these channels, too."""
    found = trace.ids.get(name)
    return found is not None and np.array_equal(found.reshape(-1), ids)


def _rows(prove: Prove, operators: Sequence[str]) -> dict[str, Prove]:
    return dict.fromkeys(operators, prove)


_PROOFS: dict[str, Prove] = {
    **_rows(_moved, sorted(_ZERO_STAYS_ZERO)),
    **_rows(_all_operands, ("Add", "Sub", "Sum", "Max", "Min", "Mean")),
    **_rows(_layer, ("Conv", "ConvTranspose", "Gemm", "MatMul")),
    **_rows(_quantised, ("QuantizeLinear", "DequantizeLinear")),
    **_rows(_hidden, ("LSTM", "GRU", "RNN")),
    **_rows(_normalised, ("BatchNormalization", "InstanceNormalization")),
    "Mul": _any_operand,
    "Div": _divided,
    "Where": _chosen,
    "Clip": _clipped,
    "Concat": _concatenated,
    "Pad": _padded,
    "Gather": _gathered,
    "If": _in_all_branches,
}
