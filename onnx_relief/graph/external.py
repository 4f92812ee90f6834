"""Tensors whose data lies in files beside the model: where they are, and how to change them.

A `TensorProto` may say "my data is `length` bytes at `offset` of the file `location`", with
`location` relative to the model's folder (ONNX, docs/ExternalData.md). Such a file may be larger
than memory and may belong to somebody else, so it is opened only after these checks, it is read
through a memory map, and it is never changed: what is to be written is collected as `ExternalEdit`
and applied to the copy that saving makes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx

from onnx_relief.errors import ModelError

if TYPE_CHECKING:
    from onnx_relief.graph.document import Document

BLOCK_BYTES = 4 << 20
"""How much of a data file is held in memory at once."""

PACKED_BITS = {
    "UINT2": 2,
    "INT2": 2,
    "UINT4": 4,
    "INT4": 4,
    "FLOAT4E2M1": 4,
    "FLOAT6E2M3": 6,
    "FLOAT6E3M2": 6,
}
"""Bits of one element of the types that are stored without byte boundaries."""

Body = onnx.GraphProto | onnx.FunctionProto


@dataclass(frozen=True, eq=False, kw_only=True)
class ExternalEdit:
    """The order to write one value, or one each, at some elements of a tensor in a data file.

    Attributes:
        location: The file as the tensor names it (relative, POSIX).
        offset: Where the tensor starts in the file, in bytes.
        places: One bit per element of the tensor, packed as `numpy.packbits` does: an edit lives
            until the model is saved, and there may be one for every other weight.
        size: Bytes of one element.
        value: One element, or one for each place in their order; little endian.
    """

    location: str
    offset: int
    places: npt.NDArray[np.uint8]
    size: int
    value: bytes


@dataclass(frozen=True, kw_only=True)
class Region:
    """The bytes of one tensor in a data file that has been found, opened and measured.

    Attributes:
        file: The file itself, with symbolic links followed.
        location: The normalised location, the same for every spelling of it.
        offset: Where the data starts, in bytes.
        size: How many bytes the tensor's type and shape need.
    """

    file: Path
    location: str
    offset: int
    size: int


def bodies(proto: onnx.ModelProto) -> Iterator[Body]:
    """Yield every graph of a model: the main one, bodies of If, Loop and Scan, functions."""
    yield from _nested(proto.graph)
    for function in proto.functions:
        yield from _nested(function)
    for training in proto.training_info:
        yield from _nested(training.initialization)
        yield from _nested(training.algorithm)


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, wherever it is kept: these are the tensors, not copies."""
    for body in bodies(proto):
        if isinstance(body, onnx.GraphProto):
            yield from body.initializer
            yield from _parts(body.sparse_initializer)
        for attribute in _attributes(body):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from _parts([attribute.sparse_tensor])
            yield from _parts(attribute.sparse_tensors)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's data lies in a file beside the model."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def entries(tensor: onnx.TensorProto) -> dict[str, str]:
    """Return what an external tensor says about its data: location, offset, length, ..."""
    return {entry.key: entry.value for entry in tensor.external_data}


def normalised(location: str) -> str:
    """Return one spelling for a location: ``./data//w.bin`` is ``data/w.bin``."""
    return str(PurePosixPath(location))


def byte_count(document: Document, tensor: onnx.TensorProto) -> int:
    """Return how many bytes the tensor's type and shape need as raw data.

    Raises:
        ModelError: The type is unknown or has no raw form (strings), or a size is negative.
    """
    if any(size < 0 for size in tensor.dims):
        raise ModelError(
            f"{document.name}: tensor {tensor.name!r} has a negative size in {list(tensor.dims)}; "
            "export the model again"
        )
    try:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    except ValueError:
        kind = "UNDEFINED"
    if kind in ("UNDEFINED", "STRING"):
        raise ModelError(
            f"{document.name}: tensor {tensor.name!r} has element type {tensor.data_type} "
            f"({kind.lower()}), which cannot be stored as raw bytes; export the model again"
        )
    itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    bits = PACKED_BITS.get(kind, 8 * itemsize)
    elements: int = prod(tensor.dims)
    return (elements * bits + 7) // 8


def region(document: Document, tensor: onnx.TensorProto) -> Region:
    """Return where an external tensor's bytes are, after every check that makes them safe to map.

    Raises:
        ModelError: The file is missing, not a plain file or outside the model's folder, or offset
            and length do not fit the file or the tensor's shape.
    """
    location = entries(tensor).get("location", "")
    return _region_in(_find_file(document, tensor.name, location), document, tensor)


def data_files(document: Document) -> dict[str, Path]:
    """Return the data files of a model by normalised location, after checking every reference.

    Raises:
        ModelError: As `region`, for the first tensor that is wrong.
    """
    found: dict[str, Path] = {}
    for tensor in filter(is_external, tensors(document.proto)):
        location = entries(tensor).get("location", "")
        key = normalised(location)
        if key not in found:
            found[key] = _find_file(document, tensor.name, location)
        _region_in(found[key], document, tensor)
    return found


