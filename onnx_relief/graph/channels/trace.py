"""Give every tensor of the main graph its channel ids, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.channels.ids import STAYS, Groups, Ids, Pool, compress, varying
from onnx_relief.graph.walk import STANDARD, Scope, attributes, node_key, subgraphs

Array = NDArray[Any]
_CHAIN = (
    *("Identity", "Cast", "Transpose", "DequantizeLinear"),
    *("Reshape", "Unsqueeze", "Squeeze", "Flatten"),
)


class NotFollowedError(Exception):
    """Channels meet something that they cannot be followed through; the text says what."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What one run of the model shows.

    Attributes:
        shapes: Of every tensor of the main graph that was made.
        values: Of small integer tensors, which shapes are made of; constants among them.
    """

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of a constant whose entries belong to channels.

    Attributes:
        constant: Name of the initializer, or of the Constant node's output.
        axis: The axis, as stored.
        ids: One id for each entry.
    """

    constant: str
    axis: int
    ids: Ids


@dataclass(frozen=True, eq=False)
class Read:
    """A place where channels end: a weight multiplies them, or another tensor does.

    Attributes:
        tensor: The tensor that carries them.
        ids: One id for each of its channels.
        node: Index of the node.
        other: Where two tensors are multiplied, the other one and its ids.
    """

    tensor: str
    ids: Ids
    node: int
    other: tuple[str, Ids] | None = None


@dataclass(frozen=True, eq=False)
class Fix:
    """What has to be done to a node when channels are cut.

    Attributes:
        node: Index of the node in the graph.
        apply: Called with the node and what is left; changes the node or its constants.
    """

    node: int
    apply: Callable[[onnx.NodeProto, Any], None]


@dataclass(eq=False)
class Trace:
    """What is known so far, and how rules say what they find.

    Attributes:
        scope: The main graph.
        observed: Shapes and integers.
        opset: Version of the default operator set.
        pool: The ids.
        ids: Ids of every tensor that carries channels, of the tensor's rank.
        members: Axes of constants that belong to channels.
        fixes: What has to be changed in nodes.
        reads: Where channels end.
        splits: By Reshape that splits channels in two axes, whether the outer one is cut.
    """

    scope: Scope
    observed: Observed
    opset: int
    pool: Pool = field(default_factory=Pool)
    ids: dict[str, Ids] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    splits: dict[str, bool] = field(default_factory=dict)
    accounted: set[tuple[str, int]] = field(default_factory=set)
    index: int = 0

    def mark(self) -> tuple[int, ...]:
        """Return how long the lists are, for `forget_since`."""
        return tuple(map(len, self._lists()))

    def forget_since(self, mark: tuple[int, ...]) -> None:
        """Forget what a rule said before it gave up."""
        for entries, length in zip(self._lists(), mark, strict=True):
            del entries[length:]

    def _lists(self) -> tuple[list[Any], ...]:
        pool = self.pool
        return (self.members, self.fixes, self.reads, pool.pairs, pool.kept)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor.

        Raises:
            NotFollowedError: It was not seen.
        """
        found = self.observed.shapes.get(name)
        if found is None:
            raise NotFollowedError(f"the shape of {name!r} is not known")
        return found

    def of(self, name: str) -> Ids:
        """Return the ids of a tensor; where it carries no channels, zeros."""
        found = self.ids.get(name)
        return np.zeros((1,) * len(self.shape(name)), np.int64) if found is None else found

    def full(self, name: str) -> Ids:
        """Return the ids of a tensor in its own shape."""
        return np.broadcast_to(self.of(name), self.shape(name))

    def carries(self, name: str) -> bool:
        """Whether a tensor carries channels."""
        return bool(name) and name in self.ids and bool((self.ids[name] != STAYS).any())

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is the same whatever the data."""
        return bool(name) and not self.scope.changes(name)

    def set(self, name: str, ids: Ids) -> None:
        """Note the ids of a tensor; axes of size 1 cannot be cut."""
        if name:
            self.ids[name] = compress(ids)

    def values(self, name: str) -> Array | None:
        """Return a small integer tensor that is constant for this shape of inputs."""
        return self.observed.values.get(name)

    def channel_axis(self, name: str, axis: int, what: str) -> Ids:
        """Return the ids along an axis of a tensor that varies along no other.

        Raises:
            NotFollowedError: It does.
        """
        ids = self.of(name)
        axis %= ids.ndim
        others = [a for a in varying(ids) if a != axis]
        if others:
            raise NotFollowedError(f"{what} reads channels along axis {others[0]}")
        return np.broadcast_to(ids.reshape(-1), (self.shape(name)[axis],))

    def along(self, rank: int, axis: int, ids: Ids) -> Ids:
        """Return a vector of ids as ids of a tensor."""
        shape = [1] * rank
        shape[axis] = ids.size
        return ids.reshape(shape)

    def constant(self, name: str, axes: Mapping[int, Ids]) -> None:
        """Say which channels the entries of a constant's axes belong to.

        Args:
            name: The constant as the node sees it.
            axes: Ids by axis as the node sees it.

        Raises:
            NotFollowedError: It passes through operators that are not undone.
        """
        place, reader = name, self.index
        while True:
            self.accounted.add((place, reader))
            maker = self.scope.producers.get(place)
            if maker is None or maker.op_type == "Constant":
                break
            axes = self._before(maker, place, axes)
            reader, place = self.node_index(maker), maker.input[0]
        for axis, ids in axes.items():
            self.members.append(Member(place, axis, ids))

    def _before(
        self, maker: onnx.NodeProto, made: str, axes: Mapping[int, Ids]
    ) -> Mapping[int, Ids]:
        """Return the axes of a constant before an operator that it passes through."""
        if maker.op_type not in _CHAIN or maker.domain not in STANDARD:
            raise NotFollowedError(f"{made!r} is made by {maker.op_type} {node_key(maker)!r}")
        shape, rank = self.shape(made), len(self.shape(maker.input[0]))
        if maker.op_type == "Transpose":
            perm = attributes(maker).get("perm") or list(reversed(range(rank)))
            return {perm[axis]: ids for axis, ids in axes.items()}
        if maker.op_type == "DequantizeLinear":
            self._scales(maker, [axes.get(axis) for axis in range(rank)])
        if maker.op_type in ("Identity", "Cast", "DequantizeLinear"):
            return axes
        # Reshape and the like: only axes of size 1 may come or go.
        long = [axis for axis, size in enumerate(shape) if size != 1]
        before = [axis for axis, size in enumerate(self.shape(maker.input[0])) if size != 1]
        sizes = [self.shape(maker.input[0])[axis] for axis in before]
        if sizes != [shape[axis] for axis in long] or not axes.keys() <= set(long):
            raise NotFollowedError(f"{made!r} is reshaped by {node_key(maker)!r}")
        if maker.op_type == "Reshape":
            self.fixes.append(Fix(self.node_index(maker), _retarget_constant(dict(axes))))
        return {before[long.index(axis)]: ids for axis, ids in axes.items()}

    def node_index(self, node: onnx.NodeProto) -> int:
        """Return the place of a node in the graph."""
        return next(i for i, other in enumerate(self.scope.graph.node) if other is node)

    def _scales(self, node: onnx.NodeProto, axes: Sequence[Ids | None]) -> None:
        """Let scale and zero point of a DequantizeLinear follow its axis."""
        settings = attributes(node)
        if settings.get("block_size", 0):
            raise NotFollowedError(f"{node_key(node)!r} has a scale for each block")
        axis = int(settings.get("axis", 1)) % max(1, len(axes))
        here = self.node_index(node)
        for name in node.input[1:]:
            if name and int(np.prod(self.shape(name), dtype=np.int64)) > 1:
                ids = axes[axis]
                if name not in self.scope.initializers and name not in self.scope.producers:
                    raise NotFollowedError(f"{name!r} is not constant")
                if ids is not None:
                    self.accounted.add((name, here))
                    self.members.append(Member(name, 0, ids))


