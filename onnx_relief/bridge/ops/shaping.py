"""Operators on shapes: what they make lies on the device of what they are given."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import onnx
import torch
import torch.fx
from torch import Tensor
from torch.nn import functional

from onnx_relief.bridge.ops.registry import Builder, Row, attributes, call, inputs, outputs, theirs


def _listed(values: Tensor | Sequence[int]) -> list[int]:
    """Return integers that are a tensor or an attribute."""
    return [int(v) for v in (values.tolist() if isinstance(values, Tensor) else values)]


def reshape(x: Tensor, shape: Tensor | Sequence[int], *, allowzero: int = 0) -> Tensor:
    """Return `x` in another shape; 0 keeps a length unless `allowzero`, -1 is the rest."""
    wanted = _listed(shape)
    if not allowzero:
        wanted = [length or x.shape[i] for i, length in enumerate(wanted)]
    return x.reshape(wanted)


def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Return `x` with its axes in another order, by default the reverse."""
    return x.permute(*(range(x.ndim - 1, -1, -1) if perm is None else perm))


def squeeze(x: Tensor, axes: Tensor | Sequence[int] | None = None) -> Tensor:
    """Return `x` without axes of length 1: those named, or all."""
    return x.squeeze() if axes is None else x.squeeze(_listed(axes))


def unsqueeze(x: Tensor, axes: Tensor | Sequence[int]) -> Tensor:
    """Return `x` with axes of length 1, which are counted in the output."""
    rank = x.ndim + len(_listed(axes))
    for axis in sorted(axis % rank for axis in _listed(axes)):
        x = x.unsqueeze(axis)
    return x


def concat_1(*parts: Tensor, axis: int = 1) -> Tensor:
    """Return tensors joined; until opset 3 along axis 1 if nothing is said."""
    return torch.cat(parts, axis)


def split(
    x: Tensor,
    split: Tensor | Sequence[int] | None = None,
    *,
    axis: int = 0,
    num_outputs: int,
) -> tuple[Tensor, ...]:
    """Return the parts of `x`, by default equal ones, the last being what is left."""
    if split is None:
        length, part = x.shape[axis], math.ceil(x.shape[axis] / num_outputs)
        ends = [min(part * i, length) for i in range(num_outputs + 1)]
        sizes = [end - start for start, end in itertools.pairwise(ends)]
    else:
        sizes = _listed(split)
    parts: tuple[Tensor, ...] = torch.split(x, sizes, axis)
    return parts


def _split(builder: Builder, node: onnx.NodeProto) -> torch.fx.Node:
    keywords = {"num_outputs": len(node.output), **attributes(node)}
    result = builder.call_function(split, inputs(builder, node), keywords)
    return outputs(builder, node, result)


def slice_(
    x: Tensor,
    starts: Tensor | Sequence[int],
    ends: Tensor | Sequence[int],
    axes: Tensor | Sequence[int] | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Return part of `x`; bounds beyond an axis mean its end, as in Python."""
    count = len(_listed(starts))
    chosen = range(count) if axes is None else _listed(axes)
    strides = [1] * count if steps is None else _listed(steps)
    for axis, start, end, step in zip(chosen, _listed(starts), _listed(ends), strides, strict=True):
        part = range(*slice(start, end, step).indices(x.shape[axis]))
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(part.start, part.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(part, dtype=torch.int64, device=x.device))
    return x


def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Return the lengths of the axes, or of some."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


def size(x: Tensor) -> Tensor:
    """Return the number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def constant_of_shape(shape: Tensor, *, value: float, dtype: torch.dtype) -> Tensor:
    """Return a tensor that holds one value everywhere."""
    return torch.full(shape.tolist(), value, dtype=dtype, device=shape.device)


def _constant_of_shape(builder: Builder, node: onnx.NodeProto) -> torch.fx.Node:
    proto = attributes(node).get("value")
    value = torch.zeros(1) if proto is None else builder.load_tensor(proto)
    keywords = {"value": value.item(), "dtype": value.dtype}
    made: torch.fx.Node = builder.call_function(constant_of_shape, inputs(builder, node), keywords)
    return made


def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Return the numbers from `start` to before `limit`."""
    return torch.arange(
        start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device
    )


def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Return blocks of a picture as channels; which come first, depth or blocks, says `mode`."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.permute(order).reshape(n, -1, h // blocksize, w // blocksize)


_BORDERS: Final[dict[str, Callable[[Tensor, int], Tensor]]] = {
    "edge": lambda index, length: index.clamp(0, length - 1),
    "wrap": lambda index, length: index % length,
    "reflect": lambda index, length: _mirrored(index, length),
}


def _mirrored(index: Tensor, length: int) -> Tensor:
    """Return indices mirrored at the first and the last element, which are not repeated."""
    around = index % max(2 * (length - 1), 1)
    return torch.minimum(around, 2 * (length - 1) - around)


def pad(
    x: Tensor,
    pads: Tensor | Sequence[int],
    value: Tensor | float | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Return `x` with more, or less where `pads` is negative, at both ends of its axes."""
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in _listed(axes)]
    amounts = _listed(pads)
    around = dict(zip(chosen, zip(amounts, amounts[len(chosen) :], strict=False), strict=True))
    if mode == "constant":
        flat = [amount for i in reversed(range(x.ndim)) for amount in around.get(i, (0, 0))]
        fill: Any = value.item() if isinstance(value, Tensor) else value or 0
        return functional.pad(x, flat, value=fill)
    for axis, (before, after) in around.items():
        if before or after:
            index = torch.arange(-before, x.shape[axis] + after, device=x.device)
            x = x.index_select(axis, _BORDERS[mode](index, x.shape[axis]))
    return x


def pad_1(
    x: Tensor, *, paddings: Sequence[int], mode: str = "constant", value: float = 0
) -> Tensor:
    """Return `x` padded as opset 1 calls it."""
    return pad(x, paddings, value, mode=mode)


HANDLERS: Final = (
    Row("Reshape", 1, call(reshape)),
    Row("Transpose", 1, call(transpose)),
    Row("Squeeze", 1, call(squeeze)),
    Row("Unsqueeze", 1, call(unsqueeze)),
    Row("Concat", 1, call(concat_1)),
    Row("Concat", 4, theirs("Concat")),
    Row("Split", 1, _split),
    Row("Slice", 1, call(slice_)),
    Row("Shape", 1, call(shape)),
    Row("Size", 1, call(size)),
    Row("ConstantOfShape", 9, _constant_of_shape),
    Row("Range", 11, call(range_)),
    Row("SpaceToDepth", 1, call(space_to_depth)),
    Row("Pad", 2, call(pad)),
    Row("Pad", 1, call(pad_1)),
)
