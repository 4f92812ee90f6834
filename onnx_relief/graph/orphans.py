"""Drop what nothing reads any more, and nothing that was unread before."""

from __future__ import annotations

from onnx_relief.graph.document import Document
from onnx_relief.graph.light import names_read


def drop_orphans(document: Document, before: Document) -> Document:
    """Return a copy without initializers and constants that only the model `before` read."""
    document = document.copy()
    graph = document.proto.graph
    lost = names_read(before.proto.graph) - names_read(graph)
    for tensor in [tensor for tensor in graph.initializer if tensor.name in lost]:
        graph.initializer.remove(tensor)
        for value in [value for value in graph.input if value.name == tensor.name]:
            graph.input.remove(value)
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        if node.output[0] in lost:
            graph.node.remove(node)
    return document
