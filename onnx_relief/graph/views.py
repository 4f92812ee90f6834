"""Constants as the nodes that use them see them, whatever keeps them.

Weights are not always initializers: they come from Constant nodes, ConstantOfShape or sparse
initializers, and pass through Identity, Transpose, Cast, Reshape and the like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_relief.errors import ReliefError, UnsupportedError
from onnx_relief.graph import external
from onnx_relief.graph.document import Document, opset
from onnx_relief.graph.external import is_external, region, shared_bytes
from onnx_relief.graph.held import node_value, tensor_in
from onnx_relief.graph.joins import MOVES, ancestors, only, places_of
from onnx_relief.graph.nodes import STANDARD, node_key
from onnx_relief.graph.nodes import attributes as attributes
from onnx_relief.graph.steps import STEPS, Look, Step, StepMaker
from onnx_relief.graph.storage import read, read_sparse
from onnx_relief.graph.walk import (
    Holder,
    JoinedHome,
    Place,
    Scope,
    TensorHome,
    constants_by_home,
    home_of,
    parts_of,
)

Array = NDArray[Any]
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class TensorView:
    """A constant as a node sees it.

    Attributes:
        home: Where it is kept.
        stored_shape: Its shape there.
        stored_type: Its element type there.
        look: Shape, element type, zero and scale as the node sees it.
        steps: The operators between.
        passing: The tensors between, the stored one first.
    """

    home: TensorHome
    stored_shape: tuple[int, ...]
    stored_type: np.dtype[Any]
    look: Look
    steps: tuple[Step, ...]
    passing: tuple[Place, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as the node sees it."""
        return self.look.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type as the node sees it."""
        return self.look.dtype

    @property
    def zero(self) -> Array:
        """The stored value that reads as zero: one, or one per element as seen (zero points)."""
        return self.look.zero

    @property
    def scale(self) -> Array:
        """What one more in the stored value adds: one, or one per element as seen."""
        return self.look.scale

    @property
    def quantised(self) -> bool:
        """Whether integers are stored, behind a DequantizeLinear or a Cast."""
        return self.stored_type.kind in "iu"

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def as_stored(self, seen: Array) -> Array:
        """Return what the node sees as what lies flat at the stored elements."""
        if not self.steps:
            return seen.reshape(-1)
        stored = np.zeros(self.size, dtype=seen.dtype)
        stored[self.places()] = seen
        return stored

    def as_seen(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return what lies flat at the stored elements as the node sees it."""
        return stored.reshape(self.shape) if not self.steps else stored[self.places()]

    def places(self) -> NDArray[np.int64]:
        """Return for every element as seen its flat place in the stored tensor."""
        places: Array = np.arange(self.size, dtype=np.int64).reshape(self.stored_shape)
        for step in self.steps:
            places = step.on_places(places)
        return places


