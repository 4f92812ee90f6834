"""Cut groups of channels out of a graph: constants get shorter, shapes and counts follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_relief.graph.channels.ids import Groups, Ids, varying
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.document import Document
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import TensorHome, constants_by_home

Array = NDArray[Any]


@dataclass(eq=False)
class Left:
    """What is left of every tensor, and how nodes ask for other constants.

    Attributes:
        trace: The ids.
        groups: Which belong together.
        gone: Whether a group goes, by its root.
        graph: The copy that is being changed.
        given: Names of the constants that were made for one node.
    """

    trace: Trace
    groups: Groups
    gone: NDArray[np.bool_]
    graph: onnx.GraphProto
    given: set[str] = field(default_factory=set)

    def stays(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which ids stay."""
        return ~self.gone[self.groups.of(ids)]

    def kept(self, name: str, axis: int) -> NDArray[np.int64]:
        """Return the places along an axis of a tensor that stay."""
        ids, size = self.trace.of(name), self.trace.shape(name)[axis]
        if axis not in varying(ids):
            return np.arange(size)
        return np.flatnonzero(self.stays(np.broadcast_to(ids.reshape(-1), (size,))))

    def size(self, name: str, axis: int) -> int:
        """Return the new size of an axis of a tensor."""
        return len(self.kept(name, axis))

    def changed(self, name: str) -> bool:
        """Whether a tensor lost anything."""
        ids = self.trace.of(name)
        return bool(name) and not bool(self.stays(ids).all())

    def give(self, node: onnx.NodeProto, index: int, array: Array) -> None:
        """Let a node read another constant at an input; who else read the old one keeps that."""
        own = {tensor.name: tensor for tensor in self.graph.initializer}
        if node.input[index] in self.given:
            own[node.input[index]].CopyFrom(numpy_helper.from_array(array, node.input[index]))
            return
        base = node.input[index] or f"{node.output[0]}_{index}"
        name, number = f"{base}_cut", 1
        while name in own or name in self.trace.observed.shapes:
            number += 1
            name = f"{base}_cut{number}"
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        self.given.add(name)
        node.input[index] = name


def cut(document: Document, trace: Trace, groups: Groups, gone: NDArray[np.bool_]) -> Document:
    """Return a copy of the document without the groups that go.

    Args:
        document: The model that was traced; it is not changed.
        trace: Its ids.
        groups: Which belong together.
        gone: Whether a group goes, by its root; never True for 0.
    """
    constants = Constants(document)
    document = document.copy()
    graph = document.proto.graph
    left = Left(trace, groups, gone, graph)
    holders = constants_by_home(document.proto)
    shorter: dict[str, dict[int, NDArray[np.int64]]] = {}
    for member in trace.members:
        stays = left.stays(member.ids)
        if not stays.all():
            shorter.setdefault(member.constant, {})[member.axis] = np.flatnonzero(stays)
    for name, axes in shorter.items():
        home = TensorHome("", name)
        array = np.asarray(constants.stored(home))
        for axis, kept in axes.items():
            array = np.take(array, kept, axis=axis)
        _store(holders[home], name, array)
    nodes = list(graph.node)
    for fix in trace.fixes:
        fix.apply(nodes[fix.node], left)
    _correct_shapes(graph, left)
    return document


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Give an attribute another value."""
    for attribute in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute(name, value))


def _store(holder: Any, name: str, array: Array) -> None:  # noqa: ANN401 - a tensor or a node
    tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
    if isinstance(holder, onnx.TensorProto):
        tensor.doc_string = holder.doc_string
        tensor.metadata_props.extend(holder.metadata_props)
        holder.CopyFrom(tensor)
    else:
        tensor.name = ""
        del holder.attribute[:]
        holder.attribute.append(helper.make_attribute("value", tensor))


def _correct_shapes(graph: onnx.GraphProto, left: Left) -> None:
    """Write new sizes where the graph says what its tensors look like."""
    for value in (*graph.value_info, *graph.input):
        name = value.name
        if name not in left.trace.ids or not left.changed(name):
            continue
        dims = value.type.tensor_type.shape.dim
        for axis in varying(left.trace.ids[name]):
            if axis < len(dims) and dims[axis].HasField("dim_value"):
                dims[axis].dim_value = left.size(name, axis)
    inputs = {value.name for value in graph.input}
    lengths = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in graph.input:  # before IR version 4 initializers are inputs, too
        if value.name in lengths and value.name in inputs:
            for axis, size in enumerate(lengths[value.name]):
                value.type.tensor_type.shape.dim[axis].dim_value = size


Apply = Callable[[onnx.NodeProto, Left], None]
