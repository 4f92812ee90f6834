"""LinearAttention 27: attention as a recurrence over a state of fixed size.

Source: the operator of the same name in the ONNX specification, whose letters are used here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_relief.bridge.ops.registry import Row, call


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_state: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
    chunk_size: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return the output (batch, time, query heads x values) and the state afterwards.

    Args:
        query: Shape (batch, time, query heads x keys).
        key: Shape (batch, time, heads x keys).
        value: Shape (batch, time, heads x values).
        past_state: Shape (batch, heads, keys, values).
        decay: Logarithm of what stays of the state, (batch, time, heads) or with keys.
        beta: Rate of the update, (batch, time, heads or 1).
        q_num_heads: How many query heads; some may share a head.
        kv_num_heads: How many heads.
        scale: Of the output; 1 / sqrt(keys) by default.
        update_rule: Not read: `decay` and `beta` are there where it needs them.
        chunk_size: Not read: a hint for speed.
    """
    del update_rule, chunk_size
    half = query.dtype in (torch.float16, torch.bfloat16)
    wide = torch.float32 if half else query.dtype

    def heads(x: Tensor, count: int) -> Tensor:
        each: Tensor = x.to(wide).unflatten(-1, (count, -1))
        return each

    q, k, v = heads(query, q_num_heads), heads(key, kv_num_heads), heads(value, kv_num_heads)
    keep = None if decay is None else heads(decay, kv_num_heads).exp()
    rate = None if beta is None else beta.to(wide)[..., None]
    size, shared = k.shape[-1], q_num_heads // kv_num_heads
    state = q.new_zeros(len(q), kv_num_heads, size, v.shape[-1])
    state = state if past_state is None else past_state.to(wide)
    found = []
    for t in range(q.shape[1]):
        state = state if keep is None else state * keep[:, t, :, :, None]
        new = v[:, t]
        if rate is not None:
            new = rate[:, t] * (new - (k[:, t, :, None] @ state)[:, :, 0])
        state = state + k[:, t, :, :, None] * new[:, :, None]
        found.append((q[:, t, :, None] @ state.repeat_interleave(shared, 1))[:, :, 0])
    y = torch.stack(found, 1).flatten(2) * (scale or size**-0.5)
    return y.to(query.dtype), state.to(query.dtype if past_state is None else past_state.dtype)


HANDLERS: tuple[Row, ...] = (Row("LinearAttention", 27, call(linear_attention)),)
