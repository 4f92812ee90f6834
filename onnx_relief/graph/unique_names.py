"""Give the tensors of a model names that are unique throughout, and give the old ones back.

In ONNX the bodies of two nodes may use the same names for different tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from onnx_relief.graph.document import Document
from onnx_relief.graph.nodes import subgraphs

Names = Mapping[str, str]


def with_unique_names(document: Document) -> tuple[Document, Names]:
    """Return the document with names that stand for one tensor each, and the old ones by new.

    Where they are unique already it is the same document.
    """
    every = list(_defined_throughout(document.proto.graph))
    if len(every) == len(set(every)):
        return document, {}
    document = document.copy()
    taken = set(every)
    seen: set[str] = set()
    old_names: dict[str, str] = {}

    def fresh(name: str) -> str:
        number = 2
        while f"{name}_{number}" in taken:
            number += 1
        taken.add(f"{name}_{number}")
        old_names[f"{name}_{number}"] = name
        return f"{name}_{number}"

    def visit(graph: onnx.GraphProto, around: Names) -> None:
        names = dict(around)
        for name in _defined(graph):
            names[name] = fresh(name) if name in seen else name
            seen.add(name)
        _rename(graph, names)
        for node in graph.node:
            for _, body in subgraphs(node):
                visit(body, names)

    visit(document.proto.graph, {})
    return document, old_names


def with_old_names(document: Document, names: Names) -> Document:
    """Return the document with the names that `with_unique_names` has put aside."""
    if not names:
        return document
    document = document.copy()
    waiting = [document.proto.graph]
    for graph in waiting:
        _rename(graph, names)
        waiting += [body for node in graph.node for _, body in subgraphs(node)]
    return document


def _defined_throughout(graph: onnx.GraphProto) -> Iterator[str]:
    yield from _defined(graph)
    for node in graph.node:
        for _, body in subgraphs(node):
            yield from _defined_throughout(body)


def _defined(graph: onnx.GraphProto) -> set[str]:
    """Return the names that one graph defines: its inputs, constants and results."""
    names = {name for node in graph.node for name in node.output if name}
    names.update(value.name for value in graph.input)
    names.update(tensor.name for tensor in graph.initializer)
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    return names


def _rename(graph: onnx.GraphProto, names: Names) -> None:
    """Write other names into one graph; bodies in it stay."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for note in graph.quantization_annotation:
        note.tensor_name = names.get(note.tensor_name, note.tensor_name)
    for node in graph.node:
        for places in (node.input, node.output):
            for at, name in enumerate(places):
                places[at] = names.get(name, name)
