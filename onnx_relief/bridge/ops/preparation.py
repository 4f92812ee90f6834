"""Operators of domain ai.onnx.ml by which pipelines of scikit-learn prepare what a network takes.

Source: Operators-ml.md of ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from onnx_relief.bridge.ops.registry import Row, call

DOMAIN: Final = "ai.onnx.ml"


def scaler(
    x: Tensor, *, offset: Sequence[float] = (0.0,), scale: Sequence[float] = (1.0,)
) -> Tensor:
    """Return (x - offset) * scale in fp32, one of each for all features or for every one.

    Args:
        x: Shape (samples, features) or (features,), of any numbers.
        offset: What is taken off first.
        scale: What is multiplied by then.
    """
    wide = x.to(torch.float32)
    less, times = (
        torch.tensor(list(one), dtype=wide.dtype, device=x.device) for one in (offset, scale)
    )
    return (wide - less) * times


def normalizer(x: Tensor, *, norm: str = "MAX") -> Tensor:
    """Return rows over their largest number, their sum of sizes (L1), or their length (L2)."""
    wide = x.to(torch.float32)
    size = {
        "MAX": wide.amax(-1, keepdim=True),
        "L1": wide.abs().sum(-1, keepdim=True),
        "L2": wide.square().sum(-1, keepdim=True).sqrt(),
    }[norm]
    return wide / torch.where(size == 0, torch.ones_like(size), size)


HANDLERS: tuple[Row, ...] = (
    Row("Scaler", 1, call(scaler), DOMAIN),
    Row("Normalizer", 1, call(normalizer), DOMAIN),
)
