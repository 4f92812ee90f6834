"""Write a model and its data files under given names, with pending edits applied.

What is written is complete but not yet safe: `save` decides where it is written and when it gets
its final name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from onnx_relief.errors import UnsupportedError
from onnx_relief.graph import external
from onnx_relief.graph.document import Document, copy_of, serialise


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
    for location, source in external.data_files(document).items():
        place = target.parent / names[location]
        place.parent.mkdir(parents=True, exist_ok=True)
        _copy_data(source, place)
        if _edit_data(document, location, place) and _has_checksum(document, location):
            with place.open("rb") as file:
                digests[location] = hashlib.file_digest(file, "sha1").hexdigest()
    data = serialise(_relocated(document.proto, names, digests), document.name)
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
    """Copy a data file in blocks; blocks of zeros become holes, so sparse files stay sparse."""
    block = np.empty(external.BLOCK_BYTES, dtype=np.uint8)
    with source.open("rb", buffering=0) as old, place.open("xb", buffering=0) as new:
        end = 0
        while count := old.readinto(block.data):
            if block[:count].any():
                new.seek(end)
                _write_all(new.fileno(), block[:count].data)
            end += count
        new.truncate(end)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _edit_data(document: Document, location: str, place: Path) -> bool:
    """Apply the document's edits to the copy of a data file; whether there were any."""
    edits = [edit for edit in document.edits if external.normalised(edit.location) == location]
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
    proto: onnx.ModelProto, names: Mapping[str, str], digests: Mapping[str, str]
) -> onnx.ModelProto:
    """Return the model with the new names of its data files; itself where nothing is new."""
    if not digests and all(name == location for location, name in names.items()):
        return proto
    moved = copy_of(proto)
    for tensor in filter(external.is_external, external.tensors(moved)):
        location = external.normalised(external.entries(tensor)["location"])
        for entry in tensor.external_data:
            if entry.key == "location" and names[location] != location:
                entry.value = names[location]
            # ONNX lets a tensor state the SHA-1 of its file; an edited file has another one.
            if entry.key == "checksum" and location in digests:
                entry.value = digests[location]
    return moved
