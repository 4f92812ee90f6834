"""Branches that bring nothing but constants to a sum are replaced by these, or left out if zero."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_relief.graph.bias import fresh_name
from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.document import Document
from onnx_relief.graph.initializers import add_initializer
from onnx_relief.graph.light import without_weights
from onnx_relief.graph.nodes import STANDARD

Floats = NDArray[np.float64]


def without_idle_branches(
    document: Document, trace: Trace, settled: Mapping[str, Floats]
) -> tuple[Document, int]:
    """Return a copy in which sums do not wait for branches that are constants, and how many sums.

    What made such a branch is unread then. Only sums of the main graph, where the other branch has
    the whole shape of the result, whatever the sizes of the inputs; and where the branch is not 0,
    only if nothing else reads it.

    Args:
        document: The model that was traced; it is not changed.
        trace: Its ids.
        settled: By tensor, the number that each of its channels is, where all of them are known.
    """
    found = [
        (at, node, place)
        for at, node in enumerate(document.proto.graph.node)
        if node.op_type in ("Add", "Sum") and node.domain in STANDARD and len(node.input) == 2
        for place in (0, 1)
        if _is_idle(trace, node.input[place], settled)
        and not trace.is_constant(node.input[1 - place])
    ]
    if not found:
        return document, 0
    types = _types(document)
    smaller = document.copy()
    graph = smaller.proto.graph
    done: set[int] = set()
    for at, node, place in found:
        whole = types.get(node.output[0])
        if at not in done and whole is not None and types.get(node.input[1 - place]) == whole:
            done.add(at)
            _replace(graph, graph.node[at], place, trace, settled, whole[0])
    return (smaller, len(done)) if done else (document, 0)


def _is_idle(trace: Trace, name: str, settled: Mapping[str, Floats]) -> bool:
    return name in settled and (not settled[name].any() or len(trace.whole.uses[name]) == 1)


def _replace(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    place: int,
    trace: Trace,
    settled: Mapping[str, Floats],
    kind: int,
) -> None:
    """Let a sum read a constant for one of its two operands, or be the other one."""
    name, values = node.input[place], settled[node.input[place]]
    if not values.any():
        node.op_type = "Identity"
        del node.input[place]
        return
    ids = trace.of(name)
    shape = (values.size, *[1] * (ids.ndim - 1 - varying(ids)[0]))
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constant = fresh_name(graph, f"{name}_constant")
    add_initializer(graph, values.reshape(shape).astype(dtype), constant)
    node.input[place] = constant


def _types(document: Document) -> dict[str, tuple[int, tuple[int | str, ...]]]:
    """Return element type and sizes of tensors whose sizes are all known, or have a name."""
    try:
        graph = onnx.shape_inference.infer_shapes(without_weights(document.proto).proto).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return {}
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        sizes = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim
        )
        if kind.HasField("shape") and all(sizes):
            found[value.name] = (kind.elem_type, sizes)
    return found
