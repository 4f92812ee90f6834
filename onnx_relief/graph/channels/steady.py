"""Which channels are one and the same number whatever the data: proven, never guessed.

Only weights and operators count. A unit without weights is its bias; through normalisation it is
beta - gamma mean / sqrt(variance + epsilon), through an activation f of that. A product with zero
is taken for zero: infinity and NaN do not appear in a network that works.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.channels.apply import apply
from onnx_relief.graph.channels.einsum import letters_of
from onnx_relief.graph.channels.ids import Groups, Ids, varying
from onnx_relief.graph.channels.known import (
    Floats,
    Steady,
    along,
    looked_up,
    nothing,
    only_zero,
    uniform,
)
from onnx_relief.graph.channels.recurrent import is_zero
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.channels.weights import ArrayOf, units_from
from onnx_relief.graph.nodes import STANDARD, attributes, operator

# A constant goes through unchanged: moves, and means and maxima of equal numbers.
_HOLDS = (
    *("Identity", "Dropout", "MaxPool", "GlobalMaxPool", "GlobalAveragePool"),
    *("ReduceMean", "ReduceMax", "ReduceMin", "Squeeze", "Expand", "Tile"),
    *("Transpose", "Reshape", "Flatten", "Unsqueeze", "Split", "Slice"),
    *("DepthToSpace", "SpaceToDepth"),
)
# f(0) = 0; other numbers depend on sizes, or a little rounding makes much of a difference.
_HOLDS_ZERO = (
    *("LpPool", "GlobalLpPool", "ReduceL2", "ReduceL1", "ReduceSum", "ReduceProd"),
    *("ReduceSumSquare", "ThresholdedRelu", "Sign", "Floor", "Ceil", "Round"),
)
# Continuous functions of one number, which may have constants for parameters.
_FUNCTIONS = (
    *("Relu", "LeakyRelu", "Elu", "Celu", "Selu", "Gelu", "Swish", "HardSwish", "Mish"),
    *("Softsign", "Softplus", "Tanh", "Erf", "Sin", "Cos", "Neg", "Abs", "Sqrt", "PRelu", "Clip"),
    *("Sigmoid", "HardSigmoid", "Exp", "Log", "Reciprocal", "Pow"),
    *("Add", "Sub", "Sum", "Max", "Min", "Mean"),
)
_GELUS = tuple(f"com.microsoft.{name}" for name in ("Gelu", "FastGelu", "BiasGelu", "QuickGelu"))

Prove = Callable[[Steady, onnx.NodeProto, str], Floats]


def steady_channels(trace: Trace, groups: Groups, array: ArrayOf) -> Steady:
    """Return for tensors that carry channels which numbers these are whatever the data."""
    steady = Steady(trace, groups, array)
    for node in trace.whole.nodes:
        prove = _PROOFS.get(operator(node))
        for name in node.output if prove is not None else ():
            ids = trace.ids.get(name)
            if ids is not None and len(varying(ids)) == 1:
                assert prove is not None
                found = np.array(prove(steady, node, name), np.float64)
                found[~np.isfinite(found)] = np.nan
                steady.found[name] = found
    return steady


def _held(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """The first input, moved: a channel is known if all of its group are, in that input."""
    return looked_up(steady, node.input[0], steady.trace.ids[out].reshape(-1))


def _zero_held(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    return only_zero(_held(steady, node, out))


def _pooled(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """AveragePool: zeros around the picture count where it is said that they do."""
    settings = attributes(node)
    plain = settings.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    inside = plain and not any(settings.get("pads", ())) and not settings.get("ceil_mode", 0)
    return (_held if inside else _zero_held)(steady, node, out)


def _cast(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    to_float = int(attributes(node)["to"]) in (1, 10, 11, 16)
    return (_held if to_float else _zero_held)(steady, node, out)


def _resized(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    settings = attributes(node)
    if settings.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return nothing(steady, out)
    smooth = settings.get("mode", "nearest") in ("nearest", "linear")
    return (_held if smooth else _zero_held)(steady, node, out)


def _function(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """The operator itself, on what is known of all of its operands."""
    ids = steady.trace.ids[out]
    operands: list[NDArray[np.generic] | None] = []
    known = np.ones(ids.shape, dtype=bool)
    for name in node.input:
        if not name:
            operands.append(None)
        elif steady.trace.is_constant(name):
            operands.append(steady.array(name))
            known &= operands[-1] is not None
        else:
            values = steady.shaped(name, ids)
            known &= ~np.isnan(values)
            operands.append(np.where(np.isnan(values), 1.0, values))
    if not known.any():
        return nothing(steady, out)
    made = apply(node, steady.trace.opset, operands)
    made = np.broadcast_to(made, np.broadcast_shapes(made.shape, ids.shape))
    found = uniform(made, made.ndim - ids.ndim + varying(ids)[0])
    return np.where(known.reshape(-1), found, np.nan)


def _operand(steady: Steady, name: str, out: str) -> Floats:
    ids = steady.trace.ids[out]
    return along(steady, name, varying(ids)[0] - ids.ndim, ids.size)


def _product(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    parts = [_operand(steady, name, out) for name in node.input]
    return np.where(np.any([part == 0 for part in parts], axis=0), 0.0, np.prod(parts, axis=0))


def _divided(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    divisor = steady.array(node.input[1]) if steady.trace.is_constant(node.input[1]) else None
    if divisor is None or not np.all(divisor != 0):
        return nothing(steady, out)
    first, second = (_operand(steady, name, out) for name in node.input)
    return np.where(first == 0, 0.0, first / second)


def _chosen(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """Where: known where both branches are the same."""
    one, other = (_operand(steady, name, out) for name in node.input[1:])
    return np.where(one == other, one, np.nan)


def _in_all_branches(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    at, count = list(node.output).index(out), steady.trace.ids[out].size
    branches = steady.trace.whole.bodies[steady.trace.node_index(node)]
    first, *others = [steady.at(body.output[at].name, count) for body in branches]
    for other in others:
        first = np.where(first == other, first, np.nan)
    return first


def _concatenated(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    ids = steady.trace.ids[out]
    axis = int(attributes(node)["axis"]) % ids.ndim
    if varying(ids) != (axis,):
        parts = np.array([_operand(steady, name, out) for name in node.input])
        return np.where((parts == parts[0]).all(axis=0), parts[0], np.nan)
    widths = [steady.trace.shape(name)[axis] for name in node.input]
    both = zip(node.input, widths, strict=True)
    return np.concatenate([along(steady, name, axis - ids.ndim, width) for name, width in both])


def _padded(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    trace = steady.trace
    value = attributes(node).get("value", 0.0)
    if len(node.input) > 2 and node.input[2]:
        given = steady.array(node.input[2])
        value = 1.0 if given is None else float(given.reshape(()))
    if value != 0:
        return nothing(steady, out)
    ids, before = trace.ids[out].reshape(-1), trace.ids[node.input[0]].reshape(-1)
    return np.where(np.isin(ids, before), _zero_held(steady, node, out), 0.0)


def _gathered(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    if not steady.trace.is_constant(node.input[0]):
        return _held(steady, node, out)
    table = steady.array(node.input[0])
    return nothing(steady, out) if table is None else uniform(table, 1)


def _normalised(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """BatchNormalization: scale (x - mean) / sqrt(variance + epsilon) + bias."""
    parts = [steady.array(name) for name in node.input[1:]]
    settings = attributes(node)
    if any(part is None for part in parts) or settings.get("training_mode", 0):
        return nothing(steady, out)
    scale, bias, *statistics = (np.asarray(part, np.float64).reshape(-1) for part in parts)
    before = steady.at(node.input[0], steady.trace.ids[out].size)
    if not statistics:  # InstanceNormalization: the mean of a constant is not exactly it
        return np.where((scale == 0) | (before == 0), bias, np.nan)
    mean, variance = statistics
    # ONNX leaves epsilon out when it is 1e-5 (operators: BatchNormalization).
    deviation = np.sqrt(variance + settings.get("epsilon", 1e-5))
    return np.where(scale == 0, bias, bias + scale * (before - mean) / deviation)


def _layer(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """The bias, and what comes from inputs that are known, where there are weights at no others."""
    ids = steady.trace.ids[out].reshape(-1)
    passing = [name for name in node.input if _passes(steady.trace, name, ids)]
    if passing:  # a product along other axes let them pass
        zero = np.any([steady.at(name, ids.size) == 0 for name in passing], axis=0)
        return np.where(zero, 0.0, np.nan)
    values = units_from(
        steady.trace, node, steady.array, node.input[0], lambda count: _read(steady, node, count)
    )
    if values is None or values.size != ids.size:
        return nothing(steady, out)
    if len(node.input) > 2 and node.input[2]:
        scale = float(attributes(node).get("beta", 1.0)) if node.op_type == "Gemm" else 1.0
        values = values + scale * along(steady, node.input[2], -1, ids.size)
    return values


def _contracted(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """Einsum: zero where an operand is, along the axis of channels, or all that it reads."""
    ids = steady.trace.ids[out].reshape(-1)
    *operands, letters = letters_of(steady.trace, node)
    letter = letters[varying(steady.trace.ids[out])[0]]
    zero = np.zeros(ids.size, dtype=bool)
    for name, one in zip(node.input, operands, strict=True):
        if letter in one:
            zero |= along(steady, name, one.index(letter) - len(one), ids.size) == 0
    for name in filter(steady.trace.carries, node.input):
        found = units_from(steady.trace, node, steady.array, name, partial(steady.at, name))
        if found is not None and found.size == ids.size:
            zero |= found == 0
    return np.where(zero, 0.0, np.nan)


def _fused_gelu(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """Gelu of a sum: zero where all of it is."""
    parts = [_operand(steady, name, out) for name in node.input if name]
    return np.where(np.all([part == 0 for part in parts], axis=0), 0.0, np.nan)


def _attended(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """Attention: zero where the values are, and what is added to them first."""
    ids = steady.trace.ids[out].reshape(-1)
    values = only_zero(looked_up(steady, node.input[2], ids))
    if operator(node) == "Attention" or len(node.input) < 4 or not node.input[3]:
        return values
    bias = steady.array(node.input[3])  # of queries, keys and values
    return (
        nothing(steady, out) if bias is None else np.where(bias[-ids.size :] == 0, values, np.nan)
    )


def _quantised(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """0 becomes the zero point, and the zero point 0, if it is the same one."""
    maker = steady.trace.whole.producers.get(node.input[0])
    if maker is not None and maker.op_type == "QuantizeLinear" and maker.domain in STANDARD:
        same = list(maker.input[1:]) == list(node.input[1:])
        ids = steady.trace.ids[out].reshape(-1)
        if node.op_type == "DequantizeLinear" and same:
            return only_zero(looked_up(steady, maker.input[0], ids))
    point = steady.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
    some = point is None or point.any()
    return nothing(steady, out) if some else _zero_held(steady, node, out)


def _hidden(steady: Steady, node: onnx.NodeProto, out: str) -> Floats:
    """A hidden unit stays 0 if it starts at 0 and its candidate, the last gate, is always 0."""
    units = steady.trace.ids[out].size
    arrays = [steady.array(name) for name in node.input[1:3]]
    has_bias = len(node.input) > 3 and bool(node.input[3])
    bias = steady.array(node.input[3]) if has_bias else np.zeros((1, 1))
    if any(one is None for one in (*arrays, bias)) or attributes(node).get("activations"):
        return nothing(steady, out)  # a candidate may be made by a function with f(0) != 0
    silent = np.ones(units, dtype=bool)
    for weight in arrays:
        assert weight is not None
        silent &= ~(weight[:, -units:] != 0).any(axis=(0, 2))
    if bias is not None and bias.size > 1:
        parts = bias.reshape(bias.shape[0], 2, -1, units)[:, :, -1]
        silent &= ~(parts != 0).any(axis=(0, 1))
    for name in node.input[5:7]:
        if name and not is_zero(steady.trace, name):
            silent &= along(steady, name, -1, units) == 0
    return np.where(silent, 0.0, np.nan)


def _read(steady: Steady, node: onnx.NodeProto, count: int) -> Floats:
    """Return the channels of a layer's input; those along other axes are not read."""
    ids = steady.trace.ids.get(node.input[0])
    if ids is None or varying(ids) != (ids.ndim - 1 if node.op_type == "MatMul" else 1,):
        return np.full(count, np.nan)
    return steady.at(node.input[0], count)


def _passes(trace: Trace, name: str, ids: Ids) -> bool:
    """Whether a tensor has just these channels, too."""
    found = trace.ids.get(name)
    return found is not None and np.array_equal(found.reshape(-1), ids)


_PROOFS: dict[str, Prove] = {
    **dict.fromkeys(_HOLDS, _held),
    **dict.fromkeys(_HOLDS_ZERO, _zero_held),
    **dict.fromkeys(_FUNCTIONS, _function),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _layer),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantised),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _hidden),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _normalised),
    **dict.fromkeys(("Resize", "Upsample"), _resized),
    "AveragePool": _pooled,
    "Cast": _cast,
    "Mul": _product,
    "Div": _divided,
    "Where": _chosen,
    "Concat": _concatenated,
    "Pad": _padded,
    "Gather": _gathered,
    "If": _in_all_branches,
    "Einsum": _contracted,
    **dict.fromkeys(_GELUS, _fused_gelu),
    **dict.fromkeys(("Attention", "com.microsoft.MultiHeadAttention"), _attended),
}
