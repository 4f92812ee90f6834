"""A throw-away copy of a model for converters: every float constant is a named initializer on top.

Converters know initializers of the main graph best, rename what they do not like, and forget where
a constant came from. So what Constant nodes, bodies of If, Loop and Scan, local functions, sparse
tensors and data files hold becomes initializers of the main graph, under names that are Python
identifiers, and each remembers its home. fp16 and bf16 become fp32: the copy is for training,
which needs the room.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnx_relief.graph.document import Document, copy_of
from onnx_relief.graph.external import bodies
from onnx_relief.graph.light import node_reads
from onnx_relief.graph.quantised import Seen, dequantised, limits
from onnx_relief.graph.views import FLOATS, Constants
from onnx_relief.graph.walk import Model, Scope, TensorHome, home_of, understand

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Attributes that hold an element type.
_TYPE_ATTRIBUTES = frozenset(("to", "dtype", "output_dtype", "stash_type"))
_HOLDS_CONSTANTS = ("Constant", "ConstantOfShape")

ROUNDED = ("onnx_relief", "Rounded")
"""Domain and name of a node that gives what integers from `low` to `high` stand for, the nearest to
its first input; its other inputs and attributes are those of DequantizeLinear."""


@dataclass(frozen=True, eq=False)
class Lifted:
    """A copy of a model whose float constants are initializers of its main graph.

    Attributes:
        model: The copy, functions expanded.
        names: Where each of the lifted initializers lives in the user's file.
    """

    model: Model
    names: Mapping[str, TensorHome]

    @property
    def proto(self) -> onnx.ModelProto:
        """The copy as a proto."""
        return self.model.proto


def lift_constants(
    document: Document, reserved: Collection[str] = (), *, rounding: bool = False
) -> Lifted:
    """Return a copy of `document` whose float constants are initializers of the main graph.

    Outputs that are no floats are left out, where there are others. A constant of a function that
    is called twice becomes one initializer; ConstantOfShape counts where its shape is constant.
    What DequantizeLinear makes of stored integers counts, too, in their shape and under their home.

    Args:
        document: The model; it is not changed.
        reserved: Names that an initializer must not get.
        rounding: Whether to leave nodes `ROUNDED` where such integers were, so that whatever the
            initializers become, nodes see what the file could store. They are no operator of ONNX.

    Raises:
        ModelError: A constant's data does not fit its type and shape.
    """
    constants = Constants(document)
    model = understand(copy_of(document.proto))
    taken = {*reserved, *(name for scope in model.scopes for name in _names(scope))}
    names: dict[TensorHome, str] = {}
    arrays: dict[str, NDArray[np.generic]] = {}
    integers = chain.from_iterable(dequantised(constants, model).values())
    for scope, name, view in chain(integers, _floats(constants, model)):
        if view.home not in names:
            names[view.home] = _identifier(view.home, taken)
            arrays[names[view.home]] = constants.values(view)
        new = names[view.home]
        if rounding and view.quantised and not _are_statistics(scope, name):
            _round(scope.producers[name], new, *limits(constants, view))
        else:
            _redirect(scope, name, new)
            _drop(scope, name)
    _keep_float_outputs(model.proto.graph)
    _widen(model.proto)
    if rounding:
        model.proto.opset_import.add(domain=ROUNDED[0], version=1)
    for name, value in arrays.items():
        wide = value.astype(np.float32) if value.dtype.itemsize < 4 else value
        model.proto.graph.initializer.append(numpy_helper.from_array(np.array(wide), name))
    homes = {name: home for home, name in names.items()}
    return Lifted(understand(model.proto), homes)


def _floats(constants: Constants, model: Model) -> Iterator[Seen]:
    """Yield the float constants; integers that lie elsewhere are loaded into the copy."""
    for scope in model.scopes:
        for name in list(_held_names(scope)):
            view = constants.resolve(scope, name)
            if isinstance(view, str) or view.dtype.name not in FLOATS:
                _load_in_place(constants, scope, name)
            else:
                yield scope, name, view


def _keep_float_outputs(graph: onnx.GraphProto) -> None:
    """Leave out outputs that nothing can be learned from, and the nodes that only they need.

    Converters lack the operators that turn probabilities into labels, maps and texts.
    """
    floats = [value for value in graph.output if _is_float(value.type)]
    if not floats or len(floats) == len(graph.output):
        return
    del graph.output[:]
    graph.output.extend(floats)
    needed = {value.name for value in floats}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node_reads(node))
    unused = [node for node in graph.node if not needed.intersection(node.output)]
    for node in unused:
        graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)  # names of classes among them, which torch does not know


def _is_float(kind: onnx.TypeProto) -> bool:
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, *_NARROW)
    return kind.HasField("tensor_type") and kind.tensor_type.elem_type in floats


def _names(scope: Scope) -> Iterator[str]:
    yield from scope.producers
    yield from scope.initializers
    yield from scope.sparse
    yield from scope.inputs


def _held_names(scope: Scope) -> Iterator[str]:
    yield from scope.initializers
    yield from scope.sparse
    for name, node in scope.producers.items():
        if node.op_type in _HOLDS_CONSTANTS and node.domain in ("", "ai.onnx"):
            yield name


def _load_in_place(constants: Constants, scope: Scope, name: str) -> None:
    """Put the data of an integer constant that lies elsewhere, or is sparse, into the copy."""
    tensor = scope.initializers.get(name)
    if tensor is not None and tensor.data_location == TensorProto.EXTERNAL:
        tensor.CopyFrom(
            numpy_helper.from_array(np.array(constants.stored(home_of(scope, name))), name)
        )
    if name in scope.sparse:
        dense = numpy_helper.from_array(np.array(constants.stored(home_of(scope, name))), name)
        _drop(scope, name)
        scope.graph.initializer.append(dense)


def _identifier(home: TensorHome, taken: set[str]) -> str:
    """Return a Python identifier for a constant that no other tensor has; it is taken then."""
    plain = re.sub(r"\W+", "_", str(home), flags=re.ASCII).strip("_") or "constant"
    plain = f"w_{plain}" if plain[0].isdigit() else plain
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain}_{number}"
    taken.add(name)
    return name


def _redirect(scope: Scope, name: str, new: str) -> None:
    """Let everything that reads the constant read the initializer instead."""
    for use in scope.uses.get(name, ()):
        if use.node is not None:
            use.node.input[use.index] = new
        else:  # an output of the graph has to keep its name
            use.scope.graph.node.append(helper.make_node("Identity", [new], [name]))


def _are_statistics(scope: Scope, name: str) -> bool:
    """Whether only BatchNormalization reads the constant, as its running mean or variance."""
    uses = scope.uses.get(name, ())
    return all(
        use.node is not None and use.node.op_type == "BatchNormalization" and use.index > 2
        for use in uses
    )


def _round(node: onnx.NodeProto, new: str, low: int, high: int) -> None:
    """Turn a DequantizeLinear of integers into a `ROUNDED` of the floats that these stand for."""
    node.domain, node.op_type = ROUNDED
    node.input[0] = new
    node.attribute.extend([helper.make_attribute("low", low), helper.make_attribute("high", high)])


def _drop(scope: Scope, name: str) -> None:
    graph = scope.graph
    if name in scope.initializers:
        graph.initializer.remove(scope.initializers[name])
        for value in [value for value in graph.input if value.name == name]:
            graph.input.remove(value)
    elif name in scope.sparse:
        graph.sparse_initializer.remove(scope.sparse[name])
    else:
        graph.node.remove(scope.producers[name])


def _widen(proto: onnx.ModelProto) -> None:
    """Turn every fp16 and bf16 of the copy into fp32."""
    for body in bodies(proto):
        assert isinstance(body, onnx.GraphProto)  # functions are expanded
        for value in (*body.input, *body.output, *body.value_info):
            _widen_type(value.type)
        for node in body.node:
            for attribute in node.attribute:
                _widen_attribute(attribute)


def _widen_type(kind: onnx.TypeProto) -> None:
    for field in ("optional_type", "sequence_type"):
        if kind.HasField(field):
            _widen_type(getattr(kind, field).elem_type)
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type in _NARROW:
        kind.tensor_type.elem_type = TensorProto.FLOAT


def _widen_attribute(attribute: AttributeProto) -> None:
    if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _NARROW:
        attribute.i = TensorProto.FLOAT
    if attribute.HasField("t") and attribute.t.data_type in _NARROW:
        wide = numpy_helper.to_array(attribute.t).astype(np.float32)
        attribute.t.CopyFrom(numpy_helper.from_array(wide, attribute.t.name))
