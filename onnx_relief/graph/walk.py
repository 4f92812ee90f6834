"""Every graph of a model, bodies of If, Loop and Scan too, and who defines and reads what in it.

Local functions are expanded first, in a copy: a layer inside a function is found once per call, and
the constants of the function body remember where they live in the user's file.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx
from onnx import inliner

from onnx_relief.graph.handed import Handed, handed_by
from onnx_relief.graph.light import without_weights
from onnx_relief.graph.nodes import STANDARD, subgraphs
from onnx_relief.plan import TOGETHER

_HOME_KEY = "onnx_relief.home"

Holder = onnx.TensorProto | onnx.SparseTensorProto | onnx.NodeProto
"""What can hold a constant; a node is a Constant or a ConstantOfShape."""

Place = tuple[str, str]
"""A tensor of the expanded model: path of the graph that defines it, and its name there."""


@dataclass(frozen=True)
class TensorHome:
    """Where a constant lives in the user's file.

    Attributes:
        graph: Path of the graph: empty for the main one, `output.attribute` steps for bodies, and
            `domain::function` for the constants of a local function.
        name: Name of the initializer, or of the Constant node's output.
    """

    graph: str
    name: str

    def __str__(self) -> str:
        return f"{self.graph}/{self.name}" if self.graph else self.name


@dataclass(frozen=True)
class JoinedHome(TensorHome):
    """Constants that the graph puts together, taken for one: their elements, one after the other.

    Attributes:
        parts: Where they live.
    """

    parts: tuple[TensorHome, ...] = ()

    def __str__(self) -> str:
        return TOGETHER.join(map(str, self.parts))


def parts_of(home: TensorHome) -> tuple[TensorHome, ...]:
    """Return where what is taken for one constant lives in the user's file."""
    return home.parts if isinstance(home, JoinedHome) else (home,)


@dataclass(frozen=True, eq=False)
class Use:
    """One place that reads a tensor: input `index` of `node`, or an output of the graph (None).

    It lives as long as the model. Scopes hold uses; if these held scopes in turn, every model that
    was looked at would stay in memory until Python searched for cycles (a gigabyte while MiniLM is
    repaired layer by layer).
    """

    held: weakref.ref[Scope]
    node: onnx.NodeProto | None
    index: int

    @property
    def scope(self) -> Scope:
        """The graph of the node, or whose output it is."""
        scope = self.held()
        if scope is None:
            raise ReferenceError("the model of this use is gone")
        return scope

    def __reduce__(self) -> tuple[Callable[..., Use], tuple[object, ...]]:
        """Travel to other processes with the scope, which goes there, too."""
        return _use, (self.scope, self.node, self.index)


def _use(scope: Scope, node: onnx.NodeProto | None, index: int) -> Use:
    return Use(weakref.ref(scope), node, index)


@dataclass(frozen=True, eq=False)
class Scope:
    """One graph and what can be seen from it; names not defined here belong to `parent`.

    Attributes:
        path: How to get there: empty for the main graph, `output.attribute` steps for bodies.
        graph: The graph.
        parent: The graph around a body.
        owner: The node that has the body.
        producers: The node that makes a tensor, by name.
        initializers: What it holds, by name.
        sparse: What it holds in sparse form, by name.
        inputs: Names of its inputs, those that have a default too.
        uses: Who reads its tensors, inside bodies too, by name.
        moving: Names of its tensors that change with the data (or may, if a body makes them).
    """

    path: str
    graph: onnx.GraphProto
    parent: Scope | None
    owner: onnx.NodeProto | None
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    sparse: dict[str, onnx.SparseTensorProto] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()
    uses: dict[str, list[Use]] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)

    def definer(self, name: str) -> Scope | None:
        """Return the scope that defines the tensor `name`, looking outwards; None if none does."""
        scope: Scope | None = self
        while scope is not None:
            if (
                name in scope.producers
                or name in scope.initializers
                or name in scope.sparse
                or name in scope.inputs
            ):
                return scope
            scope = scope.parent
        return None

    def changes(self, name: str) -> bool:
        """Whether the tensor that is seen from here as `name` changes with the data."""
        definer = self.definer(name) if name else None
        return definer is not None and name in definer.moving

    def handed(self, name: str) -> Handed | None:
        """Return how an input of this body is the same tensor of the graph around in every step."""
        if self.owner is None or name not in self.inputs:
            return None
        return handed_by(self.owner, self.graph, self.producers, name)


@dataclass(frozen=True, eq=False)
class Model:
    """A model with its functions expanded, ready to be asked who makes and who reads a tensor.

    Attributes:
        proto: The model.
        scopes: All its graphs, the main one first.
        places: Every tensor that a constant is read as: one, or one per call of its function.
    """

    proto: onnx.ModelProto
    scopes: tuple[Scope, ...]
    places: Mapping[TensorHome, tuple[Place, ...]]

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next(
            (entry.version for entry in self.proto.opset_import if entry.domain in STANDARD),
            1,
        )

    @cached_property
    def shapes(self) -> Mapping[Place, tuple[int | str, ...]]:
        """Sizes of tensors, as far as shape inference tells: numbers, names, or empty names.

        Empty where shapes cannot be inferred: what needs one then says that it is not known.
        """
        try:
            known = onnx.shape_inference.infer_shapes(without_weights(self.proto).proto)
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
            return {}
        return {
            (scope.path, value.name): tuple(
                size.dim_value if size.HasField("dim_value") else size.dim_param
                for size in value.type.tensor_type.shape.dim
            )
            for scope in understand(known).scopes
            for value in (*scope.graph.input, *scope.graph.value_info, *scope.graph.output)
            if value.type.tensor_type.HasField("shape")
        }


