"""Loops over bodies: onnx2fx gives a tuple, also where a node has a single output."""

from __future__ import annotations

from typing import Final

import onnx
import torch.fx

from onnx_relief.bridge.ops.registry import Builder, Handler, Row, outputs, theirs


def _one_by_one(op_type: str, opset: int) -> Handler:
    """Return onnx2fx's handler, of whose tuple a node takes what it names."""
    whole = theirs(op_type, opset)

    def handler(builder: Builder, node: onnx.NodeProto) -> torch.fx.Node:
        return outputs(builder, node, whole(builder, node))

    return handler


HANDLERS: Final = (
    Row("Loop", 1, _one_by_one("Loop", 1)),
    Row("Scan", 8, _one_by_one("Scan", 8)),
    Row("Scan", 9, _one_by_one("Scan", 9)),
)
