"""Where a layer stands in the graph, and how its tensors map to the canonical rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.views import TensorView
from onnx_relief.graph.walk import Scope
from onnx_relief.plan import Layer


@dataclass(frozen=True)
class RowLayout:
    """How a tensor maps to rows: split its axes, reorder them, join them to `rows`."""

    split: tuple[int, ...]
    order: tuple[int, ...]
    rows: tuple[int, ...]

    def to_rows(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return `array` in canonical layout."""
        return array.reshape(self.split).transpose(self.order).reshape(self.rows)

    def from_rows(self, rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the tensor of `shape` whose canonical layout is `rows`."""
        moved = rows.reshape([self.split[axis] for axis in self.order])
        return moved.transpose(np.argsort(self.order)).reshape(shape)


@dataclass(frozen=True, eq=False)
class Part:
    """A weight or bias of a layer: the constant, and its layout in rows."""

    view: TensorView
    layout: RowLayout


@dataclass(frozen=True)
class Axes:
    """Where a fully connected layer finds its inputs in the data, or puts its units in the output.

    Attributes:
        place: The axis, counted from the end: -1 or -2.
        joined: How many axes up to that one it takes as one, the last one fastest.
    """

    place: int = -1
    joined: int = 1


@dataclass(frozen=True, eq=False)
class Site:
    """Where a layer stands in the graph.

    Attributes:
        layer: What the method needs to know of it.
        scope: The graph that holds its node.
        node: The node, in the expanded model.
        data_input: Index of the node's input that carries the data.
        reads: Fully connected layers: where their inputs lie in the data.
        makes: Fully connected layers: where their units lie in the node's output.
        parts: Its weights, in the order of `layer.weights`.
        bias: Its bias.
        output: Name of the tensor after the bias.
    """

    layer: Layer
    scope: Scope
    node: onnx.NodeProto
    data_input: int
    parts: tuple[Part, ...]
    bias: Part | None
    output: str
    reads: Axes = Axes()
    makes: Axes = Axes()

    @property
    def tensors(self) -> tuple[Part, ...]:
        """Its weights, then its bias where it has one."""
        return (*self.parts, self.bias) if self.bias else self.parts

    @property
    def unit_axes(self) -> tuple[int, ...]:
        """Sizes of the axes that its units lie on, one but where it makes several."""
        layout = self.parts[0].layout
        sizes = tuple(layout.split[axis] for axis in layout.order[: self.makes.joined])
        return sizes if self.makes.joined > 1 else (self.layer.units,)

    @property
    def input_axes(self) -> tuple[int, ...]:
        """Sizes of the axes that its inputs lie on, one but where it reads several."""
        layout = self.parts[0].layout
        sizes = tuple(layout.split[axis] for axis in layout.order[-self.reads.joined :])
        return sizes if self.reads.joined > 1 else (self.layer.weights[0].inputs,)

    @property
    def data(self) -> str:
        """Name of the tensor that carries the data."""
        return str(self.node.input[self.data_input])


@dataclass(frozen=True)
class Refusal:
    """A node that multiplies by constants and cannot be pruned, and why, in words."""

    node: str
    op: str
    reason: str
