"""Operators of the domain com.microsoft that ONNX Runtime's optimisers write.

Source: ONNX Runtime, ContribOperators.md.
"""

from __future__ import annotations

import onnx

from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.channels.layers import conv, gemm, linear, matmul, starts
from onnx_relief.graph.channels.mix import elementwise, same
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import attributes


def with_bias(trace: Trace, node: onnx.NodeProto) -> None:
    """Joined element by element: what lies over each other lives or dies together."""
    (same if len([name for name in node.input if name]) == 1 else elementwise)(trace, node)


def skip_normalised(trace: Trace, node: onnx.NodeProto) -> None:
    """Normalisation of a sum: channels must stay, since statistics run over them."""
    last = [
        name
        for name in node.input
        if trace.carries(name) and trace.of(name).ndim - 1 in varying(trace.of(name))
    ]
    if last:
        raise NotFollowedError(f"{node.op_type} takes statistics over them")
    raise NotFollowedError(f"{node.op_type} joins them along another axis")


@starts
def fused_conv(trace: Trace, node: onnx.NodeProto) -> None:
    """Conv with an activation, and perhaps a sum: channels end, new ones start."""
    joined = node.input[3] if len(node.input) > 3 else ""
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    del plain.input[3:]
    conv(trace, plain)
    if joined:
        if not trace.carries(joined):
            raise NotFollowedError(f"FusedConv joins them with {joined!r}, which stays")
        trace.pool.tie(trace.of(node.output[0]), trace.of(joined))


@starts
def fused_matmul(trace: Trace, node: onnx.NodeProto) -> None:
    """MatMul with a factor: as MatMul; a matrix that is transposed has to be constant."""
    settings = attributes(node)
    if any(settings.get(name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        raise NotFollowedError("FusedMatMul reads its input transposed")
    if not settings.get("transB", 0):
        matmul(trace, node)
        return
    if not trace.is_constant(node.input[1]) or trace.is_constant(node.input[0]):
        raise NotFollowedError("FusedMatMul reads its input transposed")
    linear(trace, node, transposed=True)


RULES: dict[str, Rule] = {
    f"com.microsoft.{name}": rule
    for rule, names in (
        (with_bias, ("Gelu", "FastGelu", "BiasGelu", "QuickGelu")),
        (
            skip_normalised,
            (
                *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
                *("EmbedLayerNormalization", "SkipGroupNorm"),
            ),
        ),
        (fused_conv, ("FusedConv",)),
        (fused_matmul, ("FusedMatMul",)),
        (gemm, ("FusedGemm",)),
    )
    for name in names
}