def understand(proto: onnx.ModelProto) -> Model:
    """Return the scopes of `proto`, main graph first, with local functions expanded in a copy."""
    expanded = _expand_functions(proto) if proto.functions else proto
    scopes = tuple(_scopes(expanded.graph, "", None, None))
    places: dict[TensorHome, list[Place]] = defaultdict(list)
    for scope in scopes:
        _note_uses(scope)
        _note_moving(scope)
        for name in _held(scope.graph):
            places[home_of(scope, name)].append((scope.path, name))
    return Model(expanded, scopes, {home: tuple(found) for home, found in places.items()})


def home_of(scope: Scope, name: str) -> TensorHome:
    """Return where the constant that `scope` defines as `name` lives in the user's file."""
    holder: Holder | None = scope.producers.get(name) or scope.initializers.get(name)
    if holder is None and name in scope.sparse:
        holder = scope.sparse[name]
    for entry in _notes(holder) if holder is not None else ():
        if entry.key == _HOME_KEY:
            path, _, original = entry.value.rpartition("\n")
            return TensorHome(path, original)
    return TensorHome(scope.path, name)


def constants_by_home(proto: onnx.ModelProto) -> dict[TensorHome, Holder]:
    """Return everything in `proto` that can hold a weight, by home.

    The values are parts of `proto`: changing them changes the model.
    """
    bodies = [(scope.path, scope.graph) for scope in _scopes(proto.graph, "", None, None)]
    for function in proto.functions:
        bodies += _function_bodies(function)
    return {
        TensorHome(path, name): holder
        for path, body in bodies
        for name, holder in _held(body).items()
    }


def _scopes(
    graph: onnx.GraphProto, path: str, parent: Scope | None, owner: onnx.NodeProto | None
) -> Iterator[Scope]:
    scope = Scope(
        path=path,
        graph=graph,
        parent=parent,
        owner=owner,
        producers={name: node for node in graph.node for name in node.output if name},
        initializers={tensor.name: tensor for tensor in graph.initializer},
        sparse={sparse.values.name: sparse for sparse in graph.sparse_initializer},
        inputs=frozenset(value.name for value in graph.input),
    )
    yield scope
    for node in graph.node:
        for attribute, body in subgraphs(node):
            yield from _scopes(body, _body_path(path, node, attribute), scope, node)


def _body_path(path: str, node: onnx.NodeProto, attribute: str) -> str:
    # Output names are unique in a graph, node names need not be.
    step = f"{next((name for name in node.output if name), node.name)}.{attribute}"
    return f"{path}/{step}" if path else step


def _note_uses(scope: Scope) -> None:
    for node in scope.graph.node:
        for index, name in enumerate(node.input):
            definer = scope.definer(name) if name else None
            if definer is not None:
                definer.uses.setdefault(name, []).append(_use(scope, node, index))
    for index, value in enumerate(scope.graph.output):
        definer = scope.definer(value.name)
        if definer is not None:
            definer.uses.setdefault(value.name, []).append(_use(scope, None, index))


def _note_moving(scope: Scope) -> None:
    held = scope.initializers.keys() | scope.sparse.keys()
    for name in scope.inputs - held:
        handed = scope.handed(name)
        if handed is None or scope.parent is None or scope.parent.changes(handed.outside):
            scope.moving.add(name)
    for node in scope.graph.node:
        if any(True for _ in subgraphs(node)) or any(map(scope.changes, node.input)):
            scope.moving.update(name for name in node.output if name)


def _held(body: onnx.GraphProto | onnx.FunctionProto) -> dict[str, Holder]:
    """Return what one graph or function holds itself, by the name that it is read by."""
    found: dict[str, Holder] = {}
    if isinstance(body, onnx.GraphProto):
        found |= {tensor.name: tensor for tensor in body.initializer}
        found |= {sparse.values.name: sparse for sparse in body.sparse_initializer}
    for node in body.node:
        if node.op_type in ("Constant", "ConstantOfShape") and node.domain in STANDARD:
            found[node.output[0]] = node
    return found


def _function_bodies(
    function: onnx.FunctionProto,
) -> list[tuple[str, onnx.GraphProto | onnx.FunctionProto]]:
    """Return the function and the bodies inside it, with their paths."""
    path = f"{function.domain}::{function.name}"
    if function.overload:
        path += f":{function.overload}"
    found: list[tuple[str, onnx.GraphProto | onnx.FunctionProto]] = [(path, function)]
    # The list grows while it is walked: bodies may hold bodies.
    for path, body in found:
        for node in body.node:
            found += [(_body_path(path, node, name), inner) for name, inner in subgraphs(node)]
    return found


def _notes(holder: Holder) -> Iterable[onnx.StringStringEntryProto]:
    if isinstance(holder, onnx.SparseTensorProto):
        holder = holder.values
    notes: Iterable[onnx.StringStringEntryProto] = holder.metadata_props
    return notes


def _expand_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    tagged = onnx.ModelProto()
    tagged.CopyFrom(proto)
    for function in tagged.functions:
        for path, body in _function_bodies(function):
            for name, holder in _held(body).items():
                if isinstance(holder, onnx.SparseTensorProto):
                    holder = holder.values
                holder.metadata_props.add(key=_HOME_KEY, value=f"{path}\n{name}")
    return inliner.inline_local_functions(tagged)
