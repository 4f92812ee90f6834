"""Which dense model a pruned one came from: two notes in the model's metadata.

The notes are what `retrain` finds its default teacher by. Only the file's name and digest are kept,
never its folder, since pruned models are given away.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from onnx_relief.graph.document import Document

logger = logging.getLogger(__name__)
FILE_KEY = "onnx_relief.dense_file"
DIGEST_KEY = "onnx_relief.dense_sha256"


def note_dense(document: Document, dense: Document) -> Document:
    """Return a copy of `document` that says that it was made from `dense`.

    A model that came from a pruned one keeps the first note, and one that came from memory, or from
    a file whose name is not UTF-8, gets none.
    """
    if dense.path is None or FILE_KEY in _notes(document):
        return document
    name = dense.path.name
    if name != name.encode(errors="replace").decode():  # metadata is UTF-8
        return document
    noted = document.copy()
    noted.proto.metadata_props.add(key=FILE_KEY, value=name)
    noted.proto.metadata_props.add(key=DIGEST_KEY, value=_digest(dense.path))
    return noted


def find_dense(document: Document) -> Path | None:
    """Return the file that `document` was made from, if it lies beside it or in this folder."""
    notes = _notes(document)
    name = notes.get(FILE_KEY, "")
    if not name or Path(name).name != name:  # a note of a stranger must not lead elsewhere
        return None
    folders = [document.path.parent] if document.path else []
    for folder in (*folders, Path.cwd()):
        path = folder / name
        if not path.is_file() or (document.path and path.samefile(document.path)):
            continue
        if _digest(path) == notes.get(DIGEST_KEY):
            return path
        logger.warning("%s is not the model that %s was made from", path, document.name)
    return None


def digest_of(document: Document) -> str:
    """Return the digest of the file that a model was loaded from; empty if it came from memory.

    Data files do not count, as in the notes.
    """
    return "" if document.path is None else _digest(document.path)


def noted_name(document: Document) -> str | None:
    """Return the name of the file that `document` says that it was made from."""
    return _notes(document).get(FILE_KEY)


def _notes(document: Document) -> dict[str, str]:
    return {entry.key: entry.value for entry in document.proto.metadata_props}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
