"""One tensor at a time: read it as an array, write single entries without touching the others.

A `TensorProto` keeps its data in `raw_data`, in one of five typed fields, or in a file. Whatever
it uses it keeps using, and entries that are not written keep their bits (NaN payloads too).
"""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnx.numpy_helper

from onnx_relief.errors import ModelError, UnsupportedError
from onnx_relief.graph import external
from onnx_relief.graph.document import Document
from onnx_relief.graph.external import ExternalEdit

Array = npt.NDArray[Any]
Positions = npt.NDArray[np.integer[Any]]

# Types whose elements are more or less than one entry of their storage: several to a byte, two
# numbers to an element, or no fixed size.
_NOT_WRITABLE = frozenset((*external.PACKED_BITS, "STRING", "COMPLEX64", "COMPLEX128", "UNDEFINED"))


def read(document: Document, tensor: onnx.TensorProto) -> Array:
    """Return the values of a tensor in its own type and shape, read-only.

    External data is mapped, not read: what is not touched costs no memory. If the document has
    pending edits for the tensor, the result is a copy of this one tensor with the edits applied.

    Args:
        document: The model that the tensor belongs to.
        tensor: Any tensor of the model; bfloat16 and smaller types come as `ml_dtypes`.

    Raises:
        ModelError: The data does not fit the tensor's type and shape.
    """
    if external.is_external(tensor):
        values = _read_external(document, tensor)
    elif tensor.HasField("raw_data") and _kind(tensor) not in _NOT_WRITABLE:
        raw = _raw_data(document, tensor)
        values = np.frombuffer(raw, dtype=_dtype(tensor)).reshape(tuple(tensor.dims))
    else:
        values = _decoded(tensor, document.name)
    values.flags.writeable = False
    return values


def write_entries(
    document: Document, tensor: onnx.TensorProto, positions: Positions, value: float | Array
) -> Document:
    """Write one value, or one each, at some elements of a tensor and return the document with it.

    Data inside the proto is changed in place, in the field that holds it. For external data the
    proto stays as it is, and the document that comes back has one more `ExternalEdit`.

    Args:
        document: The model that the tensor belongs to.
        tensor: The tensor itself, not a copy.
        positions: Flat element indices, shape (n,), in any order; none changes nothing.
        value: What to write, one value or shape (n,); an integer type takes only what it can hold.

    Raises:
        UnsupportedError: Strings, complex numbers, or several elements to a byte.
        ModelError: The data does not fit the tensor's type and shape.
        IndexError: A position lies outside the tensor.
    """
    kind = _kind(tensor)
    if kind in _NOT_WRITABLE:
        raise UnsupportedError(
            f"tensor {tensor.name!r} holds {kind.lower()} elements, which cannot be written one by "
            "one; leave its layer out with --skip"
        )
    positions = np.asarray(positions)
    if positions.size == 0:
        return document
    if positions.dtype.kind not in "iu":
        raise TypeError(f"positions are indices, not {positions.dtype.name}")
    if positions.min() < 0 or positions.max() >= prod(tensor.dims):
        raise IndexError(f"positions outside tensor {tensor.name!r} of {prod(tensor.dims)} entries")
    element = _element(_dtype(tensor), value)
    if external.is_external(tensor):
        return _with_edit(document, tensor, positions, element)
    if tensor.HasField("raw_data"):
        _write_raw(document, tensor, positions, element)
    else:
        _write_typed(document, tensor, positions, element)
    return document


def read_sparse(document: Document, sparse: onnx.SparseTensorProto) -> Array:
    """Return a sparse tensor as a dense array of its shape, zeros filled in.

    Raises:
        ModelError: Its values, indices and shape do not belong together.
    """
    values = read(document, sparse.values)
    dense: Array = np.zeros(prod(sparse.dims), dtype=values.dtype)
    stored = sparse_positions(sparse, read(document, sparse.indices))
    if stored.shape != values.shape:
        raise ModelError(
            f"{document.name}: sparse tensor {sparse.values.name!r} has {values.size} values for "
            f"{stored.size} indices; export the model again"
        )
    dense[stored] = values
    dense = dense.reshape(tuple(sparse.dims))
    dense.flags.writeable = False
    return dense


def drop_sparse_entries(sparse: onnx.SparseTensorProto, positions: Positions) -> None:
    """Remove stored entries of a sparse tensor, so that they read as zero; others stay in order.

    Args:
        sparse: The tensor itself; indices may be linear (NNZ,) or coordinates (NNZ, rank).
        positions: Flat positions in the dense shape; those not stored are zero already.

    Raises:
        UnsupportedError: Its values or indices are external data.
        ModelError: Its indices and shape do not belong together.
    """
    parts = (sparse.values, sparse.indices)
    if any(map(external.is_external, parts)):
        raise UnsupportedError(
            f"sparse tensor {sparse.values.name!r} keeps its data in another file; "
            "leave its layer out with --skip"
        )
    stored = sparse_positions(sparse, _decoded(sparse.indices, "model"))
    keep = ~np.isin(stored, positions)
    if keep.all():
        return
    for part in parts:
        _write_rows(part, keep)


def sparse_positions(sparse: onnx.SparseTensorProto, indices: Array) -> Positions:
    """Return the flat dense position of each stored entry, shape (NNZ,).

    Raises:
        ModelError: The indices do not fit the shape.
    """
    shape = tuple(sparse.dims)
    name = sparse.values.name
    if indices.ndim == 2 and indices.shape[1] == len(shape):
        inside = bool(((indices >= 0) & (indices < np.array(shape))).all())
        if inside:
            stored: Positions = np.ravel_multi_index(tuple(indices.T), shape)
            return stored
    elif indices.ndim == 1 and bool(((indices >= 0) & (indices < prod(shape))).all()):
        return indices
    raise ModelError(
        f"sparse tensor {name!r} has indices that do not fit its shape {list(shape)}; "
        "export the model again"
    )


