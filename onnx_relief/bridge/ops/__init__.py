"""Our handlers for operators that onnx2fx lacks or gets wrong, one family per module.

Each family has one table `HANDLERS` of rows (operator, opset from which on, handler).
"""

from __future__ import annotations

from functools import cache

from onnx_relief.bridge.ops import (
    activation,
    attention,
    conv,
    dropout,
    elementwise,
    flex_attention,
    indexing,
    integer,
    linear_attention,
    loops,
    loss,
    microsoft,
    normalization,
    pooling,
    preparation,
    quantization,
    recurrent,
    reduction,
    regions,
    resize,
    shaping,
    signals,
)
from onnx_relief.bridge.ops.registry import Row, register_all

FAMILIES: tuple[tuple[Row, ...], ...] = (
    activation.HANDLERS,
    attention.HANDLERS,
    conv.HANDLERS,
    dropout.HANDLERS,
    elementwise.HANDLERS,
    flex_attention.HANDLERS,
    indexing.HANDLERS,
    integer.HANDLERS,
    linear_attention.HANDLERS,
    loops.HANDLERS,
    loss.HANDLERS,
    microsoft.HANDLERS,
    normalization.HANDLERS,
    pooling.HANDLERS,
    preparation.HANDLERS,
    quantization.HANDLERS,
    recurrent.HANDLERS,
    reduction.HANDLERS,
    regions.HANDLERS,
    resize.HANDLERS,
    shaping.HANDLERS,
    signals.HANDLERS,
)


@cache
def register_handlers() -> None:
    """Make onnx2fx use our handlers, in this process from now on."""
    for rows in FAMILIES:
        register_all(rows)
