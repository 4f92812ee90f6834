"""The probes of convolutions: norms and Gram matrices of the patches that the kernels meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_relief.geometry import ConvGeometry
from onnx_relief.graph.emitter import Emitter, fresh_name
from onnx_relief.graph.probes import Probe, ProbeKind

_BLOCK_ENTRIES = 4_000_000  # maps of one block, all channels together: 16 MB in float32


def convolution_statistics(
    to: Emitter, probe: Probe, tensor: gs.Tensor, kernels: NDArray[np.floating] | None
) -> gs.Variable:
    """Append the statistics of a TAPS, GRAM or KERNELS probe and return their rows.

    Args:
        to: Where the nodes go.
        probe: What to measure.
        tensor: The input of the convolution, in the type of the statistics.
        kernels: KERNELS: absolute kernels, shape (channels, units per channel, *kernel).
    """
    assert probe.geometry is not None
    if probe.kind is ProbeKind.TAPS and _sees_everything(probe.geometry):
        return channel_norms(to, tensor, probe.channels)
    return _patch_statistics(to, probe, probe.geometry, tensor, kernels)


def _sees_everything(geometry: ConvGeometry) -> bool:
    """Whether each of the taps sees the whole input, so that all norms are that of the input."""
    dense = all(step == 1 for step in geometry.strides)
    uncut = not any(geometry.pads) and geometry.auto_pad in ("NOTSET", "VALID")
    whole = uncut and not geometry.output_shape if geometry.transposed else dense
    return geometry.taps == 1 and whole


def channel_norms(to: Emitter, tensor: gs.Tensor, channels: int) -> gs.Variable:
    """Append the sum over samples of the norm of every channel, and return that row."""
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


def _in_blocks(to: Emitter, tensor: gs.Tensor, maps: int, statistics: Statistics) -> gs.Variable:
    """Append a Loop over blocks of samples that bounds the memory for maps; rows come out flat."""
    sizes = to.op("Shape", tensor, dtype=np.int64)
    count, spatial = to.op("Gather", sizes, to.ints(0), dtype=np.int64), _spatial_size(to, sizes)
    one = to.ints(1)
    fitting = to.op("Div", to.ints(_BLOCK_ENTRIES), spatial, dtype=np.int64)
    fitting = to.op("Div", fitting, to.ints(maps), dtype=np.int64)
    # Integers had no Max before opset 12: adding one keeps a block from being empty just as well.
    block = to.op("Add", fitting, one, dtype=np.int64)
    rest = to.op("Sub", to.op("Add", count, block, dtype=np.int64), one, dtype=np.int64)
    trips = to.reshape(to.op("Div", rest, block, dtype=np.int64), dtype=np.int64)

    turn = gs.Variable(fresh_name("turn"), dtype=np.int64, shape=())
    go_on = gs.Variable(fresh_name("go"), dtype=np.bool_, shape=())
    so_far = gs.Variable(fresh_name("rows"), dtype=to.dtype)
    body = gs.Graph(name=fresh_name("body"), opset=to.opset, inputs=[turn, go_on, so_far])
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
    sample = gs.Variable(fresh_name("sample"), dtype=to.dtype)
    body = gs.Graph(name=fresh_name("body"), opset=to.opset, inputs=[sample])
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


def _convolution_attributes(geometry: ConvGeometry, groups: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
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
