"""Normalisations by the statistics of each sample, and of neighbouring channels.

Source: the operators of the same names in the ONNX specification.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx

from onnx_relief.bridge.ops.batch_normalization import HANDLERS as BATCH
from onnx_relief.bridge.ops.batch_normalization import (
    BatchNormalization,
    freeze_batch_normalization,
)
from onnx_relief.bridge.ops.registry import Builder, Row, call

__all__ = ["HANDLERS", "BatchNormalization", "freeze_batch_normalization"]

# Of TensorProto.DataType, those a stash_type may be.
_TYPES = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    statistics: bool = True,
) -> tuple[Tensor, ...]:
    """Return Y, mean and inverse standard deviation.

    Args:
        x: Any shape.
        scale: Broadcastable to `x`, or flat with as many values as the normalised axes.
        bias: Likewise.
        axis: The first of the normalised axes.
        epsilon: Added to the variance.
        stash_type: Type of the statistics; half precision is computed in float32, the others as
            they are.
        statistics: Whether more than Y is wanted.
    """
    first = axis % x.ndim
    shape, axes = x.shape[first:], list(range(first, x.ndim))
    wide = _wide(x)
    simple = scale.shape == shape and (bias is None or bias.shape == shape)
    if simple and not statistics:
        return (F.layer_norm(x, shape, scale, bias, epsilon),)
    var, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(var + epsilon)
    y = (wide - mean) * inverse * _shaped(scale, shape)
    y = y if bias is None else y + _shaped(bias, shape)
    stash = _TYPES[stash_type]
    return y.to(x.dtype), mean.to(stash), inverse.to(stash)


def rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Return `x` over its root mean square, times `scale`; arguments as in layer_normalization."""
    del stash_type
    first = axis % x.ndim
    wide = _wide(x)
    power = wide.square().mean(list(range(first, x.ndim)), keepdim=True)
    y = (wide * torch.rsqrt(power + epsilon)).to(x.dtype)
    return y * _shaped(scale, x.shape[first:])


def instance_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    epsilon: float = 1e-5,
    consumed_inputs: Sequence[int] = (),
) -> Tensor:
    """Return each channel of each sample normalised; one value alone becomes its bias.

    Args:
        x: Shape (batch, channels, ...).
        scale: Shape (channels,).
        bias: Shape (channels,).
        epsilon: Added to the variance.
        consumed_inputs: Not read: what opset 1 said about memory.
    """
    del consumed_inputs
    return torch.group_norm(x, x.shape[1], scale, bias, epsilon)


def group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    """Return groups of channels normalised.

    Args:
        x: Shape (batch, channels, ...).
        scale: Shape (channels,), or (num_groups,) at opset 18.
        bias: Likewise.
        num_groups: How many groups the channels are split in.
        epsilon: Added to the variance.
        stash_type: Not read: half precision is computed in float32 anyway.
    """
    del stash_type
    each = x.shape[1] // scale.numel()
    scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return torch.group_norm(x, num_groups, scale, bias, epsilon)


def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Return `x` over its norm along an axis; zeros, with zero gradient, where the norm is zero."""
    size = x.abs().sum(axis, keepdim=True) if p == 1 else x.square().sum(axis, keepdim=True)
    some = size > 0
    size = torch.where(some, size, 1)
    return torch.where(some, x / (size if p == 1 else size.sqrt()), 0)


def local_response_normalization(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """Return `x` over a power of the mean square of `size` neighbouring channels.

    Args:
        x: Shape (batch, channels, ...).
        size: How many channels; of an even number one more lies after than before.
        alpha: Weight of the mean square.
        beta: The power.
        bias: Added to the mean square.
    """
    before, after = (size - 1) // 2, size // 2
    padded = F.pad(x.square().transpose(1, -1), (before, after)).unfold(-1, size, 1)
    power = padded.sum(-1).transpose(1, -1)
    return x / (bias + alpha / size * power).pow(beta)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _shaped(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a scale as it is, or flat values in the shape of the normalised axes."""
    flat = x.ndim == 1 and len(shape) > 1 and x.numel() == torch.Size(shape).numel()
    return x.reshape(shape) if flat else x


def _layer_normalization(builder: Builder, node: onnx.NodeProto) -> fx.Node:
    wanted = len([name for name in node.output if name]) > 1
    return call(layer_normalization, statistics=wanted)(builder, node)


HANDLERS: tuple[Row, ...] = (
    *BATCH,
    Row("LayerNormalization", 1, _layer_normalization),
    Row("RMSNormalization", 1, call(rms_normalization)),
    Row("InstanceNormalization", 1, call(instance_normalization)),
    Row("GroupNormalization", 1, call(group_normalization)),
    Row("LpNormalization", 1, call(lp_normalization)),
    Row("LRN", 1, call(local_response_normalization)),
)
