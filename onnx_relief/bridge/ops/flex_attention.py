"""FlexAttention, whose scores and probabilities pass through graphs that the node holds."""

from __future__ import annotations

import math
from typing import Any, Final

import onnx
import torch
import torch.fx
from onnx2fx.ops.control_flow import _build_subgraph_module
from onnx2fx.utils.dtype import DTYPE_MAP
from torch import Tensor, nn

from onnx_relief.bridge.ops.registry import Builder, Row, attributes, inputs


class FlexAttention(nn.Module):
    """Attention with a graph after the scores, and one after the probabilities.

    Args:
        score_mod: Changes the scores (batch, heads, queries, keys); None leaves them.
        prob_mod: Changes the probabilities.
        scale: Of the scores; by default 1 / sqrt(head size).
        precision: The type in which probabilities are computed; by default at least float32.
    """

    def __init__(
        self,
        score_mod: nn.Module | None,
        prob_mod: nn.Module | None,
        scale: float | None,
        precision: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.score_mod, self.prob_mod = score_mod, prob_mod
        self.scale, self.precision = scale, precision

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, score_outer: list[Tensor], prob_outer: list[Tensor]
    ) -> Tensor:
        """Return (batch, heads, queries, value size).

        Args:
            q: (batch, heads, queries, head size).
            k: (batch, key heads, keys, head size); each key head serves a group of heads.
            v: (batch, key heads, keys, value size).
            score_outer: What the graph for scores reads from outside.
            prob_outer: What the graph for probabilities reads from outside.
        """
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        root = math.sqrt(1 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale)
        least = torch.float64 if q.dtype == torch.float64 else torch.float32
        scores = ((q * root) @ (k * root).transpose(-1, -2)).to(self.precision or least)
        if self.score_mod is not None:
            scores = self.score_mod(scores, *score_outer)
        probabilities = scores.softmax(-1)
        if self.prob_mod is not None:
            probabilities = self.prob_mod(probabilities, *prob_outer)
        return (probabilities @ v.to(probabilities.dtype)).to(v.dtype)


def _handler(builder: Builder, node: onnx.NodeProto) -> torch.fx.Node:
    options = attributes(node)
    score_mod, score_outer = _body(builder, options.get("score_mod"))
    prob_mod, prob_outer = _body(builder, options.get("prob_mod"))
    precision: Any = DTYPE_MAP.get(options.get("softmax_precision", 0))
    module = FlexAttention(score_mod, prob_mod, options.get("scale"), precision)
    name = builder.register_submodule(node.name or "flex_attention", module)
    arguments = (*inputs(builder, node), score_outer, prob_outer)
    result: torch.fx.Node = builder.call_module(name, arguments)
    return result


def _body(
    builder: Builder, graph: onnx.GraphProto | None
) -> tuple[nn.Module | None, list[torch.fx.Node]]:
    """Return the module of a graph, and what it reads from outside."""
    if graph is None:
        return None, []
    module, _, _, outer = _build_subgraph_module(
        graph,
        builder.env,
        builder._opset_versions,
        getattr(builder, "_type_info", None),
        tensor_loader=builder.load_tensor,
    )
    return module, [builder.get_value(name) for name in outer]


HANDLERS: Final = (Row("FlexAttention", 1, _handler, "ai.onnx.preview"),)
