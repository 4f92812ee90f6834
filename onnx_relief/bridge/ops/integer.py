"""Products of integers, forward: ConvInteger, MatMulInteger, QLinearConv and QLinearMatMul.

Sums are exact in float64 (8 bits times 8 bits, fewer than 2^37 terms), which every device can
multiply. Integers carry no gradient, so nothing before them learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnx_relief.bridge.ops.registry import Row, call

_CONVOLUTIONS: Final[tuple[Callable[..., Tensor], ...]] = (F.conv1d, F.conv2d, F.conv3d)


def convolve(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return the convolution of floats.

    Args:
        x: Shape (batch, channels, ...).
        w: Shape (units, channels / group, ...).
        bias: Shape (units,).
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
        dilations: Along each axis of the kernel.
        group: Groups of channels.
        kernel_shape: Not read: `w` has it.
        pads: Before all axes, then behind.
        strides: Along each axis of the kernel.
    """
    del kernel_shape
    rank = w.ndim - 2
    strides, dilations = list(strides or [1] * rank), list(dilations or [1] * rank)
    around = list(pads or [0] * 2 * rank)
    if auto_pad != "NOTSET":
        around = _automatic(x.shape[2:], w.shape[2:], strides, dilations, auto_pad)
    pairs = [around[i + side] for i in reversed(range(rank)) for side in (0, rank)]
    return _CONVOLUTIONS[rank - 1](F.pad(x, pairs), w, bias, strides, 0, dilations, group)


def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    **geometry: Any,  # noqa: ANN401
) -> Tensor:
    """Return the convolution of integers as int32.

    Args:
        x: Shape (batch, channels, ...).
        w: Shape (units, channels / group, ...).
        x_zero: Zero point of `x`, which padding has.
        w_zero: Zero point of `w`, or one for each unit.
        geometry: As for `convolve`.
    """
    weights = _shifted(w, _each(w_zero, w.ndim - 1))
    return convolve(_shifted(x, x_zero), weights, **geometry).to(torch.int32)


def matmul_integer(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """Return the product of integers as int32; `a_zero` may be one for each row of `a`."""
    return (_shifted(a, _each(a_zero, 1)) @ _shifted(b, b_zero)).to(torch.int32)


def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
    **geometry: Any,  # noqa: ANN401
) -> Tensor:
    """Return the convolution of quantised tensors, quantised; `geometry` as for `convolve`."""
    total = conv_integer(x, w, x_zero, w_zero, **geometry)
    if bias is not None:
        total = total + bias.reshape(-1, *[1] * (x.ndim - 2))
    factor = x_scale * w_scale / y_scale
    return _requantized(total, factor.reshape(-1, *[1] * (x.ndim - 2)), y_zero)


def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """Return the product of quantised tensors, quantised."""
    total = matmul_integer(a, b, a_zero, b_zero)
    scale = _each(a_scale, 1)
    factor = (a_scale if scale is None else scale) * b_scale / y_scale
    return _requantized(total, factor, y_zero)


def dynamic_quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `x` as uint8, its scale and its zero point; zero is always in the range."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = torch.where(low == high, 1, (high - low) / 255)  # 1 as in ONNX Runtime
    zero = torch.round((-low / scale).clamp(0, 255))
    y = (torch.round(x / scale) + zero).clamp(0, 255)
    return y.to(torch.uint8), scale, zero.to(torch.uint8)


def _shifted(values: Tensor, zero: Tensor | None) -> Tensor:
    return values.double() if zero is None else values.double() - zero.double()


def _each(values: Tensor | None, trailing: int) -> Tensor | None:
    """Return flat values with `trailing` more axes, others as they are."""
    flat = values is not None and values.ndim == 1
    return values.reshape(-1, *[1] * trailing) if flat and values is not None else values


def _requantized(total: Tensor, factor: Tensor, zero: Tensor) -> Tensor:
    limits = torch.iinfo(zero.dtype)
    y = torch.round(total.float() * factor.float()) + zero.float()
    return y.clamp(limits.min, limits.max).to(zero.dtype)


def _automatic(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    mode: str,
) -> list[int]:
    """Return the pads before all axes, then behind."""
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    needed = [
        max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [n // 2 for n in needed], [n - n // 2 for n in needed]
    return less + more if mode == "SAME_UPPER" else more + less


HANDLERS: tuple[Row, ...] = (
    Row("ConvInteger", 1, call(conv_integer)),
    Row("MatMulInteger", 1, call(matmul_integer)),
    Row("QLinearConv", 1, call(qlinear_conv)),
    Row("QLinearMatMul", 1, call(qlinear_matmul)),
    Row("DynamicQuantizeLinear", 1, call(dynamic_quantize)),
)
