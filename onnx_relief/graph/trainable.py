"""Which float constants of a model are weights that training may change.

A file does not say what was a parameter where it came from. What a node multiplies, adds or
normalises data with is one; epsilons, clip bounds, scales of quantisation, running statistics,
position grids and anchors are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnx_relief.graph.builders import BUILDERS
from onnx_relief.graph.equation import product_of, terms_of
from onnx_relief.graph.lift import ROUNDED, Lifted
from onnx_relief.graph.nodes import STANDARD, attributes, subgraphs
from onnx_relief.graph.walk import Scope, Use

# What a node learns, by operator: the inputs that hold it.
_LEARNED: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Einsum": (0, 1, 2, 3),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
    "Gather": (0,),
    "GatherElements": (0,),
}
# Elementwise operators: after a layer, a vector with one entry per channel is a bias or a scale.
# Before the first layer it is the mean or the deviation that inputs are normalised by.
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")
# What a weight may pass through on its way to the node that learns it.
_PASSING = frozenset(
    (
        *("Identity", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"),
        *("Concat", "Slice", "Split", "Expand", "Tile", "Neg", "Mul"),
    )
)


def trainable_names(lifted: Lifted) -> tuple[str, ...]:
    """Return the names of the lifted initializers that are weights, in the order of the file."""
    main = lifted.model.scopes[0]
    bodies = {id(scope.owner): scope for scope in lifted.model.scopes if scope.owner is not None}
    graph = _Graph(_channel_counts(lifted), _names_after_layers(lifted), bodies)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in lifted.proto.graph.initializer}
    return tuple(name for name in lifted.names if graph.learns(main, name, sizes[name]))


@dataclass(frozen=True)
class _Graph:
    """What has to be known of the whole model to judge one constant.

    Attributes:
        widths: Sizes of the axes of layers' weights, several where an Einsum makes several.
        after_layers: Tensors that some layer has a part in.
        bodies: Of loops, by the identity of the node; of an If the last one.
    """

    widths: set[tuple[int, ...]]
    after_layers: set[str]
    bodies: Mapping[int, Scope]

    def learns(self, scope: Scope, name: str, shape: tuple[int, ...]) -> bool:
        """Whether something that reads the constant, perhaps through other operators, learns it."""
        uses = [(use, use.node) for use in scope.uses.get(name, ()) if use.node is not None]
        if any(_is_scale(use, node) for use, node in uses):
            return False
        return any(self._use_learns(use, node, shape) for use, node in uses)

    def _use_learns(self, use: Use, node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
        if _is_rounded(node):
            return self._leads_to_learning(use, node, shape)
        if node.domain not in (*STANDARD, "com.microsoft"):
            return False
        if use.index in _LEARNED.get(node.op_type, ()):
            return True
        if node.op_type in ("Loop", "Scan"):
            return self._body_learns(use, self.bodies[id(node)], shape)
        if any(map(use.scope.changes, node.input)):
            after = not self.after_layers.isdisjoint(node.input)
            return after and node.op_type in _ELEMENTWISE and self._is_per_channel(shape)
        if node.op_type not in _PASSING:
            return False
        return self._leads_to_learning(use, node, shape)

    def _body_learns(self, use: Use, body: Scope, shape: tuple[int, ...]) -> bool:
        """Whether the body learns what the loop hands to it in every step."""
        inputs = ((value.name, body.handed(value.name)) for value in body.graph.input)
        return any(
            handed is not None and handed.place == use.index and self.learns(body, name, shape)
            for name, handed in inputs
        )

    def _leads_to_learning(self, use: Use, node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
        return any(self.learns(use.scope, output, shape) for output in node.output if output)

    def _is_per_channel(self, shape: tuple[int, ...]) -> bool:
        return tuple(size for size in shape if size != 1) in self.widths


def _is_scale(use: Use, node: onnx.NodeProto) -> bool:
    """Whether what integers stand for depends on it: they are written back with the old one."""
    return _is_rounded(node) and use.index > 0


def _is_rounded(node: onnx.NodeProto) -> bool:
    return (node.domain, node.op_type) == ROUNDED


def _names_after_layers(lifted: Lifted) -> set[str]:
    """Return the names of tensors that a layer has a part in; bodies count by their node."""
    found: set[str] = set()
    for scope in lifted.model.scopes:
        for node in scope.graph.node:
            inside = any(True for _ in subgraphs(node))
            if inside or node.op_type in BUILDERS or not found.isdisjoint(node.input):
                found.update(node.output)
    return found


def _channel_counts(lifted: Lifted) -> set[tuple[int, ...]]:
    """Return how wide the tensors between layers are, as their weights tell."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in lifted.proto.graph.initializer}
    for scope in lifted.model.scopes:
        for node in scope.graph.node:
            if _is_rounded(node):
                sizes[node.output[0]] = sizes[node.input[0]]
    found: set[tuple[int, ...]] = set()
    for scope in lifted.model.scopes:
        for node in scope.graph.node:
            found |= _widths_of(node, [sizes.get(name) for name in node.input])
    return found


def _widths_of(node: onnx.NodeProto, shapes: list[tuple[int, ...] | None]) -> set[tuple[int, ...]]:
    weights = [shapes[i] for i in _LEARNED.get(node.op_type, ()) if i < len(shapes)]
    if node.op_type not in BUILDERS:
        return set()
    found: set[tuple[int, ...]] = {(size,) for shape in weights if shape for size in shape}
    return found | _joined_units(node, shapes) if node.op_type == "Einsum" else found


def _joined_units(
    node: onnx.NodeProto, shapes: list[tuple[int, ...] | None]
) -> set[tuple[int, ...]]:
    """Return the sizes of the axes that the units of an Einsum lie on, but those of length 1."""
    terms, out = terms_of(str(attributes(node)["equation"]))
    found = set()
    for weight, shape in enumerate(shapes[:2]):
        product = product_of(terms[1 - weight], terms[weight], out) if len(terms) == 2 else ""
        if shape is not None and not isinstance(product, str):
            found.add(tuple(shape[axis] for axis in product.units if shape[axis] != 1))
    return found - {()}
