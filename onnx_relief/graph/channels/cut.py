"""Cut groups of channels out of a graph: constants get shorter, shapes and counts follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_relief.graph.channels.ids import STAYS, Groups, Ids, varying
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.document import Document
from onnx_relief.graph.initializers import add_initializer
from onnx_relief.graph.nodes import every_graph, every_node
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import Holder, TensorHome, constants_by_home

Array = NDArray[Any]


@dataclass(eq=False)
class Left:
    """What is left of every tensor, and how nodes ask for other constants.

    Attributes:
        trace: The ids.
        groups: Which belong together.
        gone: Whether a group goes, by its root.
        graph: The copy that is being changed.
        nodes: All nodes of it, in bodies too.
        given: Names of the constants that were made for one node.
        taken: Names that are in use, in bodies too.
    """

    trace: Trace
    groups: Groups
    gone: NDArray[np.bool_]
    graph: onnx.GraphProto
    nodes: Sequence[onnx.NodeProto]
    given: set[str] = field(default_factory=set)
    taken: frozenset[str] = frozenset()

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

    def current(self, name: str, before: str) -> Array:
        """Return the numbers that a node reads by now, for which it read `before` once."""
        if name in self.given:
            held = next(tensor for tensor in self.graph.initializer if tensor.name == name)
            return np.array(numpy_helper.to_array(held))
        return np.array(self.trace.values(before))

    def give(self, node: onnx.NodeProto, index: int, array: Array) -> None:
        """Let a node read another constant at an input; who else read the old one keeps that."""
        own = {tensor.name: tensor for tensor in self.graph.initializer}
        if node.input[index] in self.given:
            own[node.input[index]].CopyFrom(numpy_helper.from_array(array, node.input[index]))
            return
        base = node.input[index] or f"{node.output[0]}_{index}"
        name, number = f"{base}_cut", 1
        while name in own or name in self.taken:
            number += 1
            name = f"{base}_cut{number}"
        add_initializer(self.graph, array, name)
        self.given.add(name)
        node.input[index] = name

    def tell_axes(self, node: onnx.NodeProto, axes: Sequence[int]) -> None:
        """Let a Squeeze that is not told its axes take these."""
        if self.trace.opset < 13:
            set_attribute(node, "axes", list(axes))
            return
        if len(node.input) < 2:
            node.input.append("")
        self.give(node, 1, np.array(axes, np.int64))


def cut(document: Document, trace: Trace, groups: Groups, gone: NDArray[np.bool_]) -> Document:
    """Return a copy of the document without the groups that go.

    Args:
        document: The model that was traced; it is not changed.
        trace: Its ids.
        groups: Which belong together.
        gone: Whether a group goes, by its root; never True for 0. Where a tensor would lose all of
            its channels, one stays.
    """
    gone = leave_one(trace, groups, gone)
    constants = Constants(document)
    document = document.copy()
    graph = document.proto.graph
    nodes = every_node(graph)
    left = Left(trace, groups, gone, graph, nodes, taken=frozenset(_names(graph)))
    holders = constants_by_home(document.proto)
    shorter: dict[str, dict[int, NDArray[np.int64]]] = {}
    for member in trace.members:
        stays = left.stays(member.ids)
        if not stays.all():
            shorter.setdefault(member.constant, {})[member.axis] = np.flatnonzero(stays)
    for name, axes in shorter.items():
        home = trace.whole.home(name)
        _store(holders[home], name, _taken(np.asarray(constants.stored(home)), axes))
    here = _shorten_even(left, constants, holders)
    for fix in trace.fixes:
        fix.apply(nodes[fix.node], left)
    _correct_shapes(graph, left, here)
    # What was cut holds its own numbers now, and nothing in a data file.
    return replace(document, lean=True) if shorter else document


def _shorten_even(
    left: Left, constants: Constants, holders: Mapping[TensorHome, Holder]
) -> dict[str, tuple[int, ...]]:
    """Let each node that reads a vector of one number read as many of it as are left there.

    Where all of them read the same, that is where the vector is kept; else they are given their
    own. The shared bias of a layer that is applied several times may have been corrected, so that
    its numbers differ by now.

    Returns:
        The new shapes of those that stay where they are.
    """
    trace, here = left.trace, {}
    kept: dict[str, dict[int, dict[int, NDArray[np.int64]]]] = {}
    for name, reader, axes in trace.apart:
        found = {axis: np.flatnonzero(left.stays(ids)) for axis, ids in axes.items()}
        kept.setdefault(name, {}).setdefault(reader, {}).update(found)
    for name, wanted in kept.items():
        before = np.asarray(constants.stored(trace.whole.home(name)))
        fewer = {at: _taken(before, axes) for at, axes in wanted.items()}
        first, users = next(iter(fewer.values())), {use.node for use in trace.whole.uses[name]}
        if users <= fewer.keys() and all(np.array_equal(one, first) for one in fewer.values()):
            if first.shape != before.shape:
                _store(holders[trace.whole.home(name)], name, first)
                here[name] = first.shape
            continue
        for reader, array in fewer.items():
            node = left.nodes[reader]
            places = [at for at, read in enumerate(node.input) if read == name]
            for at in places if array.shape != before.shape else ():
                left.give(node, at, array)
    return here


def _taken(array: Array, axes: Mapping[int, NDArray[np.int64]]) -> Array:
    for axis, places in axes.items():
        array = np.take(array, places, axis=axis)
    return array


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Give an attribute another value; where it has that value already, nothing changes."""
    wanted = helper.make_attribute(name, value)
    held = next((a for a in node.attribute if a.name == name), None)
    if held is None:
        node.attribute.append(wanted)
    elif helper.get_attribute_value(held) != value:
        held.CopyFrom(wanted)


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


def leave_one(trace: Trace, groups: Groups, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what goes without the first group of everything that would lose all channels.

    An axis of size 0 is no model. Arguments as `cut`.
    """
    gone = gone.copy()
    gone[STAYS] = False
    members, reads = ([one.ids for one in trace.members], [one.ids for one in trace.reads])
    for ids in (*trace.ids.values(), *members, *reads):
        roots = groups.of(ids.reshape(-1))
        if roots.size and gone[roots].all():
            gone[roots[0]] = False
    return gone


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield all names of tensors in a graph and the bodies in it."""
    for one in every_graph(graph):
        yield from (value.name for value in (*one.input, *one.output, *one.initializer))
        for node in one.node:
            yield from (*node.input, *node.output)


def _correct_shapes(
    graph: onnx.GraphProto, left: Left, known: Mapping[str, tuple[int, ...]]
) -> None:
    """Write new sizes where the graph says what its tensors look like; some shapes are known."""
    sizes = {name: dict(enumerate(shape)) for name, shape in known.items()}
    for name, ids in left.trace.ids.items():
        if left.changed(name):
            sizes[name] = {axis: left.size(name, axis) for axis in varying(ids)}
    for name, _, axes in left.trace.taken:  # constants, and what they pass through
        for axis, ids in axes.items():
            sizes.setdefault(name, {})[axis] = int(left.stays(ids).sum())
    told = [
        value for one in every_graph(graph) for value in (*one.value_info, *one.input, *one.output)
    ]
    for value in told:  # inputs and outputs of the main graph have no channels that go
        dims = value.type.tensor_type.shape.dim
        for axis, size in sizes.get(value.name, {}).items():
            if axis < len(dims) and dims[axis].HasField("dim_value"):
                dims[axis].dim_value = size
