"""Digests of models and data, by which a run that is gone on with is told from another one."""

from __future__ import annotations

import hashlib

from onnx_relief.data import Dataset, first_sample
from onnx_relief.data.shuffle import labels_of
from onnx_relief.graph.document import Document
from onnx_relief.graph.external import data_files

_LOOKED_AT = 32
"""Samples, evenly spread, that a digest of data is about."""


def digest_of_model(document: Document) -> str:
    """Return a digest of a model with its data files; where it lies makes no difference."""
    found = hashlib.sha256(document.proto.SerializeToString(deterministic=True))
    if document.has_external_data:
        for name, path in sorted(data_files(document).items()):
            found.update(name.encode())
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def digest_of_data(data: Dataset) -> str:
    """Return a digest of some samples as the model gets them, of all labels, and of the size.

    That is quick to read, and tells other data and another preprocessing apart, unless they differ
    in other samples than these alone.

    Raises:
        DataError: No sample can be read.
    """
    found = hashlib.sha256(str(data.size).encode())
    first_sample(data)  # says what is wrong where there is none
    for batch in data.take(_LOOKED_AT).batches(1):
        for name, array in sorted(batch.feed.items()):
            found.update(f"{name} {array.shape} {array.dtype}".encode())
            is_text = array.dtype.kind in "OSU"
            found.update(str(array.tolist()).encode() if is_text else array.tobytes())
    labels = labels_of(data)
    if labels is not None:
        found.update(labels.tobytes())
    return found.hexdigest()
