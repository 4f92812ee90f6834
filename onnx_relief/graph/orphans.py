"""Drop what nothing reads any more, and nothing that was unread before."""

from __future__ import annotations

from onnx_relief.graph.document import Document
from onnx_relief.graph.light import names_read


def drop_orphans(document: Document, before: Document) -> Document:
    """Return a copy without what only the model `before` read, and without new unread constants.

    Nodes, initializers and what is said of their tensors go, again and again, until everything is
    read that was read before.
    """
    document = document.copy()
    graph = document.proto.graph
    once_read = names_read(before.proto.graph)
    old = {tensor.name for tensor in before.proto.graph.initializer}
    while True:
        read = names_read(graph)
        new = {tensor.name for tensor in graph.initializer} - old
        lost = (once_read | new) - read
        if not lost:
            return document
        gone = [
            node
            for node in graph.node
            if lost.intersection(node.output) and not read.intersection(node.output)
        ]
        for node in gone:
            graph.node.remove(node)
        for tensor in [tensor for tensor in graph.initializer if tensor.name in lost]:
            graph.initializer.remove(tensor)
            for value in [value for value in graph.input if value.name == tensor.name]:
                graph.input.remove(value)  # before IR version 4 it was there for the initializer
        for sparse in [one for one in graph.sparse_initializer if one.values.name in lost]:
            graph.sparse_initializer.remove(sparse)
        _drop_said(document, lost)
        if not gone:
            return document


def _drop_said(document: Document, lost: set[str]) -> None:
    """Drop what is said of tensors that are no more."""
    graph = document.proto.graph
    made = {name for node in graph.node for name in node.output}
    for value in [value for value in graph.value_info if value.name in lost - made]:
        graph.value_info.remove(value)
    for note in [one for one in graph.quantization_annotation if one.tensor_name in lost - made]:
        graph.quantization_annotation.remove(note)
