"""Dropout: nothing in evaluation, the node's own ratio in training.

Source: Dropout 1 to 22 of the ONNX specification. PyTorch's mode decides, not the attribute
`is_test` or the input `training_mode`, which say for what the file was written.
"""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, fx, nn

from onnx_relief.bridge.ops.registry import Builder, Handler, Row, attributes, inputs, outputs


class Dropout(nn.Module):
    """One node.

    Args:
        ratio: Probability to be dropped where no input says it.
        boolean_mask: The type of the mask; before opset 10 it has that of the data.
    """

    def __init__(self, ratio: float, *, boolean_mask: bool) -> None:
        super().__init__()
        self.ratio = ratio
        self.boolean_mask = boolean_mask

    def forward(
        self, x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what is left of `x`, scaled up, and the mask of what was kept.

        Args:
            x: Any shape.
            ratio: Probability to be dropped, in place of the node's.
            training_mode: Not read.
        """
        del training_mode
        drop = self.ratio if ratio is None else float(ratio)
        if not self.training or drop == 0:
            kept = torch.ones_like(x, dtype=torch.bool)
            y = x
        else:
            kept = torch.rand_like(x) >= drop
            y = torch.where(kept, x / max(1 - drop, torch.finfo(x.dtype).tiny), 0)
        return y, kept if self.boolean_mask else kept.to(x.dtype)


def _handler(*, boolean_mask: bool) -> Handler:
    def handle(builder: Builder, node: onnx.NodeProto) -> fx.Node:
        module = Dropout(attributes(node).get("ratio", 0.5), boolean_mask=boolean_mask)
        name = builder.register_submodule(f"Dropout_{node.name}", module)
        return outputs(builder, node, builder.call_module(name, inputs(builder, node)))

    return handle


HANDLERS: tuple[Row, ...] = (
    Row("Dropout", 1, _handler(boolean_mask=False)),
    Row("Dropout", 10, _handler(boolean_mask=True)),
)