Rule = Callable[[Trace, onnx.NodeProto], None]


def trace_channels(
    scope: Scope,
    observed: Observed,
    opset: int,
    rules: Mapping[str, Rule],
    splits: Mapping[str, bool] | None = None,
) -> tuple[Trace, Groups]:
    """Return the ids of all tensors of a graph, and which belong together.

    Args:
        scope: The main graph.
        observed: Shapes and integers of one run.
        opset: Version of the default operator set.
        rules: What operators do to ids.
        splits: By output of a Reshape that splits channels in two axes, whether the outer is cut.
    """
    trace = Trace(scope, observed, opset, splits=dict(splits or {}))
    for index, node in enumerate(scope.graph.node):
        trace.index = index
        _follow(trace, node, rules)
    for value in scope.graph.output:
        if value.name in trace.ids:
            trace.pool.keep(trace.ids[value.name], f"they reach the output {value.name!r}")
    _tie_shared(trace)
    return trace, trace.pool.groups()


def _follow(trace: Trace, node: onnx.NodeProto, rules: Mapping[str, Rule]) -> None:
    where = f"{node.op_type} {node_key(node)!r}"
    rule = rules.get(node.op_type) if node.domain in STANDARD else None
    if any(True for _ in subgraphs(node)):
        rule = None
    carried = [name for name in node.input if trace.carries(name)]
    starts = rule is not None and getattr(rule, "starts", False)
    if not carried and not starts:
        return
    before = trace.mark()
    try:
        if rule is None:
            raise NotFollowedError(f"they meet {where}, which is not followed")
        rule(trace, node)
    except (NotFollowedError, ValueError, IndexError, KeyError, TypeError) as reason:
        said = str(reason) if isinstance(reason, NotFollowedError) else f"{where}: {reason}"
        trace.forget_since(before)
        for name in carried:
            trace.pool.keep(trace.ids[name], said)
        for name in node.output:
            trace.ids.pop(name, None)


def _tie_shared(trace: Trace) -> None:
    """Tie what one constant is used for in several places; keep what is used in unknown ways."""
    seen: dict[tuple[str, int], Ids] = {}
    for member in trace.members:
        key = (member.constant, member.axis)
        if key in seen:
            if seen[key].shape == member.ids.shape:
                trace.pool.tie(seen[key], member.ids)
            else:
                trace.pool.keep(member.ids, f"{member.constant!r} is shared in another shape")
        seen.setdefault(key, member.ids)
    for member in trace.members:
        for use in trace.scope.uses.get(member.constant, ()):
            known = use.node is not None and use.scope is trace.scope
            place = trace.node_index(use.node) if known and use.node is not None else -1
            if (member.constant, place) not in trace.accounted:
                trace.pool.keep(member.ids, f"{member.constant!r} is also read in another way")


def _retarget_constant(axes: Mapping[int, Ids]) -> Callable[[onnx.NodeProto, Any], None]:
    """Return what lets the Reshape of a constant say its new sizes."""

    def apply(node: onnx.NodeProto, left: Any) -> None:  # noqa: ANN401 - Left, which imports this
        before = left.trace.values(node.input[1])
        target = np.array(before)
        for axis, ids in axes.items():
            if target[axis] > 0:
                target[axis] = int(left.stays(ids).sum())
        if not np.array_equal(target, before):
            left.give(node, 1, target)

    return apply
