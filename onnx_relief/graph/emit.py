"""The nodes that a probe adds to the throw-away graph: they reduce inside ONNX Runtime.

Every probe becomes two small tensors with one leading axis of rows, so that rows of several runs,
loop iterations or branches can simply be joined: the statistics, and the sizes that they count.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.emitter import Emitter, fresh_name
from onnx_relief.graph.patch_probes import channel_norms, convolution_statistics
from onnx_relief.graph.probes import Probe, ProbeKind

Rows = tuple[gs.Variable, gs.Variable]


def emit(
    probe: Probe,
    graph: gs.Graph,
    node: gs.Node,
    opset: int,
    kernels: NDArray[np.floating] | None,
    rank: int | None,
) -> Rows:
    """Append the nodes of `probe` to `graph` and return its rows of statistics and of sizes.

    Args:
        probe: What to measure.
        graph: The graph that holds the tensor.
        node: The layer's node in that graph.
        opset: Version of the model's default operator set.
        kernels: KERNELS: absolute kernels, shape (channels, units per channel, *kernel).
        rank: Number of axes of the tensor, where it is known.
    """
    to = Emitter(graph, opset, np.dtype(np.float64 if probe.wide else np.float32))
    source = next(t for t in node.inputs if t.name == probe.tensor)
    tensor = to.cast(source)
    if probe.kind is ProbeKind.FEATURES:
        return _features(to, probe, tensor, node, rank)
    if probe.kind is ProbeKind.HIDDEN:
        return _hidden(to, probe, tensor, node)
    shape = _shape_row(to, tensor)
    if probe.kind is ProbeKind.MAP:
        return to.sum_rows(to.magnitude(tensor)), shape
    if probe.kind is ProbeKind.NORMS:
        return channel_norms(to, tensor, probe.channels), shape
    return convolution_statistics(to, probe, tensor, kernels), shape


def _shape_row(to: Emitter, tensor: gs.Tensor) -> gs.Variable:
    return to.reshape(to.op("Shape", tensor, dtype=np.int64), 1, -1, dtype=np.int64)


def _features(
    to: Emitter, probe: Probe, tensor: gs.Tensor, node: gs.Node, rank: int | None
) -> Rows:
    size = probe.channels
    if probe.batch:
        return _batched_features(to, probe, tensor, rank)
    positions = to.op("Div", to.op("Size", tensor, dtype=np.int64), to.ints(size), dtype=np.int64)
    if probe.node:
        lengths = node.inputs[4]
        tensor = to.op("Mul", tensor, _valid_steps(to, tensor, lengths))
        positions = _steps(to, lengths)
    count_row = to.reshape(positions, 1, 1, dtype=np.int64)
    if probe.axis == -1 or rank == 1:
        return to.sum_rows(to.magnitude(tensor), size), count_row
    last = 1 if probe.matrix else _axis(to, -1, rank)
    summed = to.reduce("ReduceL1", tensor, last, keepdims=False)
    return to.sum_rows(summed, size), count_row


def _batched_features(to: Emitter, probe: Probe, tensor: gs.Tensor, rank: int | None) -> Rows:
    """Sum |x| for every matrix of a batched weight, with x spread to its leading axes."""
    if rank == 1:
        summed: gs.Tensor = to.op("Abs", tensor)
    else:
        other = -2 if probe.axis == -1 else -1
        summed = to.reduce("ReduceL1", tensor, _axis(to, other, rank), keepdims=False)
    width = int(np.prod(probe.batch)) * probe.channels
    alone = [
        axis for axis, size in enumerate((*probe.batch, 1), -len(probe.batch) - 1) if size == 1
    ]
    if len(alone) > 1:
        # Where the weight has a batch axis of 1, one matrix serves all of x there: sum over them.
        summed = _spread(to, summed, *(1,) * (len(probe.batch) + 1))
        now = None if rank is None else max(rank - 1, len(probe.batch) + 1)
        axes = [_axis(to, axis, now) for axis in alone[:-1]]
        summed = to.reduce("ReduceSum", summed, *axes, keepdims=True)
    rows = to.reshape(_spread(to, summed, *probe.batch, 1), -1, width)
    whole, reduced, spread = (to.op("Size", t, dtype=np.int64) for t in (tensor, summed, rows))
    per_row = to.op("Div", whole, reduced, dtype=np.int64)
    positions = to.op("Mul", to.op("Div", spread, to.ints(width), dtype=np.int64), per_row)
    positions.dtype = np.dtype(np.int64)
    count_row = to.reshape(positions, 1, 1, dtype=np.int64)
    return to.reduce("ReduceSum", rows, 0, keepdims=True), count_row


def _spread(to: Emitter, tensor: gs.Tensor, *shape: int) -> gs.Variable:
    if to.opset < 8:  # There is no Expand yet.
        return to.op("Mul", tensor, to.const(np.ones(shape, to.dtype)))
    return to.op("Expand", tensor, to.ints(*shape))


def _axis(to: Emitter, axis: int, rank: int | None) -> int:
    # Negative axes of reductions came with opset 11.
    return axis if to.opset >= 11 or rank is None else axis + rank


def _valid_steps(to: Emitter, tensor: gs.Tensor, lengths: gs.Tensor) -> gs.Variable:
    """Return 1 where a step is within its sequence, 0 beyond; shape (steps, batch, 1)."""
    if to.opset < 9:
        raise UnsupportedError(
            f"operator set {to.opset} cannot tell the steps of sequences of several lengths; "
            "convert the model to operator set 13 or later"
        )
    shape = to.op("Shape", tensor, dtype=np.int64)
    steps = to.op("Gather", shape, to.ints(0), axis=0, dtype=np.int64)
    # Range came with opset 11; the places of ones in a row of ones are the same numbers.
    one = gs.Constant("", np.ones(1, np.int64))
    ones = to.op("ConstantOfShape", steps, value=one, dtype=np.int64)
    numbers = to.reshape(to.op("NonZero", ones, dtype=np.int64), -1, 1, 1, dtype=np.int64)
    limits = to.reshape(to.op("Cast", lengths, to=7, dtype=np.int64), 1, -1, 1, dtype=np.int64)
    inside = to.op("Less", numbers, limits, dtype=np.bool_)
    return to.op("Cast", inside, to=11 if to.dtype == np.float64 else 1)


def _steps(to: Emitter, lengths: gs.Tensor) -> gs.Variable:
    """Return the number of steps in all sequences together."""
    wide = to.op("Cast", lengths, to=7, dtype=np.int64)
    return to.reduce("ReduceSum", wide, 0, keepdims=True, dtype=np.int64)


def _hidden(to: Emitter, probe: Probe, tensor: gs.Tensor, node: gs.Node) -> Rows:
    """Sum |h| over the steps that read it: all states but the last, and the initial one.

    Y is (steps, directions, batch, hidden) and zero beyond a sequence's end; Y_h is the last state
    of each direction (ONNX specification of LSTM, GRU and RNN).
    """
    while len(node.outputs) < 2:
        node.outputs.append(gs.Variable.empty())
    for index in range(2):
        if node.outputs[index].is_empty():
            name = fresh_name()
            node.outputs[index] = gs.Variable(name, dtype=tensor.dtype)
    states, last = (to.op("Abs", to.cast(out)) for out in node.outputs[:2])
    total = to.reduce("ReduceSum", states, 0, keepdims=False)
    read = to.op("Sub", total, last)
    if len(node.inputs) > 5 and not node.inputs[5].is_empty():
        initial = to.op("Abs", to.cast(node.inputs[5]))
        if len(node.inputs) > 4 and not node.inputs[4].is_empty():
            # A sequence without steps reads no state, not even its initial one.
            has_steps = to.op("Cast", node.inputs[4], to=9, dtype=np.bool_)
            kind = 11 if to.dtype == np.float64 else 1
            initial = to.op("Mul", initial, to.reshape(to.op("Cast", has_steps, to=kind), 1, -1, 1))
        read = to.op("Add", read, initial)
    rows = to.reshape(to.reduce("ReduceSum", read, 1, keepdims=False), 1, probe.channels)
    if len(node.inputs) > 4 and not node.inputs[4].is_empty():
        positions = _steps(to, node.inputs[4])
    else:
        size = to.op("Size", tensor, dtype=np.int64)
        positions = to.op("Div", size, to.ints(probe.width), dtype=np.int64)
    return rows, to.reshape(positions, 1, 1, dtype=np.int64)
