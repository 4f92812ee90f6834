"""All graphs of a model as one: bodies of If, Loop and Scan stand before the node that has them.

Names have to be unique throughout (`onnx_relief.graph.unique_names`), so that a name says which
tensor is meant wherever it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnx_relief.graph.nodes import every_node, subgraphs
from onnx_relief.graph.walk import Model, Scope, TensorHome


@dataclass(frozen=True)
class Use:
    """One place that reads a tensor.

    Attributes:
        node: Index of the node; None for an output of the model. What a body gives is read by the
            node that has the body.
        input: Which of its inputs; -1 for what is given.
    """

    node: int | None
    input: int


@dataclass(frozen=True, eq=False)
class Whole:
    """Every node of a model, and what is known of every name.

    Attributes:
        nodes: The nodes of all graphs; those of a body before the node that has it.
        bodies: The graphs inside a node, by its index.
        producers: The node that makes a tensor.
        held: Names of initializers.
        uses: Who reads a tensor.
        moving: Names of tensors that change with the data.
        homes: The graph that defines a name.
    """

    nodes: Sequence[onnx.NodeProto]
    bodies: Mapping[int, Sequence[onnx.GraphProto]]
    producers: Mapping[str, onnx.NodeProto]
    held: frozenset[str]
    uses: Mapping[str, Sequence[Use]]
    moving: frozenset[str]
    homes: Mapping[str, Scope]

    def home(self, name: str) -> TensorHome:
        """Return where a constant is kept; one that was added since is in the main graph."""
        scope = self.homes.get(name)
        return TensorHome(scope.path if scope else "", name)

    def is_stored(self, name: str) -> bool:
        """Whether a tensor is an initializer or what a Constant node holds."""
        maker = self.producers.get(name)
        return name in self.held or (maker is not None and maker.op_type == "Constant")

    def given_by(self, index: int) -> list[str]:
        """Return what the bodies of a node give."""
        return [value.name for body in self.bodies.get(index, ()) for value in body.output]

    def begun_by(self, index: int) -> list[str]:
        """Return what the bodies of a node are given in every step."""
        return [value.name for body in self.bodies.get(index, ()) for value in body.input]


def whole(model: Model) -> Whole:
    """Return all graphs of a model as one.

    Raises:
        ValueError: A name stands for several tensors (`onnx_relief.graph.unique_names`).
    """
    nodes = every_node(model.proto.graph)
    uses: dict[str, list[Use]] = {}
    bodies: dict[int, list[onnx.GraphProto]] = {}
    for index, node in enumerate(nodes):
        for at, name in enumerate(node.input):
            uses.setdefault(name, []).append(Use(index, at))
        inner = [body for _, body in subgraphs(node)]
        for value in (value for body in inner for value in body.output):
            uses.setdefault(value.name, []).append(Use(index, -1))
        if inner:
            bodies[index] = inner
    for value in model.proto.graph.output:
        uses.setdefault(value.name, []).append(Use(None, -1))
    uses.pop("", None)
    defined = [
        (name, scope)
        for scope in model.scopes
        for name in (*scope.inputs, *scope.producers, *scope.initializers, *scope.sparse)
    ]
    homes: dict[str, Scope] = {}
    for name, scope in defined:
        if homes.setdefault(name, scope) is not scope:
            raise ValueError(f"{name!r} is the name of several tensors")
    return Whole(
        nodes=nodes,
        bodies=bodies,
        producers={name: node for scope in model.scopes for name, node in scope.producers.items()},
        held=frozenset(name for scope in model.scopes for name in scope.initializers),
        uses=uses,
        moving=frozenset(name for scope in model.scopes for name in scope.moving),
        homes=homes,
    )