class Constants:
    """Everything constant in a document, read by home; nothing is loaded before it is asked for.

    Args:
        document: The model.
        joins: Whether what is put together of constants counts as one.
    """

    def __init__(self, document: Document, *, joins: bool = True) -> None:
        self._document = document
        self._joins = joins
        self._joined: dict[Place, TensorView | None] = {}
        self._opset = opset(document.proto)
        self._homes = constants_by_home(document.proto)

    def __contains__(self, home: TensorHome) -> bool:
        return all(part in self._homes for part in parts_of(home))

    def overlaps(self) -> dict[TensorHome, str]:
        """Return the constants that share bytes of a data file with another, and the names."""
        if not self._document.has_external_data:
            return {}
        shared = shared_bytes(self._document)
        found: dict[TensorHome, str] = {}
        for home, holder in self._homes.items():
            tensor = tensor_in(holder) if isinstance(holder, onnx.NodeProto) else holder
            if isinstance(tensor, onnx.TensorProto) and is_external(tensor):
                where = region(self._document, tensor)
                if (where.location, where.offset) in shared:
                    found[home] = shared[where.location, where.offset]
        return found

    def stored(self, home: TensorHome) -> Array:
        """Return the stored array of `home`, in its own element type; of several all, flat."""
        if isinstance(home, JoinedHome):
            return np.concatenate([self.stored(part).reshape(-1) for part in home.parts])
        kept = self._homes[home]
        if isinstance(kept, onnx.TensorProto):
            return read(self._document, kept)
        if isinstance(kept, onnx.SparseTensorProto):
            return read_sparse(self._document, kept)
        return node_value(self._document, kept)

    def shape_and_type(self, home: TensorHome) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and element type of what is stored at `home`, without reading large data."""
        kept = self._homes[home]
        if isinstance(kept, onnx.NodeProto) and kept.op_type == "Constant":
            kept = tensor_in(kept) or kept
        if isinstance(kept, onnx.TensorProto):
            return tuple(kept.dims), np.dtype(helper.tensor_dtype_to_np_dtype(kept.data_type))
        if isinstance(kept, onnx.SparseTensorProto):
            kind = helper.tensor_dtype_to_np_dtype(kept.values.data_type)
            return tuple(kept.dims), np.dtype(kind)
        array = node_value(self._document, kept)
        return array.shape, array.dtype

    def apart(self, home: TensorHome, stored: Array) -> list[tuple[TensorHome, Array]]:
        """Return where the elements of `home` live, and of an array of all of them what is there.

        Of several constants each gets its own shape.
        """
        if not isinstance(home, JoinedHome):
            return [(home, stored)]
        shapes = [self.shape_and_type(part)[0] for part in home.parts]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        pieces = np.split(stored.reshape(-1), ends[:-1])
        arrays = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return list(zip(home.parts, arrays, strict=True))

    def values(self, view: TensorView) -> Array:
        """Return the values of `view` as the node sees them."""
        # ConstantOfShape stores one value for all elements.
        array = np.broadcast_to(self.stored(view.home), view.stored_shape)
        for step in view.steps:
            array = step.on_values(array)
        return array

    def why_not_writable(self, view: TensorView) -> str | None:
        """Return why single elements of what is stored cannot be made zero, or None if they can."""
        return next(filter(None, (self._fixed(part, view) for part in parts_of(view.home))), None)

    def _fixed(self, home: TensorHome, view: TensorView) -> str | None:
        kept: Holder | None = self._homes[home]
        if isinstance(kept, onnx.NodeProto):
            kept = tensor_in(kept)
        if isinstance(kept, onnx.SparseTensorProto):
            if any(map(external.is_external, (kept.values, kept.indices))):
                return "it is sparse and kept in another file"
            # What a sparse tensor leaves out is 0.
            return "it is sparse and has a zero point" if np.any(view.zero != 0) else None
        if isinstance(kept, onnx.TensorProto):
            kind = onnx.TensorProto.DataType.Name(kept.data_type)
            if kind in external.PACKED_BITS:
                return f"its {kind.lower()} values share bytes"
        return None

    def resolve(self, scope: Scope, name: str) -> TensorView | str:
        """Return the constant that `scope` sees as `name`, or why it is none, in words."""
        try:
            return self._resolve(scope, name)
        except (ReliefError, ValueError, LookupError, TypeError, RecursionError) as error:
            return f"{name!r} cannot be computed ({error})"

    def array(self, scope: Scope, name: str) -> Array | None:
        """Return the values of the constant `name`, or None if it is no constant."""
        view = self.resolve(scope, name)
        return None if isinstance(view, str) else self.values(view)

    def _resolve(self, scope: Scope, name: str) -> TensorView | str:
        definer = scope.definer(name)
        if definer is None:
            return f"{name!r} is not defined in the graph"
        node = definer.producers.get(name)
        if node is None and (name in definer.initializers or name in definer.sparse):
            return self._stored_view(definer, name)
        if node is None and definer.parent is not None:
            return self._handed_view(definer, definer.parent, name)
        if node is None:
            return f"{name!r} is an input of the model"
        operator = node.op_type if node.domain in STANDARD else ""
        if operator == "Constant":
            return self._stored_view(definer, name)
        if operator == "ConstantOfShape":
            shape = self.array(definer, node.input[0])
            if shape is not None and np.any(shape < 0):
                return f"{name!r} cannot be computed (it has shape {shape.tolist()})"
            if shape is not None:
                return self._stored_view(definer, name, tuple(int(size) for size in shape))
        make = STEPS.get(operator)
        if make is None and operator in MOVES and self._joins and not definer.changes(name):
            place = (definer.path, name)
            if place not in self._joined:
                self._joined[place] = self._joined_view(definer, name)
            joined = self._joined[place]
            if joined is not None:
                return joined
        if make is None:
            return f"{name!r} is computed at run time by {node.op_type} {node_key(node)!r}"
        before = self.resolve(definer, node.input[0])
        if isinstance(before, str):
            return before
        return self._through(before, make, definer, node)

    def _handed_view(self, body: Scope, around: Scope, name: str) -> TensorView | str:
        """Return the constant that a loop hands to its body in every step."""
        handed = body.handed(name)
        if handed is None:
            return f"{name!r} is an input of the body"
        view = self.resolve(around, handed.outside)
        if isinstance(view, str):
            return view
        return replace(view, passing=(*view.passing, (body.path, name)))

    def _joined_view(self, definer: Scope, name: str) -> TensorView | None:
        """Return what is put together of whole constants of floats, each number used once."""
        nodes, leaves = ancestors(definer, name)
        views = {leaf: self.resolve(definer, leaf) for leaf in leaves}
        known = {leaf: view for leaf, view in views.items() if not isinstance(view, str)}
        floats = [leaf for leaf, view in known.items() if view.dtype.name in FLOATS]
        floats.sort(key=lambda leaf: (known[leaf].home.graph, known[leaf].home.name))
        parts = {leaf: known[leaf] for leaf in floats}
        homes = tuple(view.home for view in parts.values())
        if not only(nodes, MOVES) or len(known) < len(views) or not self._are_whole(parts):
            return None
        shapes = {leaf: view.shape for leaf, view in parts.items()}
        operands = {leaf: self.values(known[leaf]) for leaf in leaves - parts.keys()}
        places = places_of(nodes, shapes, operands, name, self._opset)
        if places is None:
            return None
        between = [(definer.path, out) for node in nodes for out in node.output if out != name]
        stored = [place for view in parts.values() for place in view.passing]
        home, shape = homes[0], shapes[floats[0]]
        if len(homes) > 1:
            home, shape = JoinedHome(home.graph, home.name, homes), (places.size,)
        pick = partial(_picked, places=places)
        look = replace(parts[floats[0]].look, shape=places.shape)
        passing = (*stored, *between, (definer.path, name))
        return TensorView(home, shape, look.dtype, look, (Step(pick, pick),), passing)

    def _are_whole(self, parts: Mapping[str, TensorView]) -> bool:
        """Whether parts of a weight are different constants of one type, with all they store."""
        homes = {view.home for view in parts.values()}
        return (
            len({view.dtype for view in parts.values()}) == 1
            and len(homes) == len(parts)
            # Of a fill value there is but one.
            and all(
                not view.steps and self.shape_and_type(view.home)[0] == view.shape
                for view in parts.values()
            )
        )

    def _stored_view(
        self, definer: Scope, name: str, filled: tuple[int, ...] | None = None
    ) -> TensorView | str:
        home = home_of(definer, name)
        try:
            shape, dtype = self.shape_and_type(home)
        except (KeyError, TypeError, UnsupportedError):
            return f"{name!r} does not hold numbers of its own"
        shape = shape if filled is None else filled
        look = Look(shape, dtype, np.zeros((), dtype))
        return TensorView(home, shape, dtype, look, (), ((definer.path, name),))

    def _through(
        self, before: TensorView, make: StepMaker, scope: Scope, node: onnx.NodeProto
    ) -> TensorView | str:
        operands = [self.array(scope, name) if name else None for name in node.input[1:]]
        missing = [
            name for name, a in zip(node.input[1:], operands, strict=True) if name and a is None
        ]
        if missing:
            return f"{missing[0]!r}, which {node.op_type} {node_key(node)!r} needs, is not constant"
        step, look = make(before.look, node, operands)
        passing = (*before.passing, (scope.path, node.output[0]))
        steps = (*before.steps, step)
        return replace(before, look=look, steps=steps, passing=passing)


def _picked(array: Array, places: NDArray[np.int64]) -> Array:
    return array.reshape(-1)[places]