def _read_external(document: Document, tensor: onnx.TensorProto) -> Array:
    where = external.region(document, tensor)
    if _kind(tensor) in external.PACKED_BITS:
        inline = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        inline.raw_data = _mapped(where, np.dtype(np.uint8)).tobytes()
        return _decoded(inline, document.name)
    dtype = _dtype(tensor)
    values = _mapped(where, dtype)
    edits = [edit for edit in document.edits if _is_for(edit, where)]
    if edits:
        values = np.array(values)
    for edit in edits:
        chosen = np.unpackbits(edit.places, count=values.size).view(bool)
        values[chosen] = np.frombuffer(edit.value, dtype=dtype)
    return values.reshape(tuple(tensor.dims))


def _is_for(edit: ExternalEdit, where: external.Region) -> bool:
    place = (external.normalised(edit.location), edit.offset)
    return place == (where.location, where.offset)


def _mapped(where: external.Region, dtype: np.dtype[Any]) -> Array:
    """Return the flat values of a region as a read-only map of the file."""
    count = where.size // dtype.itemsize
    if count == 0:  # an empty map is an error
        return np.empty(0, dtype=dtype)
    try:
        mapped = np.memmap(where.file, dtype=dtype, mode="r", offset=where.offset, shape=(count,))
    except (OSError, ValueError) as error:
        raise ModelError(f"{where.file} cannot be read: {error}; check the file") from error
    return mapped.view(np.ndarray)


def _with_edit(
    document: Document, tensor: onnx.TensorProto, positions: Positions, element: Array
) -> Document:
    chosen = np.zeros(prod(tensor.dims), dtype=bool)
    chosen[positions] = True
    if element.ndim:  # the edit takes them in the order of the tensor
        element = element[np.argsort(positions, kind="stable")]
    edit = ExternalEdit(
        location=external.entries(tensor)["location"],
        offset=external.region(document, tensor).offset,
        places=np.packbits(chosen),
        size=element.itemsize,
        value=element.tobytes(),
    )
    return replace(document, edits=(*document.edits, edit))


def _write_raw(
    document: Document, tensor: onnx.TensorProto, positions: Positions, element: Array
) -> None:
    data = bytearray(_raw_data(document, tensor))
    np.frombuffer(data, dtype=element.dtype)[positions] = element
    tensor.raw_data = bytes(data)


def _write_typed(
    document: Document, tensor: onnx.TensorProto, positions: Positions, element: Array
) -> None:
    field: MutableSequence[Any] = getattr(
        tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)
    )
    _check_count(document, tensor, len(field), prod(tensor.dims))
    stored = _as_stored(np.broadcast_to(element, positions.shape))
    for position, value in zip(positions.tolist(), stored, strict=True):
        field[position] = value


def _as_stored(elements: Array) -> list[float | int]:
    """Return what a typed field holds for elements of shape (n,).

    Floats narrower than 32 bits stand in `int32_data` as their bits; all else as its value.
    """
    kind = elements.dtype.kind
    is_small_float = kind not in "biu" and elements.dtype.itemsize < 4
    bits = np.dtype(f"u{elements.dtype.itemsize}")
    stored = np.ascontiguousarray(elements).view(bits) if is_small_float else elements
    return [int(value) if kind in "biu" else value for value in stored.tolist()]


def _element(dtype: np.dtype[Any], value: float | Array) -> Array:
    """Return values as elements, shape () or (n,); integers are not rounded or wrapped."""
    element: Array = np.array(value).astype(dtype)
    if dtype.kind in "biu" and np.any(element != value):
        raise ValueError(f"{value!r} cannot be stored as {dtype.name}")
    return element


def _write_rows(tensor: onnx.TensorProto, keep: npt.NDArray[np.bool_]) -> None:
    """Keep only some rows of a tensor, in the field that holds it."""
    rows = int(tensor.dims[0])
    if tensor.HasField("raw_data"):
        data = np.frombuffer(tensor.raw_data, dtype=np.uint8).reshape(rows, -1)
        tensor.raw_data = data[keep].tobytes()
    else:
        field = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
        width = len(field) // rows
        kept = [field[row * width + k] for row in np.flatnonzero(keep) for k in range(width)]
        del field[:]
        field.extend(kept)
    tensor.dims[0] = int(np.count_nonzero(keep))


def _decoded(tensor: onnx.TensorProto, model: str) -> Array:
    """Return the values of a tensor by `onnx.numpy_helper`, with its failures in our words."""
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{model}: tensor {tensor.name!r} cannot be read: {error}; export the model again"
        ) from error


def _raw_data(document: Document, tensor: onnx.TensorProto) -> bytes:
    raw = tensor.raw_data  # protobuf makes a copy each time it is asked
    _check_count(document, tensor, len(raw), external.byte_count(document, tensor), "bytes")
    return raw


def _check_count(
    document: Document, tensor: onnx.TensorProto, there: int, needed: int, what: str = "entries"
) -> None:
    if there != needed:
        raise ModelError(
            f"{document.name}: tensor {tensor.name!r} has {there} {what} of data, but its type and "
            f"shape need {needed}; export the model again"
        )


def _kind(tensor: onnx.TensorProto) -> str:
    """Return the name of the element type, as the ONNX schema spells it."""
    try:
        return str(onnx.TensorProto.DataType.Name(tensor.data_type))
    except ValueError:
        return "UNDEFINED"


def _dtype(tensor: onnx.TensorProto) -> np.dtype[Any]:
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
