"""The operators between a stored constant and the node that uses it, one table row for each.

None of them mixes values, so each is run twice: on the values, to read the weight, and on the
element numbers of the stored tensor, to learn which stored element a pruned weight is.

Surveys of models travel to other processes, so no step is a function inside another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_relief.errors import ModelError
from onnx_relief.graph.nodes import attributes, node_key

Array = NDArray[Any]
Operands = list[Array | None]


@dataclass(frozen=True, eq=False)
class Look:
    """How a constant looks at one place of the graph.

    Attributes:
        shape: Its shape.
        dtype: Its element type.
        zero: The stored value that reads as zero: one, or one per element (zero points).
        scale: What one more in the stored value adds: one, or one per element.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    zero: Array
    scale: Array = field(default_factory=lambda: np.ones(()))


@dataclass(frozen=True, eq=False)
class Step:
    """One operator on the way: what it does to values, and what to the places of the elements."""

    on_values: Callable[[Array], Array]
    on_places: Callable[[Array], Array]


StepMaker = Callable[[Look, onnx.NodeProto, Operands], tuple[Step, Look]]


def _moving(before: Look, move: Callable[[Array], Array]) -> tuple[Step, Look]:
    """A step that only moves elements: values, places, zero points and scales move alike."""
    empty = np.broadcast_to(np.zeros((), before.dtype), before.shape)
    zero, scale = (a if a.ndim == 0 else move(a) for a in (before.zero, before.scale))
    return Step(move, move), Look(move(empty).shape, before.dtype, zero, scale)


def _same(array: Array) -> Array:
    return array


def _reshaped(array: Array, sizes: Sequence[int]) -> Array:
    return array.reshape(sizes)


def _as_type(array: Array, dtype: np.dtype[Any]) -> Array:
    return array.astype(dtype)


def _dequantized(array: Array, zeros: Array, scales: Array, dtype: np.dtype[Any]) -> Array:
    wide = array.astype(np.float64) - zeros.astype(np.float64)
    return np.asarray((wide * scales).astype(dtype))


def _identity(before: Look, _node: onnx.NodeProto, _operands: Operands) -> tuple[Step, Look]:
    return _moving(before, _same)


def _transpose(before: Look, node: onnx.NodeProto, _operands: Operands) -> tuple[Step, Look]:
    order = attributes(node).get("perm") or tuple(reversed(range(len(before.shape))))
    return _moving(before, partial(np.transpose, axes=order))


def _reshape(before: Look, node: onnx.NodeProto, operands: Operands) -> tuple[Step, Look]:
    target = operands[0] if operands else attributes(node)["shape"]
    sizes = [int(size) for size in np.asarray(target).reshape(-1)]
    if not attributes(node).get("allowzero"):
        sizes = [before.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return _moving(before, partial(_reshaped, sizes=sizes))


def _squeeze(before: Look, node: onnx.NodeProto, operands: Operands) -> tuple[Step, Look]:
    axes = operands[0] if operands else attributes(node).get("axes")
    which = None if axes is None else tuple(int(axis) for axis in np.asarray(axes).reshape(-1))
    return _moving(before, partial(np.squeeze, axis=which))


def _unsqueeze(before: Look, node: onnx.NodeProto, operands: Operands) -> tuple[Step, Look]:
    axes = operands[0] if operands else attributes(node)["axes"]
    which = tuple(int(axis) for axis in np.asarray(axes).reshape(-1))
    return _moving(before, partial(np.expand_dims, axis=which))


def _cast(before: Look, node: onnx.NodeProto, _operands: Operands) -> tuple[Step, Look]:
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(attributes(node)["to"]))
    return Step(partial(_as_type, dtype=dtype), _same), replace(before, dtype=dtype)


def _dequantize(before: Look, node: onnx.NodeProto, operands: Operands) -> tuple[Step, Look]:
    scale = operands[0]
    if scale is None:
        raise ModelError(f"DequantizeLinear {node_key(node)!r} has no scale")
    zero_point = operands[1] if len(operands) > 1 else None
    settings = attributes(node)
    axis, block = int(settings.get("axis", 1)), int(settings.get("block_size", 0))
    scales = _per_element(scale.astype(np.float64), before.shape, axis, block)
    kind = before.dtype if zero_point is None else zero_point.dtype
    zeros = np.zeros((), kind) if zero_point is None else zero_point
    zeros = _per_element(zeros, before.shape, axis, block)
    wanted = settings.get("output_dtype", 0)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(wanted)) if wanted else scale.dtype
    values = partial(_dequantized, zeros=zeros, scales=scales, dtype=dtype)
    return Step(values, _same), Look(before.shape, dtype, zeros, scales)


def _per_element(array: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Spread a scale or zero point (one, per axis or per block) over a tensor of `shape`."""
    if array.size == 1:
        return array.reshape(())
    if block:
        array = np.repeat(array, block, axis)
        cut = [slice(None)] * array.ndim
        cut[axis] = slice(shape[axis])
        return np.broadcast_to(array[tuple(cut)], shape)
    spread = [1] * len(shape)
    spread[axis] = array.size
    return np.broadcast_to(array.reshape(spread), shape)


STEPS: dict[str, StepMaker] = {
    "Identity": _identity,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
    "DequantizeLinear": _dequantize,
}
