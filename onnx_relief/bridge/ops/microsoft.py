"""Operators of domain com.microsoft that ONNX Runtime's optimiser puts into files.

Source: ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnx_relief.bridge.ops.integer import convolve
from onnx_relief.bridge.ops.normalization import rms_normalization
from onnx_relief.bridge.ops.registry import Row, call
from onnx_relief.errors import UnsupportedError

DOMAIN: Final = "com.microsoft"


def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803 - the names of the attributes
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
) -> Tensor:
    """Return alpha times the product, each side transposed if said.

    Args:
        a: Shape (..., rows, inner).
        b: Shape (..., inner, columns).
        alpha: A factor.
        transA: Swap the last two axes of `a`; nothing if it has only one.
        transB: Likewise of `b`.
        transBatchA: Before that, move the first axis of `a` behind all but the last.
        transBatchB: Likewise of `b`.
    """
    a, b = (t.movedim(0, -2) if batch else t for t, batch in ((a, transBatchA), (b, transBatchB)))
    a, b = (
        t.transpose(-1, -2) if swap and t.ndim > 1 else t for t, swap in ((a, transA), (b, transB))
    )
    return alpha * (a @ b)


def bias_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return Gelu of x + bias, exact."""
    return F.gelu(x if bias is None else x + bias)


def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return Gelu of x + bias, by tanh."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """Return x * sigmoid(alpha * x)."""
    return x * torch.sigmoid(alpha * x)


def fused_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    other: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **geometry: Any,  # noqa: ANN401
) -> Tensor:
    """Return the activation of a convolution plus `other`; `geometry` as for `convolve`."""
    y = convolve(x, w, bias, **geometry)
    return _activated(y if other is None else y + other, activation, activation_params)


def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    activation: str = "",
    activation_alpha: float = 0.0,
    activation_beta: float = 0.0,
    activation_gamma: float = 0.0,
) -> Tensor:
    """Return the activation of alpha * a @ b + beta * c, with `a` and `b` transposed if said."""
    del activation_gamma  # of Selu only, which the optimiser does not fuse
    y = fused_matmul(a, b, alpha=alpha, transA=transA, transB=transB)
    y = y if c is None else y + beta * c
    return _activated(y, activation, (activation_alpha, activation_beta))


def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-5,
) -> tuple[Tensor, ...]:
    """Return the normalised sum of x, skip and bias, its statistics, and the sum itself."""
    total = x + skip if bias is None else x + skip + bias
    var, mean = torch.var_mean(total, -1, correction=0, keepdim=True)
    y = F.layer_norm(total, scale.shape, scale, shift, epsilon)
    return y, mean, torch.rsqrt(var + epsilon), total


def skip_simplified_layer_normalization(
    x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None, *, epsilon: float = 1e-5
) -> tuple[Tensor, ...]:
    """Return the sum of x, skip and bias over its root mean square, and the sum itself."""
    total = x + skip if bias is None else x + skip + bias
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon)
    return (
        rms_normalization(total, scale, epsilon=epsilon),
        torch.zeros_like(inverse),
        inverse,
        total,
    )


def attention(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
    past_length: Tensor | None = None,
    *,
    num_heads: int,
    unidirectional: int = 0,
    qkv_hidden_sizes: Sequence[int] = (),
    mask_filter_value: float = -10000.0,
    scale: float = 0.0,
    **others: object,
) -> tuple[Tensor, ...]:
    """Return the attention of a sequence to itself, heads side by side, and its keys and values.

    Args:
        x: Shape (batch, places, inputs).
        weights: Those of queries, keys and values side by side (inputs, all outputs).
        bias: Likewise (all outputs,).
        mask: 1 where a place may be seen (batch, places), (batch, places, places); or lengths.
        past: Not supported, nor `past_length`.
        added: Bias of the scores (batch or 1, heads or 1, places, places).
        past_length: See `past`.
        num_heads: How many heads there are.
        unidirectional: 1 where no later place is seen.
        qkv_hidden_sizes: Outputs of queries, keys and values; a third each by default.
        mask_filter_value: Added to the score of what may not be seen.
        scale: Of the scores; 1 / sqrt(size of a head) by default.
        others: Not supported.

    Raises:
        UnsupportedError: There is a past, or the model asks for what is not supported.
    """
    if past is not None or past_length is not None or any(others.values()):
        raise UnsupportedError(
            "Attention of com.microsoft with a cache or rotary positions cannot be trained; "
            "give the model as it was before ONNX Runtime's optimiser."
        )
    sizes = list(qkv_hidden_sizes) or [weights.shape[1] // 3] * 3
    joined = x @ weights if bias is None else x @ weights + bias
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in joined.split(sizes, -1))
    scores = (q @ k.transpose(-1, -2)) * (scale or 1 / math.sqrt(q.shape[-1]))
    places = torch.arange(x.shape[1], device=x.device)
    if mask is not None:
        if mask.ndim == 1:
            mask = places < mask[: len(x), None]
        seen = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
        scores = scores + torch.where(seen.bool(), 0, mask_filter_value)
    if unidirectional:
        scores = torch.where(places <= places[:, None], scores, -math.inf)
    scores = scores if added is None else scores + added
    y: Tensor = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return (y, torch.stack([k, v])) if k.shape == v.shape else (y,)


def _activated(x: Tensor, name: str, numbers: Sequence[float]) -> Tensor:
    match name:
        case "":
            return x
        case "Relu":
            return torch.relu(x)
        case "Tanh":
            return torch.tanh(x)
        case "Sigmoid":
            return torch.sigmoid(x)
        case "LeakyRelu":
            return F.leaky_relu(x, numbers[0])
        case "Clip":
            return x.clamp(numbers[0], numbers[1])
        case "HardSigmoid":
            return (numbers[0] * x + numbers[1]).clamp(0, 1)
        case _:
            raise UnsupportedError(
                f"A fused node of com.microsoft has the activation {name!r}, which cannot be "
                "trained; give the model as it was before ONNX Runtime's optimiser."
            )


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "FusedMatMul": fused_matmul,
    "TransposeMatMul": fused_matmul,
    "Gelu": bias_gelu,
    "BiasGelu": bias_gelu,
    "FastGelu": fast_gelu,
    "QuickGelu": quick_gelu,
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified_layer_normalization,
    "Attention": attention,
}
HANDLERS: tuple[Row, ...] = tuple(
    Row(name, 1, call(function), DOMAIN) for name, function in _FUNCTIONS.items()
)
