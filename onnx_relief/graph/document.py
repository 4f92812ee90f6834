"""The user's model as a document: load it, check it, copy it, ask what it takes and gives.

The file is parsed and nothing else: no optimiser, no conversion, and tensors with external data
stay references. Results are written into this same proto, so that everything that was not meant to
change (names, order, metadata, fields that this version of ONNX does not know) survives.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.helper
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from onnx_relief.errors import ModelError
from onnx_relief.graph import external
from onnx_relief.graph.external import ExternalEdit
from onnx_relief.graph.strictness import as_checked
from onnx_relief.tensors import TensorSpec

MAX_PROTO_BYTES = (1 << 31) - 1
"""Protobuf's limit for one message; what is larger needs external data."""

_AS_EXTERNAL = "save it with onnx.save_model(..., save_as_external_data=True) and give that path"

# (where the mark stands, the mark, what such a file is): the usual mix-ups, named.
_OTHER_FORMATS = (
    (0, b"version https://git-lfs", "a Git LFS pointer; run 'git lfs pull' to get the model"),
    (0, b"PK\x03\x04", "a zip archive (PyTorch, Keras?); export it to ONNX first"),
    (0, b"\x89HDF", "an HDF5 file (Keras?); export it to ONNX first"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it to ONNX first"),
    (4, b"ORTM", "an ONNX Runtime .ort model; use the .onnx file that it was made from"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Document:
    """A model with everything its file holds, and where its external data lies.

    Attributes:
        proto: The model; tensors with external data are references into files.
        folder: Where external data lies; None for a model given in memory.
        name: What messages call it: the path as the user typed it, or ``model``.
        edits: Changes to external data that saving will apply to its copies.
        path: The file it was loaded from; None for a model given in memory.
        lean: Whether saving leaves out what data files hold that is no tensor's.
    """

    proto: onnx.ModelProto
    folder: Path | None
    name: str
    edits: tuple[ExternalEdit, ...] = ()
    path: Path | None = None
    lean: bool = False

    @property
    def has_external_data(self) -> bool:
        """Whether any tensor keeps its data in another file."""
        return any(map(external.is_external, external.tensors(self.proto)))

    @property
    def roots(self) -> tuple[Path, ...]:
        """The real folders that external data may lie in.

        A download cache may keep `model.onnx` and its data as two links into one folder. Where the
        model itself was reached through a link, the folder it really lies in counts as its own.
        """
        homes = [self.folder] if self.folder else []
        if self.path:
            homes.append(self.path.resolve().parent)
        return tuple(home.resolve() for home in homes)

    def copy(self) -> Document:
        """Return a document that can be changed without changing this one."""
        return replace(self, proto=copy_of(self.proto))


def load(source: str | os.PathLike[str] | onnx.ModelProto) -> Document:
    """Return the model in a file, or a copy of a model in memory, after checking it.

    Args:
        source: Path of an ``.onnx`` file, or a model, which is not changed.

    Raises:
        ModelError: It cannot be read, is not an ONNX model or not a valid one, or its external
            data is missing, incomplete or outside its folder.
    """
    if isinstance(source, onnx.ModelProto):
        document = Document(proto=copy_of(source), folder=None, name="model")
        _refuse_other_content(document)
        data = None
    else:
        data = _file_bytes(os.fsdecode(source))
        document = _document(os.fsdecode(source), data)
    external.data_files(document)
    # What was just read need not be written again to be checked.
    _check(document, None if document.has_external_data else data)
    return document


def parse_file(source: str | os.PathLike[str]) -> Document:
    """Return the model in a file, without judging its graph or its external data.

    Raises:
        ModelError: It cannot be read or is not an ONNX model.
    """
    name = os.fsdecode(source)
    return _document(name, _file_bytes(name))


def _document(name: str, data: bytes) -> Document:
    path = Path(name).absolute()
    proto = _parsed(data, name)
    document = Document(proto=proto, folder=path.parent, name=name, path=path)
    _refuse_other_content(document)
    return document


def check(document: Document) -> None:
    """Let `onnx.checker` judge the model.

    Raises:
        ModelError: The checker refuses it; with the first sentence of its reason.
    """
    _check(document, None)


def _check(document: Document, data: bytes | None) -> None:
    proto = document.proto
    if document.has_external_data:
        # The checker would want the files, and only where it is told the model lies, which for a
        # changed model is nowhere yet. They have their own checks: give it the proto without them.
        proto = copy_of(proto)
        for tensor in filter(external.is_external, external.tensors(proto)):
            _write_empty(tensor)
    accepted = as_checked(proto)
    if accepted is not proto:
        proto, data = accepted, None
    try:
        onnx.checker.check_model(serialise(proto, document.name) if data is None else data)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{document.name} is not a valid ONNX model: {_first_sentence(str(error))}; "
            "correct or export it again"
        ) from error


def serialise(proto: onnx.ModelProto, name: str) -> bytes:
    """Return the bytes of a model's file: the same bytes for the same model.

    Raises:
        ModelError: It exceeds the 2 GB that protobuf allows.
    """
    try:
        data: bytes = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{name} exceeds the 2 GB of one ONNX file; {_AS_EXTERNAL}") from error
    if len(data) > MAX_PROTO_BYTES:
        raise ModelError(f"{name} exceeds the 2 GB of one ONNX file; {_AS_EXTERNAL}")
    return data


def input_specs(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return what a run has to feed, in order.

    Inputs that an initializer backs are weights or defaults (before IR version 4 every initializer
    had to be listed as an input), so they are left out.
    """
    given = {tensor.name for tensor in proto.graph.initializer}
    given |= {sparse.values.name for sparse in proto.graph.sparse_initializer}
    return tuple(_spec(value) for value in proto.graph.input if value.name not in given)


def output_specs(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return what a run gives, in order."""
    return tuple(_spec(value) for value in proto.graph.output)


def opset(proto: onnx.ModelProto) -> int:
    """Return the version of the default operator domain; 0 if the model does not import it."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def copy_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that can be changed without changing this one."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return copied


def _file_bytes(name: str) -> bytes:
    """Return the contents of a model file that is small enough to be one."""
    try:
        status = os.stat(name)
        if stat.S_ISDIR(status.st_mode):
            raise ModelError(f"{name} is a folder; give the path of the .onnx file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{name} is not a regular file; give the path of an .onnx file")
        if status.st_size > MAX_PROTO_BYTES:
            raise ModelError(
                f"{name} has {status.st_size} bytes, more than one ONNX file can hold (2 GB); "
                "give a model that keeps its weights as external data"
            )
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{name} does not exist; check the path of the model") from error
    except PermissionError as error:
        raise ModelError(f"{name} may not be read; check its permissions") from error
    except (OSError, ValueError) as error:
        reason = external.short(error)
        raise ModelError(f"{name!r} cannot be read ({reason}); check the path") from error


def _parsed(data: bytes, name: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{name} is empty; export or download the model again")
    for start, mark, what in _OTHER_FORMATS:
        if data.startswith(mark, start):
            raise ModelError(f"{name} is not an ONNX model but {what}")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(
            f"{name} is not an ONNX model, or it is damaged or incomplete; "
            "export or download it again"
        ) from error
    return proto


def _refuse_other_content(document: Document) -> None:
    """Refuse other messages, fragments and damaged files that happen to parse as a model."""
    proto = document.proto
    parts = {
        "graph": proto.HasField("graph"),
        "node": bool(proto.graph.node),
        "opset_import": bool(proto.opset_import),
    }
    lacking = [part for part, is_there in parts.items() if not is_there]
    if lacking:
        raise ModelError(
            f"{document.name} is not an ONNX model (it has no {lacking[0]}); "
            "check the path, or export it again"
        )
    unreadable = next((text for text in _texts(proto) if not isinstance(text, str)), None)
    if unreadable is not None:
        raise ModelError(
            f"{document.name} has a name that is not UTF-8 text ({unreadable!r}); "
            "it is damaged, or must be exported again with plain names"
        )


def _texts(proto: onnx.ModelProto) -> Iterator[object]:
    """Yield every text that this package looks at.

    Protobuf does not check them when it parses, and hands out bytes for what is not UTF-8.
    """
    for tensor in external.tensors(proto):
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)
    for body in external.bodies(proto):
        for value in (*body.input, *body.output):
            yield from (value,) if isinstance(body, onnx.FunctionProto) else _texts_of(value)
        for node in body.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (attribute.name for attribute in node.attribute)


def _texts_of(value: onnx.ValueInfoProto) -> Iterator[object]:
    yield value.name
    for axis in value.type.tensor_type.shape.dim:
        yield axis.dim_param


def _write_empty(tensor: onnx.TensorProto) -> None:
    """Turn an external tensor into one without elements: valid, and refers to no file."""
    del tensor.dims[:]
    tensor.dims.append(0)
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")


def _first_sentence(reason: str) -> str:
    """Return the checker's reason without the dump of its context."""
    text = " ".join(reason.split("==> Context")[0].split())
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0] or "no reason given"


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type
    optional = kind.HasField("optional_type")
    if optional:
        kind = kind.optional_type.elem_type
    if not kind.HasField("tensor_type"):
        return TensorSpec(name=value.name, dtype=None, shape=None, optional=optional)
    return TensorSpec(
        name=value.name,
        dtype=_dtype(kind.tensor_type.elem_type),
        shape=_shape(kind.tensor_type),
        optional=optional,
    )


def _dtype(element_type: int) -> np.dtype[np.generic] | None:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(element_type)
    except (KeyError, ValueError, TypeError):
        return None


def _shape(kind: onnx.TypeProto.Tensor) -> tuple[int | str | None, ...] | None:
    if not kind.HasField("shape"):
        return None
    return tuple(_size(axis) for axis in kind.shape.dim)


def _size(axis: onnx.TensorShapeProto.Dimension) -> int | str | None:
    # Some exporters write -1 where ONNX wants a free axis to have no value.
    if axis.HasField("dim_value"):
        return axis.dim_value if axis.dim_value >= 0 else None
    return axis.dim_param or None
