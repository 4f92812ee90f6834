"""Give every tensor of a model its channel ids, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.channels.ids import STAYS, Ids, Pool, compress, varying
from onnx_relief.graph.channels.records import Fix, Member, Observed, Read
from onnx_relief.graph.channels.whole import Whole
from onnx_relief.graph.nodes import STANDARD, attributes, node_key

Array = NDArray[Any]
CHAIN = (
    *("Identity", "Cast", "Transpose", "DequantizeLinear"),
    *("Reshape", "Unsqueeze", "Squeeze", "Flatten"),
)


class NotFollowedError(Exception):
    """Channels meet something that they cannot be followed through; the text says what."""


GIVES_UP = (NotFollowedError, ValueError, IndexError, KeyError, TypeError)
"""What a rule raises where it does not know how to go on."""


@dataclass(eq=False)
class Trace:
    """What is known so far, and how rules say what they find.

    Attributes:
        whole: All graphs of the model.
        observed: Shapes and integers.
        opset: Version of the default operator set.
        pool: The ids.
        ids: Ids of every tensor that carries channels, of the tensor's rank.
        members: Axes of constants that belong to channels.
        fixes: What has to be changed in nodes.
        reads: Where channels end.
        splits: By Reshape that splits channels in several axes, which of them is cut, counted from
            the innermost, 0.
        ways: In how many axes it splits them.
        outer: Whether the second one is cut where nothing else is said.
        offers: Where a constant could bring channels that what it is combined with has not.
        spreads: Whether it does.
        taken: Every constant that a node was said to read, the node, and its axes of channels.
        counts: By tensor of whole numbers, the channels that each of them is the count of.
        understood: Those of them that the node at hand was said to know what to do with.
        frozen: Tensors that depend on numbers of channels only, and keep their value.
        even: Constants of one number throughout that several nodes read, each for itself.
        apart: Every such constant that a node was said to read, the node, and its axes of channels.
        claims: Entries of constants that go into computed shapes, the channels that they are to
            be the number of, and the node that takes them for it.
        as_many: Channels of which as many have to stay, whichever these are; and what lets the
            second ones be counted on their own, if the first ones stay anyway.
        unmade: Why layers that read no channels make none either.
    """

    whole: Whole
    observed: Observed
    opset: int
    pool: Pool = field(default_factory=Pool)
    ids: dict[str, Ids] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    ways: dict[str, int] = field(default_factory=dict)
    offers: list[str] = field(default_factory=list)
    spreads: bool = False
    taken: list[tuple[str, int, Mapping[int, Ids]]] = field(default_factory=list)
    counts: dict[str, list[Ids | None]] = field(default_factory=dict)
    understood: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    even: frozenset[str] = frozenset()
    apart: list[tuple[str, int, Mapping[int, Ids]]] = field(default_factory=list)
    claims: list[tuple[Any, Ids, int]] = field(default_factory=list)
    as_many: list[tuple[Ids, Ids, Callable[[Trace], bool] | None]] = field(default_factory=list)
    unmade: list[str] = field(default_factory=list)
    index: int = 0
    outer: bool = False
    _index_of: dict[int, int] = field(default_factory=dict)

    def mark(self) -> tuple[int, ...]:
        """Return how long the lists are, for `forget_since`."""
        return tuple(map(len, self._lists()))

    def forget_since(self, mark: tuple[int, ...]) -> None:
        """Forget what a rule said before it gave up."""
        for entries, length in zip(self._lists(), mark, strict=True):
            del entries[length:]

    def _lists(self) -> tuple[list[Any], ...]:
        pool = self.pool
        return (
            *(self.members, self.fixes, self.reads, self.taken, self.claims, self.as_many),
            *(self.apart, pool.pairs, pool.kept),
        )

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
        return bool(name) and name not in self.whole.moving

    def is_told(self, name: str) -> bool:
        """Whether a tensor is constant, or computed from numbers of channels alone."""
        return self.is_constant(name) or name in self.frozen

    def split(self, out: str, ways: int) -> int:
        """Return which of the axes that channels are split in is cut; the innermost is -1."""
        self.ways[out] = ways
        return -1 - self.splits.setdefault(out, int(self.outer))

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
            if place in self.even:
                self.apart.append((place, reader, axes))
                return
            self.taken.append((place, reader, axes))
            maker = self.whole.producers.get(place)
            if self.whole.is_stored(place):
                break
            if maker is None:
                reader, place = self._around(place, axes)
                continue
            axes = self._before(maker, place, axes)
            reader, place = self.node_index(maker), maker.input[0]
        for axis, ids in axes.items():
            self.members.append(Member(place, axis, ids))

    def _around(self, place: str, axes: Mapping[int, Ids]) -> tuple[int, str]:
        """Return the loop that hands a constant to its body in every step, and the one around it.

        Under all its other names it has the same channels, also where the loop gives it out.
        """
        scope = self.whole.homes.get(place)
        handed = None if scope is None else scope.handed(place)
        if handed is None or scope is None or scope.owner is None:
            raise NotFollowedError(f"{place!r} is sparse, or comes from around the graph")
        loop = self.node_index(scope.owner)
        for made, read in pairwise(handed.inside):
            self.taken.append((read, self.node_index(self.whole.producers[made]), axes))
        self.taken += [(name, loop, axes) for name in (handed.inside[0], handed.final) if name]
        return loop, handed.outside

    def _before(
        self, maker: onnx.NodeProto, made: str, axes: Mapping[int, Ids]
    ) -> Mapping[int, Ids]:
        """Return the axes of a constant before an operator that it passes through."""
        if maker.op_type not in CHAIN or maker.domain not in STANDARD:
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
            if self.values(maker.input[1]) is None:
                raise NotFollowedError(f"{made!r} has a shape that is computed")
            fix = _retarget_constant(maker.input[1], dict(axes), shape)
            self.fixes.append(Fix(self.node_index(maker), fix))
        if maker.op_type == "Squeeze":
            self.squeezes(maker, list(axes.values()))
        return {before[long.index(axis)]: ids for axis, ids in axes.items()}

    def squeezes(self, node: onnx.NodeProto, carried: Sequence[Ids]) -> None:
        """Let a Squeeze that is not told its axes leave alone those of channels.

        Args:
            node: It takes all axes of size 1.
            carried: The channels along every axis that has some.
        """
        if "axes" in attributes(node) or any(node.input[1:]):
            return
        sizes = self.shape(node.input[0])
        taken = [axis for axis, size in enumerate(sizes) if size == 1]
        self.fixes.append(Fix(self.node_index(node), _tell_axes(taken, carried)))

    def node_index(self, node: onnx.NodeProto) -> int:
        """Return the place of a node among all nodes."""
        if not self._index_of:
            self._index_of.update({id(one): i for i, one in enumerate(self.whole.nodes)})
        return self._index_of[id(node)]

    def _scales(self, node: onnx.NodeProto, axes: Sequence[Ids | None]) -> None:
        """Let scale and zero point of a DequantizeLinear follow its axis."""
        settings = attributes(node)
        if settings.get("block_size", 0):
            raise NotFollowedError(f"{node_key(node)!r} has a scale for each block")
        axis = int(settings.get("axis", 1)) % max(1, len(axes))
        for name in node.input[1:]:
            if name and int(np.prod(self.shape(name), dtype=np.int64)) > 1:
                ids = axes[axis]
                if not self.whole.is_stored(name) or len(self.shape(name)) != 1:
                    raise NotFollowedError(f"{name!r} is no vector of numbers")
                own = {} if ids is None else {0: ids}
                self.taken.append((name, self.node_index(node), own))
                self.members += [Member(name, 0, one) for one in own.values()]


Rule = Callable[[Trace, onnx.NodeProto], None]


def _retarget_constant(
    told: str, axes: Mapping[int, Ids], shape: tuple[int, ...]
) -> Callable[[onnx.NodeProto, Any], None]:
    """Return what lets the Reshape of a constant say its new sizes, for which it read `told`."""

    def apply(node: onnx.NodeProto, left: Any) -> None:  # noqa: ANN401 - Left, which imports this
        if all(left.stays(ids).all() for ids in axes.values()):
            return
        # Of a weight that several layers share, each has the axes changed that it knows.
        before = left.current(node.input[1], told)
        target = np.where(before == 0, np.array(shape), before)
        for axis, ids in axes.items():
            if target[axis] > 0:
                target[axis] = int(left.stays(ids).sum())
        left.give(node, 1, target)

    return apply


def _tell_axes(
    taken: Sequence[int], carried: Sequence[Ids]
) -> Callable[[onnx.NodeProto, Any], None]:
    """Return what tells a Squeeze its axes where a cut leaves a single one of some channels."""

    def apply(node: onnx.NodeProto, left: Any) -> None:  # noqa: ANN401 - Left, which imports this
        if any(int(left.stays(ids).sum()) == 1 for ids in carried):
            left.tell_axes(node, taken)

    return apply
