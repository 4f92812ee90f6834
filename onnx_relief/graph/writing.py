"""Write a model and its data files under given names, with pending edits applied.

What is written is complete but not yet safe: `save` decides where it is written and when it gets
its final name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from onnx_relief.errors import UnsupportedError
from onnx_relief.graph import external
from onnx_relief.graph.document import Document, copy_of, serialise

_PAGE: Final = 4096
"""Tensors of a page or more start on one, so that they can be mapped (ONNX, ExternalData.md)."""
_LINE: Final = 64


def write_model(document: Document, target: Path, names: Mapping[str, str]) -> None:
    """Write a model and its data files as new files.

    Args:
        document: The model; its own files are only read.
        target: The model's file.
        names: For each data file (its normalised location) the name it gets beside `target`.

    Raises:
        UnsupportedError: An edit would change a second tensor, which shares the bytes.
        ModelError: The proto exceeds 2 GB, or its external data has changed on disk.
        OSError: A file exists already or cannot be written.
    """
    _refuse_shared_edits(document)
    digests: dict[str, str] = {}
    offsets: dict[tuple[str, int], int] = {}
    for location, source in external.data_files(document).items():
        place = target.parent / names[location]
        place.parent.mkdir(parents=True, exist_ok=True)
        found = _copy_parts(document, location, source, place) if document.lean else {}
        offsets |= {(location, old): new for old, new in found.items()}
        if not document.lean:
            _copy_data(source, place)
        edited = _edit_data(document, location, place, found)
        if (edited or document.lean) and _has_checksum(document, location):
            with place.open("rb") as file:
                digests[location] = hashlib.file_digest(file, "sha1").hexdigest()
    data = serialise(_relocated(document.proto, names, digests, offsets), document.name)
    with target.open("xb") as file:
        file.write(data)


def _refuse_shared_edits(document: Document) -> None:
    shared = external.shared_bytes(document) if document.edits else {}
    for edit in document.edits:
        names = shared.get((external.normalised(edit.location), edit.offset))
        if names:
            raise UnsupportedError(
                f"tensors {names} share bytes of {edit.location!r}, so one cannot be changed "
                "without the other; leave their layers out with --skip"
            )


def _copy_data(source: Path, place: Path) -> None:
    """Copy a data file."""
    with source.open("rb", buffering=0) as old, place.open("xb", buffering=0) as new:
        _copy_bytes(old, new, 0, source.stat().st_size)


def _copy_parts(document: Document, location: str, source: Path, place: Path) -> dict[int, int]:
    """Copy what tensors hold of a data file; return the new offsets by the old ones."""
    held = filter(external.is_external, external.tensors(document.proto))
    regions = [external.region(document, tensor) for tensor in held]
    sizes: dict[int, int] = {}
    for one in regions:
        if one.location == location:
            sizes[one.offset] = max(one.size, sizes.get(one.offset, 0))
    offsets, end = dict[int, int](), 0
    with source.open("rb", buffering=0) as old, place.open("xb", buffering=0) as new:
        for offset, size in sorted(sizes.items()):
            step = _PAGE if size >= _PAGE else _LINE
            offsets[offset] = -(-end // step) * step
            old.seek(offset)
            end = _copy_bytes(old, new, offsets[offset], size)
    return offsets


def _copy_bytes(old: FileIO, new: FileIO, start: int, size: int) -> int:
    """Copy from where a file stands; return the end. Blocks of zeros become holes, as they were."""
    block = np.empty(external.BLOCK_BYTES, dtype=np.uint8)
    end = start
    while count := old.readinto(block[: min(size - end + start, block.size)].data):
        if block[:count].any():
            new.seek(end)
            _write_all(new.fileno(), block[:count].data)
        end += count
    new.truncate(end)
    return end


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _edit_data(document: Document, location: str, place: Path, offsets: Mapping[int, int]) -> bool:
    """Apply the document's edits to the copy of a data file; whether there were any.

    Where the copy has only parts of the file, edits to others are left out.
    """
    edits = [edit for edit in document.edits if external.normalised(edit.location) == location]
    if document.lean:
        known = [edit for edit in edits if edit.offset in offsets]
        edits = [replace(edit, offset=offsets[edit.offset]) for edit in known]
    if edits:
        with place.open("r+b") as file:
            external.apply_edits(file, edits)
    return bool(edits)


def _has_checksum(document: Document, location: str) -> bool:
    said = map(external.entries, filter(external.is_external, external.tensors(document.proto)))
    return any(
        "checksum" in entries and external.normalised(entries["location"]) == location
        for entries in said
    )


def _relocated(
    proto: onnx.ModelProto,
    names: Mapping[str, str],
    digests: Mapping[str, str],
    offsets: Mapping[tuple[str, int], int],
) -> onnx.ModelProto:
    """Return the model with new names and places of its data; itself where nothing is new."""
    moves = any(old != new for (_, old), new in offsets.items())
    if not digests and not moves and all(name == location for location, name in names.items()):
        return proto
    moved = copy_of(proto)
    for tensor in filter(external.is_external, external.tensors(moved)):
        said = external.entries(tensor)
        location = external.normalised(said["location"])
        for entry in tensor.external_data:
            if entry.key == "offset" and offsets:
                entry.value = str(offsets[location, int(said["offset"])])
            if entry.key == "location" and names[location] != location:
                entry.value = names[location]
            # ONNX lets a tensor state the SHA-1 of its file; an edited file has another one.
            if entry.key == "checksum" and location in digests:
                entry.value = digests[location]
    return moved
