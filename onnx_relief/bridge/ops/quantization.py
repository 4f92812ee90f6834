"""QuantizeLinear and DequantizeLinear, through which gradients pass.

Rounding has the gradient of the identity (the straight-through estimator, arXiv 1308.3432),
saturation that of a clamp; so a scale learns as in LSQ (arXiv 1902.08153). Integers carry no
gradient in PyTorch: a QuantizeLinear makes the rounded numbers as floats first and leaves them
with its node in the graph, and a DequantizeLinear that reads this node takes them instead.
"""

from __future__ import annotations

from typing import Any, Final

import onnx
import torch
from torch import Tensor, fx

from onnx_relief.bridge.ops.registry import Builder, Row, attributes, call, inputs
from onnx_relief.graph.lift import ROUNDED

# Of TensorProto.DataType.
_INTEGERS: Final = {
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
}
_FLOATS: Final = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
_CARRIED: Final = "quantized_as_floats"


def quantized_as_floats(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """Return the integers of `x` as floats.

    Args:
        x: Any shape, float or int32.
        scale: One for all, one for each index of `axis`, or one for each block.
        zero_point: Likewise; its type is that of the result, uint8 without.
        axis: What a flat `scale` belongs to, or blocks lie along.
        block_size: How many values share a scale along `axis`.
        output_dtype: Type of the result without a zero point.
        precision: Type of the division; that of the scale by default.
        saturate: Not read: it concerns float8.
    """
    del saturate
    wide = _FLOATS.get(precision, scale.dtype)
    limits = torch.iinfo(_integer_type(zero_point, output_dtype))
    y = _rounded(x.to(wide) / _spread(scale, x, axis, block_size).to(wide))
    if zero_point is not None:
        y = y + _spread(zero_point, x, axis, block_size).to(wide)
    return y.clamp(limits.min, limits.max)


def as_integers(values: Tensor, zero_point: Tensor | None = None, output_dtype: int = 0) -> Tensor:
    """Return whole numbers in the type of the zero point, or `output_dtype`, or uint8."""
    return values.detach().to(_integer_type(zero_point, output_dtype))


def dequantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """Return (x - zero point) * scale.

    Args:
        x: Integers, or floats that stand for them and learn.
        scale: One for all, one for each index of `axis`, or one for each block.
        zero_point: Likewise.
        axis: What a flat `scale` belongs to, or blocks lie along.
        block_size: How many values share a scale along `axis`.
        output_dtype: Type of the result; that of the scale by default.
    """
    values = x if x.is_floating_point() else x.long()
    if zero_point is not None:
        shift = _spread(zero_point, x, axis, block_size)
        values = values - shift.to(values.dtype)
    factor = _spread(scale, x, axis, block_size)
    return (values.to(scale.dtype) * factor).to(_FLOATS.get(output_dtype, scale.dtype))


def rounded(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    low: int,
    high: int,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """Return what the integers from `low` to `high` stand for that are nearest to `x`.

    Args:
        x: Floats that are to be stored as integers.
        scale: As for `dequantize`, and so on.
        zero_point: Likewise.
        low: Least integer.
        high: Greatest integer.
        axis: As for `dequantize`.
        block_size: Likewise.
        output_dtype: Likewise.
    """
    step = _spread(scale, x, axis, block_size)
    shift = 0 if zero_point is None else _spread(zero_point, x, axis, block_size).to(x.dtype)
    # A scale of zero makes zeros of all that is stored.
    steps = _rounded(x / torch.where(step == 0, 1, step))
    values = (steps + shift).clamp(low, high) - shift
    return (values * step).to(_FLOATS.get(output_dtype, scale.dtype))


def _rounded(x: Tensor) -> Tensor:
    return x + (torch.round(x) - x).detach()


def _integer_type(zero_point: Tensor | None, output_dtype: int) -> torch.dtype:
    return _INTEGERS.get(output_dtype, torch.uint8) if zero_point is None else zero_point.dtype


def _spread(values: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """Return scales or zero points in a shape that broadcasts with `x`."""
    if values.numel() == 1:
        return values.reshape(())
    if values.ndim == 1 and not block_size:
        shape = [1] * x.ndim
        shape[axis] = -1
        return values.reshape(shape)
    size = block_size or -(-x.shape[axis] // values.shape[axis])
    return values.repeat_interleave(size, axis).narrow(axis, 0, x.shape[axis])


def _quantize(builder: Builder, node: onnx.NodeProto) -> fx.Node:
    x, scale, zero_point = (*inputs(builder, node), None)[:3]
    given = attributes(node)
    values = builder.call_function(quantized_as_floats, (x, scale, zero_point), given)
    output_dtype = given.get("output_dtype", 0)
    integers: fx.Node = builder.call_function(as_integers, (values, zero_point, output_dtype))
    integers.meta[_CARRIED] = values
    return integers


def _dequantize(builder: Builder, node: onnx.NodeProto) -> fx.Node:
    x, *others = inputs(builder, node)
    carried: Any = None if x is None else x.meta.get(_CARRIED)
    found: fx.Node = builder.call_function(dequantize, (carried or x, *others), attributes(node))
    return found


HANDLERS: tuple[Row, ...] = (
    Row("QuantizeLinear", 1, _quantize),
    Row("DequantizeLinear", 1, _dequantize),
    Row(ROUNDED[1], 1, call(rounded), ROUNDED[0]),
)
