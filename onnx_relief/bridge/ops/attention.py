"""Attention 23 to 25 of the ONNX specification.

Heads lie on the second axis: q (batch, heads, queries, size), k and v (batch, key heads, keys,
size). What a query may see is a bias that is added to its scores, -inf where it may not.
"""

from __future__ import annotations

import math

import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx

from onnx_relief.bridge.ops.registry import Builder, Row, call

# Of TensorProto.DataType, those that softmax_precision may be.
_TYPES = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
_HALF = (torch.float16, torch.bfloat16)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_k: Tensor | None = None,
    past_v: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    is_causal: int = 0,
    left_window_size: int = -1,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    softmax_precision: int | None = None,
    qk_matmul_output_mode: int = 0,
    scores: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return Y, present key, present value, and the scores where they are wanted.

    Args:
        q: Queries, or (batch, queries, heads x size); then the next two likewise.
        k: Keys.
        v: Values.
        mask: Bias, or True where a query may see a key; broadcastable to (batch, heads, queries,
            keys), its last axis may be shorter.
        past_k: Keys that go before.
        past_v: Values that go before.
        lengths: How many of the keys are no padding, (batch,).
        is_causal: 1 where a query sees no later key.
        left_window_size: How many earlier keys a query sees; -1 for all.
        right_window_size: How many later keys a query sees; -1 for all.
        scale: Of the scores; 1 / sqrt(size) by default.
        softcap: Bound of the scores, 0 for none.
        q_num_heads: Where q has three axes.
        kv_num_heads: Where k and v have.
        softmax_precision: The type of softmax.
        qk_matmul_output_mode: Which scores: 0 and 1 before the bias, 2 after, 3 after softmax.
        scores: Whether they are wanted.
    """
    flat = q.ndim == 3
    if flat and q_num_heads and kv_num_heads:
        q = q.unflatten(-1, (q_num_heads, -1)).transpose(1, 2)
        k, v = (t.unflatten(-1, (kv_num_heads, -1)).transpose(1, 2) for t in (k, v))
    past = 0
    if past_k is not None and past_v is not None:
        past = past_k.shape[2]
        k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    present = k, v
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = (t.repeat_interleave(repeats, 1) for t in present)
    offset = past if lengths is None else lengths[:, None, None, None] - q.shape[2]
    windows = (left_window_size, 0 if is_causal else right_window_size)
    bias = _bias(q, k.shape[2], mask, offset, windows, lengths)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    found: Tensor | None = None
    if scores or softcap or softmax_precision or q.dtype in _HALF:
        factors = (scale, softcap, _TYPES.get(softmax_precision or 0))
        y, found = _written_out(q, k, v, bias, factors, qk_matmul_output_mode)
    else:
        y = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    return y.transpose(1, 2).flatten(2) if flat else y, *present, found


def _bias(
    q: Tensor,
    keys: int,
    mask: Tensor | None,
    offset: int | Tensor,
    windows: tuple[int, int],
    lengths: Tensor | None,
) -> Tensor | None:
    """Return what is added to the scores; None for nothing.

    Args:
        q: Queries.
        keys: How many keys there are.
        mask: That of the node.
        offset: How many keys come before the first query's own.
        windows: How many earlier and later keys a query sees; -1 for all.
        lengths: How many of the keys are no padding.
    """
    distance = (
        torch.arange(keys, device=q.device) - torch.arange(q.shape[2], device=q.device)[:, None]
    )
    distance = distance - offset
    seen = []
    if windows[0] >= 0:
        seen.append(distance >= -windows[0])
    if windows[1] >= 0:
        seen.append(distance <= windows[1])
    if lengths is not None:
        seen.append(torch.arange(keys, device=q.device) < lengths[:, None, None, None])
    bias = None
    if mask is not None:
        boolean = mask.dtype == torch.bool
        fill = False if boolean else -math.inf
        mask = F.pad(mask, (0, keys - mask.shape[-1]), value=fill)
        if boolean:
            seen.append(mask)
        else:
            bias = mask
    for condition in seen:
        start = q.new_zeros(()) if bias is None else bias
        bias = torch.where(condition, start, -math.inf)
    return bias if bias is None or bias.ndim > 1 else bias[None]


def _written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    factors: tuple[float, float, torch.dtype | None],
    mode: int,
) -> tuple[Tensor, Tensor]:
    """Return Y and the scores, step by step.

    A query that may see nothing gives zeros, and no gradient.
    """
    scale, softcap, precision = factors
    root = math.sqrt(scale)
    logits = (q * root) @ (k * root).transpose(-1, -2)
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    raw, blind = logits, None
    if bias is not None:
        blocked = bias == -math.inf
        blind = blocked.all(-1, keepdim=True)
        logits = torch.where(blocked, -math.inf, logits + torch.where(blocked, 0, bias))
    biased = logits
    if blind is not None:
        logits = torch.where(blind, 0, logits)
    shares = logits.softmax(-1, dtype=precision).to(q.dtype)
    if blind is not None:
        shares = torch.where(blind, 0, shares)
    return shares @ v, (raw, raw, biased, shares)[mode]


def _handle(builder: Builder, node: onnx.NodeProto) -> fx.Node:
    wanted = len(node.output) > 3 and bool(node.output[3])
    return call(attention, scores=wanted)(builder, node)


HANDLERS: tuple[Row, ...] = (Row("Attention", 23, _handle),)
