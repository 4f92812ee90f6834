"""What following channels starts from, and what it notes on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_relief.graph.channels.ids import Ids

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Observed:
    """What one run of the model shows.

    Attributes:
        shapes: Of every tensor that was made.
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
        beside: Then, the axes of both along which they meet entry by entry, as heads: pairs,
            counted from the end. Where one is shorter, neighbours share its entries.
        heads: In how many heads, one after the other, the channels of each lie.
    """

    tensor: str
    ids: Ids
    node: int
    other: tuple[str, Ids] | None = None
    beside: tuple[tuple[int, int], ...] = ()
    heads: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class Fix:
    """What has to be done to a node when channels are cut.

    Attributes:
        node: Index of the node.
        apply: Called with the node and what is left; changes the node or its constants.
    """

    node: int
    apply: Callable[[onnx.NodeProto, Any], None]
