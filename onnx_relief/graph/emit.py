"""The nodes that a probe adds to the throw-away graph: they reduce inside ONNX Runtime.

Every probe becomes two small tensors with one leading axis of rows, so that rows of several runs,
loop iterations or branches can simply be joined: the statistics, and the sizes that they count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper

from onnx_relief.geometry import ConvGeometry
from onnx_relief.graph.probes import Probe, ProbeKind

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Exp", "Abs", "Softplus")
_BLOCK_ENTRIES = 4_000_000  # maps of one block, all channels together: 16 MB in float32
PREFIX = "onnx_relief::"
_numbers = count()


class Emitter:
    """Appends nodes to one graph, in the dialect of the model's operator set.

    Attributes:
        graph: The graph that the nodes go into.
        opset: Version of the model's default operator set.
        dtype: Element type of the statistics.
    """

    def __init__(self, graph: gs.Graph, opset: int, dtype: np.dtype[np.generic]) -> None:
        self.graph = graph
        self.opset = opset
        self.dtype = dtype

    def op(
        self,
        kind: str,
        *inputs: gs.Tensor,
        dtype: np.dtype[np.generic] | type | None = None,
        **attributes: object,
    ) -> gs.Variable:
        """Append one node and return its output."""
        out = gs.Variable(f"{PREFIX}{next(_numbers)}", dtype=dtype or self.dtype)
        self.graph.nodes.append(gs.Node(kind, out.name, dict(attributes), list(inputs), [out]))
        return out

    def const(self, values: NDArray[np.generic]) -> gs.Constant:
        """Return a new constant."""
        return gs.Constant(f"{PREFIX}{next(_numbers)}", values)

    def ints(self, *values: int) -> gs.Constant:
        """Return a new constant vector of int64."""
        return self.const(np.array(values, dtype=np.int64))

    def reshape(self, tensor: gs.Tensor, *shape: int, dtype: type | None = None) -> gs.Variable:
        """Append a Reshape."""
        return self.op("Reshape", tensor, self.ints(*shape), dtype=dtype)

    def reduce(
        self, kind: str, tensor: gs.Tensor, *axes: int, keepdims: bool, dtype: type | None = None
    ) -> gs.Variable:
        """Append a reduction; its axes became an input at opset 13 (ReduceSum) and 18 (the rest)."""
        if self.opset >= (13 if kind == "ReduceSum" else 18):
            wanted = self.ints(*axes)
            return self.op(kind, tensor, wanted, keepdims=int(keepdims), dtype=dtype)
        return self.op(kind, tensor, axes=list(axes), keepdims=int(keepdims), dtype=dtype)

    def magnitude(self, tensor: gs.Tensor) -> gs.Tensor:
        """Append an Abs unless `tensor` comes from an operator that gives nothing negative."""
        source = tensor
        while source.inputs and source.inputs[0].op == "Cast":
            source = source.inputs[0].inputs[0]
        never_negative = bool(source.inputs) and source.inputs[0].op in _NEVER_NEGATIVE
        return tensor if never_negative else self.op("Abs", tensor)

    def sum_rows(self, tensor: gs.Tensor, width: int | None = None) -> gs.Variable:
        """Append the sum over all rows of `tensor` seen as (rows, width), shape (1, width).

        Without a width, the rows are the entries of the first axis. The sum is a product with
        ones: several times faster than the runtime's own reduction over a leading axis.
        """
        flat = self.reshape(tensor, 0, -1) if width is None else self.reshape(tensor, -1, width)
        if self.opset < 9:  # There is no ConstantOfShape yet.
            return self.reduce("ReduceSum", flat, 0, keepdims=True)
        shape = self.op("Shape", flat, dtype=np.int64)
        rows = self.op("Gather", shape, self.ints(0), axis=0, dtype=np.int64)
        ones = self.op("ConstantOfShape", rows, value=gs.Constant("", np.ones(1, self.dtype)))
        return self.op("MatMul", self.reshape(ones, 1, -1), flat)

    def norms(self, tensor: gs.Tensor, axis: int) -> gs.Variable:
        """Append the Euclidean norms over the last axis of `tensor`, which is `axis`."""
        squares = self.op("Mul", tensor, tensor)
        return self.op("Sqrt", self.reduce("ReduceSum", squares, axis, keepdims=False))

    def cast(self, tensor: gs.Tensor) -> gs.Tensor:
        """Append a Cast to the type of the statistics unless `tensor` is known to have it."""
        if tensor.dtype is not None and np.dtype(tensor.dtype) == self.dtype:
            return tensor
        return self.op("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(self.dtype))


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
    assert probe.geometry is not None
    if probe.kind is ProbeKind.TAPS and _sees_everything(probe.geometry):
        return _plain_norms(to, tensor, probe.channels), shape
    return _patch_statistics(to, probe, probe.geometry, tensor, kernels), shape


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
    alone = [axis for axis, size in enumerate((*probe.batch, 1), -len(probe.batch) - 1) if size == 1]
    if len(alone) > 1:
        # Where the weight has a batch axis of 1, one matrix serves all of x there: sum over them.
        ones = (1,) * (len(probe.batch) + 1)
        summed = to.op("Expand", summed, to.ints(*ones))
        now = None if rank is None else max(rank - 1, len(ones))
        axes = [_axis(to, axis, now) for axis in alone[:-1]]
        summed = to.reduce("ReduceSum", summed, *axes, keepdims=True)
    rows = to.reshape(to.op("Expand", summed, to.ints(*probe.batch, 1)), -1, width)
    whole, reduced, spread = (to.op("Size", t, dtype=np.int64) for t in (tensor, summed, rows))
    per_row = to.op("Div", whole, reduced, dtype=np.int64)
    positions = to.op("Mul", to.op("Div", spread, to.ints(width), dtype=np.int64), per_row)
    positions.dtype = np.dtype(np.int64)
    count_row = to.reshape(positions, 1, 1, dtype=np.int64)
    return to.reduce("ReduceSum", rows, 0, keepdims=True), count_row


def _axis(to: Emitter, axis: int, rank: int | None) -> int:
    # Negative axes of reductions came with opset 11.
    return axis if to.opset >= 11 or rank is None else axis + rank


def _valid_steps(to: Emitter, tensor: gs.Tensor, lengths: gs.Tensor) -> gs.Variable:
    """Return 1 where a step is within its sequence, 0 beyond; shape (steps, batch, 1)."""
    shape = to.op("Shape", tensor, dtype=np.int64)
    steps = to.op("Gather", shape, to.const(np.array(0, np.int64)), axis=0, dtype=np.int64)
    zero, one = to.const(np.array(0, np.int64)), to.const(np.array(1, np.int64))
    numbers = to.reshape(to.op("Range", zero, steps, one, dtype=np.int64), -1, 1, 1, dtype=np.int64)
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
            name = f"{PREFIX}{next(_numbers)}"
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


def _sees_everything(geometry: ConvGeometry) -> bool:
    """Whether each of the taps sees the whole input, so that all norms are that of the input."""
    dense = all(step == 1 for step in geometry.strides)
    uncut = not any(geometry.pads) and geometry.auto_pad in ("NOTSET", "VALID")
    whole = uncut and not geometry.output_shape if geometry.transposed else dense
    return geometry.taps == 1 and whole


def _plain_norms(to: Emitter, tensor: gs.Tensor, channels: int) -> gs.Variable:
    flat = to.reshape(tensor, 0, channels, -1)
    return to.sum_rows(to.norms(flat, 2), channels)


def _patch_statistics(
    to: Emitter,
    probe: Probe,
    geometry: ConvGeometry,
    tensor: gs.Tensor,
    kernels: NDArray[np.floating] | None,
) -> gs.Variable:
    """Convolve |x| channel by channel, a few samples at a time, and reduce the maps.

    With one-hot kernels the maps are the patches themselves, one per tap.
    """
    bank = _one_hot(probe.channels, geometry) if kernels is None else kernels
    weights = to.const(_as_grouped_weights(bank, geometry).astype(to.dtype))
    maps_per_channel = bank.shape[1]

    def statistics(inside: Emitter, samples: gs.Tensor) -> gs.Variable:
        maps = inside.op(
            "ConvTranspose" if geometry.transposed else "Conv",
            inside.magnitude(samples),
            weights,
            **_convolution_attributes(geometry, probe.channels),
        )
        if probe.kind is ProbeKind.GRAM:
            patches = inside.reshape(maps, 0, probe.channels, maps_per_channel, -1)
            across = inside.op("Transpose", patches, perm=[0, 1, 3, 2])
            return inside.op("MatMul", patches, across)
        width = probe.channels * maps_per_channel
        return inside.sum_rows(inside.norms(inside.reshape(maps, 0, width, -1), 2), width)

    if to.opset < 9:  # There is no Scan yet: all samples at once.
        return to.reshape(statistics(to, tensor), -1)
    if to.opset < 10:
        return _for_each_sample(to, tensor, statistics)
    return _in_blocks(to, tensor, probe.channels * maps_per_channel, statistics)


Statistics = Callable[[Emitter, gs.Tensor], gs.Variable]


def _in_blocks(
    to: Emitter, tensor: gs.Tensor, maps: int, statistics: Statistics
) -> gs.Variable:
    """Append a Loop over blocks of samples whose maps fit into bounded memory; rows come out flat."""
    sizes = to.op("Shape", tensor, dtype=np.int64)
    count, spatial = to.op("Gather", sizes, to.ints(0), dtype=np.int64), _spatial_size(to, sizes)
    one = to.ints(1)
    fitting = to.op("Div", to.ints(_BLOCK_ENTRIES), spatial, dtype=np.int64)
    fitting = to.op("Div", fitting, to.ints(maps), dtype=np.int64)
    # Integers had no Max before opset 12: adding one keeps a block from being empty just as well.
    block = to.op("Add", fitting, one, dtype=np.int64)
    rest = to.op("Sub", to.op("Add", count, block, dtype=np.int64), one, dtype=np.int64)
    trips = to.reshape(to.op("Div", rest, block, dtype=np.int64), dtype=np.int64)

    number = next(_numbers)
    turn = gs.Variable(f"{PREFIX}turn{number}", dtype=np.int64, shape=())
    go_on = gs.Variable(f"{PREFIX}go{number}", dtype=np.bool_, shape=())
    so_far = gs.Variable(f"{PREFIX}rows{number}", dtype=to.dtype)
    body = gs.Graph(name=f"{PREFIX}body{number}", opset=to.opset, inputs=[turn, go_on, so_far])
    inside = Emitter(body, to.opset, to.dtype)
    start = inside.op("Mul", inside.reshape(turn, 1, dtype=np.int64), block, dtype=np.int64)
    end = inside.op("Add", start, block, dtype=np.int64)
    samples = inside.op("Slice", tensor, start, end, inside.ints(0))
    rows = inside.reshape(statistics(inside, samples), -1)
    body.outputs = [
        inside.op("Identity", go_on, dtype=np.bool_),
        inside.op("Concat", so_far, rows, axis=0),
    ]
    none = to.const(np.zeros((0,), dtype=to.dtype))
    return to.op("Loop", trips, to.const(np.array(True)), none, body=body)


def _spatial_size(to: Emitter, sizes: gs.Tensor) -> gs.Variable:
    last = to.ints(np.iinfo(np.int64).max)
    spatial = to.op("Slice", sizes, to.ints(2), last, to.ints(0), dtype=np.int64)
    size = to.op("ReduceProd", spatial, keepdims=1, dtype=np.int64)
    # An empty map must not be divided by.
    return to.op("Add", size, to.ints(1), dtype=np.int64)


def _for_each_sample(to: Emitter, tensor: gs.Tensor, statistics: Statistics) -> gs.Variable:
    """Append a Scan over single samples: before opset 10 a block cannot be sliced out."""
    number = next(_numbers)
    sample = gs.Variable(f"{PREFIX}sample{number}", dtype=to.dtype)
    body = gs.Graph(name=f"{PREFIX}body{number}", opset=to.opset, inputs=[sample])
    inside = Emitter(body, to.opset, to.dtype)
    one = inside.op("Unsqueeze", sample, axes=[0])
    body.outputs = [inside.reshape(statistics(inside, one), -1)]
    return to.op("Scan", tensor, body=body, num_scan_inputs=1)


def _one_hot(channels: int, geometry: ConvGeometry) -> NDArray[np.floating]:
    """Return one kernel per tap that is 1 there, shape (channels, taps, *kernel)."""
    taps = geometry.taps
    one = np.eye(taps, dtype=np.float32).reshape(taps, *geometry.kernel)
    return np.broadcast_to(one, (channels, *one.shape))


def _as_grouped_weights(bank: NDArray[np.floating], geometry: ConvGeometry) -> NDArray[np.floating]:
    """Return (channels, maps, *kernel) as weights of a convolution with one group per channel."""
    if geometry.transposed:
        return np.ascontiguousarray(bank)
    return np.ascontiguousarray(bank).reshape(-1, 1, *geometry.kernel)


def _convolution_attributes(geometry: ConvGeometry, groups: int) -> dict[str, object]:
    settings: dict[str, object] = {
        "group": groups,
        "kernel_shape": list(geometry.kernel),
        "strides": list(geometry.strides),
        "dilations": list(geometry.dilations),
    }
    optional: Sequence[tuple[str, tuple[int, ...]]] = (
        ("output_padding", geometry.output_padding),
        ("output_shape", geometry.output_shape),
    )
    settings |= {name: list(sizes) for name, sizes in optional if sizes}
    if geometry.auto_pad == "NOTSET":
        return settings | ({} if geometry.output_shape else {"pads": list(geometry.pads)})
    return settings | {"auto_pad": geometry.auto_pad}
