"""Into onnx-graphsurgeon and out again, for the throw-away graph, without its losses.

It drops sparse initializers and attributes of rare types, cannot read optional types, and prints
about it. Results are never written through it: see `onnx_relief.graph.writing`.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.logger import G_LOGGER

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.light import names_read, without_weights
from onnx_relief.graph.nodes import subgraphs
from onnx_relief.graph.storage import read_sparse

_DROPPED = (
    onnx.AttributeProto.SPARSE_TENSOR,
    onnx.AttributeProto.TYPE_PROTO,
    onnx.AttributeProto.TENSORS,
)


def to_surgeon(survey: Survey) -> tuple[gs.Graph, dict[str, NDArray[Any]]]:
    """Return the model as a graphsurgeon graph, and the large weights that are not in it."""
    light = without_weights(survey.model.proto)
    _make_readable(light.proto, survey)
    with G_LOGGER.suppress():
        return gs.import_onnx(light.proto), light.weights


def from_surgeon(graph: gs.Graph, original: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model that `graph`, an edited copy of `original`, describes, less idle nodes."""
    with G_LOGGER.suppress():
        proto: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
    known = {value.name: value for value in original.graph.input}
    for value in proto.graph.input:
        value.CopyFrom(known[value.name])
    _restore_attributes(proto.graph, original.graph)
    _drop_idle_nodes(proto.graph)
    # Bodies may hold initializers of their own only since IR version 4.
    proto.ir_version = max(4, original.ir_version)
    return proto


def _make_readable(dense: onnx.ModelProto, survey: Survey) -> None:
    """Do without sparse initializers and without the types that cannot be read."""
    waiting = [dense.graph]
    while waiting:
        graph = waiting.pop()
        for sparse in graph.sparse_initializer:
            values = read_sparse(survey.document, sparse)
            graph.initializer.append(onnx.numpy_helper.from_array(values, sparse.values.name))
        del graph.sparse_initializer[:]
        for value in _optionals(graph):
            value.ClearField("type")
        waiting += [body for node in graph.node for _, body in subgraphs(node)]


def _optionals(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    values = (*graph.input, *graph.output, *graph.value_info)
    return [value for value in values if value.type.HasField("optional_type")]


def _restore_attributes(graph: onnx.GraphProto, original: onnx.GraphProto) -> None:
    known = {name: node for node in original.node for name in node.output if name}
    for node in graph.node:
        before = next((known[name] for name in node.output if name in known), None)
        if before is not None:
            node.attribute.extend(a for a in before.attribute if a.type in _DROPPED)
            bodies = dict(subgraphs(before))
            for attribute, body in subgraphs(node):
                _restore_attributes(body, bodies[attribute])


def _drop_idle_nodes(graph: onnx.GraphProto) -> None:
    """Drop the nodes that no output depends on: the runtime would run them all the same."""
    wanted = {value.name for value in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if wanted.intersection(node.output):
            wanted.update(node.input)
            for _, body in subgraphs(node):
                wanted |= names_read(body)
        else:
            del graph.node[index]
