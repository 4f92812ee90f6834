"""Activations whose parameters, broadcasting or gradients onnx2fx gets wrong.

Source: the operators of the same names in the ONNX specification.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnx_relief.bridge.ops.registry import Row, call


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return x * sigmoid(alpha * x)."""
    return x * torch.sigmoid(alpha * x)


def swiglu(a: Tensor, b: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return swish of the gate `a` times `b`, of the same shape."""
    return swish(a, alpha=alpha) * b


def selu(
    x: Tensor,
    *,
    alpha: float = 1.67326319217681884765625,
    gamma: float = 1.05070102214813232421875,
    consumed_inputs: Sequence[int] = (),
) -> Tensor:
    """Return gamma * x, and gamma * alpha * (e^x - 1) below zero.

    What `torch.exp` gives for large x must not be computed where x is taken instead: its gradient
    would be 0 times infinity.
    """
    del consumed_inputs  # what opset 1 said about memory
    return gamma * F.elu(x, alpha)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Return x, and x * slope below zero; since opset 7 the slope is broadcast from the right.

    A slope that does not fit like this, one for each channel, is one that some exporters write.
    """
    rest = x.ndim - 2
    if slope.ndim == 1 and rest > 0 and slope.numel() not in (1, x.shape[-1]):
        slope = slope.reshape(-1, *[1] * rest)
    return torch.where(x < 0, x * slope, x)


def prelu_1(x: Tensor, slope: Tensor, *, consumed_inputs: Sequence[int] = ()) -> Tensor:
    """Return x, and x * slope below zero, with one slope or one for each channel."""
    del consumed_inputs
    if slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return torch.where(x < 0, x * slope, x)


HANDLERS: tuple[Row, ...] = (
    Row("Swish", 1, call(swish)),
    Row("SwiGLU", 1, call(swiglu)),
    Row("Selu", 6, call(selu)),
    Row("Selu", 1, call(selu, **{"alpha": 1.6732, "gamma": 1.0507})),
    Row("PRelu", 7, call(prelu)),
    Row("PRelu", 1, call(prelu_1)),
)