def shared_bytes(document: Document) -> dict[tuple[str, int], str]:
    """Return which tensors share bytes of a file with another tensor, and with which.

    Writing to one of them would silently change the other, so such tensors are left alone.

    Returns:
        For the (normalised location, offset) of each such tensor the names of two that overlap.
    """
    spans = []
    for tensor in filter(is_external, tensors(document.proto)):
        where = region(document, tensor)
        if where.size:
            spans.append((where.location, where.offset, where.offset + where.size, tensor.name))
    shared: dict[tuple[str, int], str] = {}
    widest: dict[str, tuple[int, int, str]] = {}
    for location, start, stop, name in sorted(spans):
        first, reach, other = widest.get(location, (0, 0, ""))
        if start < reach:
            names = f"{other!r} and {name!r}"
            shared[location, start] = names
            shared.setdefault((location, first), names)
        if stop > reach:
            widest[location] = (start, stop, name)
    return shared


def short(error: Exception) -> str:
    """Return the reason of an error without number and path, which messages have already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def apply_edits(file: BinaryIO, edits: Iterable[ExternalEdit]) -> None:
    """Write edits into an open data file (binary, readable and writable), block by block.

    Raises:
        OSError: The file cannot be read or written.
    """
    for edit in edits:
        packed_per_block = max(1, BLOCK_BYTES // (8 * edit.size))
        values = np.frombuffer(edit.value, dtype=np.uint8).reshape(-1, edit.size)
        done = 0
        for first in range(0, edit.places.size, packed_per_block):
            packed = edit.places[first : first + packed_per_block]
            if packed.any():
                chosen = np.unpackbits(packed).view(bool)
                count = int(np.count_nonzero(chosen))
                here = values if len(values) == 1 else values[done : done + count]
                _overwrite(file, edit, 8 * first, chosen, here)
                done += count


def _overwrite(
    file: BinaryIO,
    edit: ExternalEdit,
    first: int,
    chosen: npt.NDArray[np.bool_],
    values: npt.NDArray[np.uint8],
) -> None:
    """Write values at the chosen ones of the elements that start with number `first`."""
    size = edit.size
    last = int(np.flatnonzero(chosen)[-1]) + 1
    file.seek(edit.offset + first * size)
    block = bytearray(file.read(last * size))
    elements = np.frombuffer(block, dtype=np.uint8).reshape(-1, size)
    elements[chosen[:last]] = values
    file.seek(edit.offset + first * size)
    file.write(block)


def _region_in(file: Path, document: Document, tensor: onnx.TensorProto) -> Region:
    """Check offset and length of one tensor against the file that holds it."""
    said = entries(tensor)
    where = f"{document.name}: tensor {tensor.name!r} in {said['location']!r}"
    offset = _byte_number(said.get("offset", "0"), where)
    needed = byte_count(document, tensor)
    # A missing length means "as much as the shape says", as ONNX Runtime reads it.
    length = _byte_number(said["length"], where) if "length" in said else needed
    if length != needed:
        raise ModelError(
            f"{where} has {length} bytes, but its type and shape need {needed}; "
            "export the model again"
        )
    available = file.stat().st_size
    if offset + needed > available:
        raise ModelError(
            f"{where} needs bytes {offset} to {offset + needed}, but the file ends at {available}; "
            "it is incomplete, copy or download it again"
        )
    location = normalised(said["location"])
    return Region(file=file, location=location, offset=offset, size=needed)


def _find_file(document: Document, tensor_name: str, location: str) -> Path:
    """Return the real path of a data file that is safe to open."""
    where = f"{document.name}: tensor {tensor_name!r}"
    if document.folder is None:
        raise ModelError(
            f"{where} keeps its data in the file {location!r}, which a model given in memory "
            "cannot find; give the path of the model instead"
        )
    outside = ModelError(
        f"{where} keeps its data in {location!r}, outside the model's folder, which is refused; "
        f"put the file into {document.folder} and export or correct the model"
    )
    if _leaves_folder(location):
        raise outside
    try:
        file = (document.folder / location).resolve(strict=True)
        if not any(file.is_relative_to(root) for root in document.roots):
            raise outside
        # Opening anything else could block (a pipe) or never end (a device).
        if not stat.S_ISREG(file.stat().st_mode):
            raise ModelError(
                f"{where} keeps its data in {location!r}, which is not a regular file; "
                "put the data file there"
            )
        file.open("rb").close()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{where} keeps its data in {location!r}, which cannot be opened in "
            f"{document.folder} ({short(error)}); put the file beside the model"
        ) from error
    return file


def _leaves_folder(location: str) -> bool:
    """Whether a location is empty, absolute or climbs, by the rules of POSIX or of Windows.

    Both are asked everywhere, so that a model is not safe on one machine and harmful on another.
    """
    if not PurePosixPath(location).name or "\0" in location:
        return True
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    return (
        posix.is_absolute()
        or bool(windows.drive or windows.root)
        or ".." in (*posix.parts, *windows.parts)
    )


def _byte_number(text: str, where: str) -> int:
    """Return a number of bytes written as text; nothing but digits will do."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(
            f"{where} has offset or length {text[:20]!r}, which is not a number of bytes; "
            "export the model again"
        )
    return int(text)


def _nested(body: Body) -> Iterator[Body]:
    """Yield a graph and all graphs inside its attributes."""
    yield body
    for attribute in _attributes(body):
        if attribute.HasField("g"):
            yield from _nested(attribute.g)
        for graph in attribute.graphs:
            yield from _nested(graph)


def _attributes(body: Body) -> Iterator[onnx.AttributeProto]:
    """Yield the attributes of all nodes, and the default attributes of a function."""
    for node in body.node:
        yield from node.attribute
    if isinstance(body, onnx.FunctionProto):
        yield from body.attribute_proto


def _parts(sparse: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices
