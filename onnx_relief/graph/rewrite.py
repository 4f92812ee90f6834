"""Write new values into a constant where the file keeps it, in the field that it uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.graph.external import is_external
from onnx_relief.graph.held import tensor_in
from onnx_relief.graph.storage import (
    read,
    sparse_positions,
    write_entries,
)
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import Holder, TensorHome, constants_by_home

Array = NDArray[Any]


def write_constants(document: Document, values: Mapping[TensorHome, Array]) -> Document:
    """Return a copy of the document with other values in some of its constants.

    Elements that stay the same keep their bits, and a constant that stays the same keeps its field.

    Args:
        document: The model; it is not changed.
        values: New values by home, in the shape that is stored; they are rounded to its type.

    Raises:
        UnsupportedError: A value would have to be written where there is no room for it.
    """
    constants = Constants(document)
    document = document.copy()
    holders = constants_by_home(document.proto)
    for home, wanted in values.items():
        for part, given in constants.apart(home, wanted):
            old = np.broadcast_to(constants.stored(part), given.shape)
            new = given.astype(old.dtype)
            places = np.flatnonzero((new != old) & ~((new != new) & (old != old)))
            if places.size:
                document = _write(document, holders[part], new, places)
    return document


def write_out(node: onnx.NodeProto, shape: tuple[int, ...]) -> None:
    """Turn a ConstantOfShape into a Constant: a fill value has no room for others among it."""
    held = tensor_in(node)
    fill = onnx.numpy_helper.to_array(held) if held else np.zeros(1, np.float32)
    full = onnx.numpy_helper.from_array(np.full(shape, fill.reshape(()), dtype=fill.dtype))
    node.op_type = "Constant"
    del node.input[:], node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("value", full))


def _write(document: Document, holder: Holder, new: Array, places: NDArray[np.int64]) -> Document:
    kept: Holder | None = holder
    if isinstance(holder, onnx.NodeProto):
        if holder.op_type == "ConstantOfShape":
            write_out(holder, new.shape)
        kept = tensor_in(holder)
        if kept is None:
            _write_attribute(holder.attribute[0], new)
    if isinstance(kept, onnx.SparseTensorProto):
        return _write_sparse(document, kept, new, places)
    if isinstance(kept, onnx.TensorProto):
        return write_entries(document, kept, places, new.reshape(-1)[places])
    return document


def _write_attribute(attribute: onnx.AttributeProto, new: Array) -> None:
    """Write values into `value_float` or `value_floats` of a Constant."""
    if attribute.name == "value_float":
        attribute.f = float(new)
    elif attribute.name == "value_floats":
        attribute.floats[:] = new.reshape(-1).tolist()


def _write_sparse(
    document: Document, sparse: onnx.SparseTensorProto, new: Array, places: NDArray[np.int64]
) -> Document:
    if is_external(sparse.values) or is_external(sparse.indices):
        raise UnsupportedError(
            f"sparse tensor {sparse.values.name!r} keeps its data in another file; "
            "leave it out with --freeze"
        )
    stored = sparse_positions(sparse, read(document, sparse.indices))
    if not np.isin(places, stored).all():
        raise UnsupportedError(
            f"sparse tensor {sparse.values.name!r} has no room for values where it had zeros; "
            "hold them at zero, or leave it out with --freeze"
        )
    rows = np.arange(stored.size, dtype=np.int64)
    return write_entries(document, sparse.values, rows, new.reshape(-1)[stored])
