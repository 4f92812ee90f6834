"""Arrays that can be read from front to back only, unpacked so that any order is quick.

They are unpacked to a temporary folder, block by block: memory does not grow with the data.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from onnx_relief.data.arrays import ArraySamples, Column, NpyColumn, NpzColumn, npy_column
from onnx_relief.data.batch import Array, Dataset, Rows
from onnx_relief.data.samples import SampleSource
from onnx_relief.errors import OutputError

_CHUNK_BYTES = 1 << 22
_MAPPED_BYTES = 1 << 28
_FAULT_BYTES = 1 << 16  # what Linux maps around a byte that is read


def seekable(data: Dataset) -> Dataset:
    """Return the same samples, quick to read in any order.

    The arrays of an `.npz` can be read from front to back only, so they are put into a temporary
    folder, which goes when the dataset does; everything else is returned as it is.

    Raises:
        OutputError: The temporary folder has no room.
        DataError: The file cannot be read.
    """
    source = data.source
    if not isinstance(source, SampleSource) or not isinstance(source.raw, ArraySamples):
        return data
    columns = source.raw.columns
    if not any(isinstance(column, NpzColumn) for column in columns.values()):
        return data
    raw = replace(source.raw, columns=_unpacked(columns))
    return replace(data, source=replace(source, raw=raw))


def both_seekable(data: Dataset, other: Dataset) -> tuple[Dataset, Dataset]:
    """Return two datasets as `seekable` does; what both have is unpacked once.

    Raises:
        OutputError, DataError: As `seekable`.
    """
    ready = seekable(data)
    if other.source is data.source:
        return ready, replace(other, source=ready.source)
    return ready, seekable(other)


@dataclass(frozen=True, eq=False)
class _Unpacked(NpyColumn):
    """An array in a temporary folder, which lives as long as one of its arrays is in use."""

    folder: _Folder

    def read(self, chunks: Sequence[Rows]) -> Generator[Array, None, None]:
        """Yield a copy of the rows of each chunk."""
        left = 0
        for rows in chunks:
            if left <= 0:
                # Pages that were read count as memory until the file is mapped anew.
                mapped = np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))
                left = _MAPPED_BYTES
            block: Array = mapped[rows]
            left -= len(rows) * max(_FAULT_BYTES, self.header.row_bytes)
            yield block


class _Folder:
    """A temporary folder that goes when this object does."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="onnx-relief-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _unpacked(columns: Mapping[str, Column]) -> dict[str, Column]:
    folder = _Folder()
    found: dict[str, Column] = {}
    try:
        for index, (name, column) in enumerate(columns.items()):
            if isinstance(column, NpzColumn):
                plain = _unpack(column, folder.path / f"{index}.npy")
                found[name] = _Unpacked(plain.path, plain.header, folder)
            else:
                found[name] = column
    except BaseException:
        folder.remove()
        raise
    return found


def _unpack(column: NpzColumn, path: Path) -> NpyColumn:
    header = {"descr": npy.dtype_to_descr(column.dtype), "fortran_order": False}
    count = max(1, _CHUNK_BYTES // max(1, column.header.row_bytes))
    starts = range(0, column.shape[0], count)
    stop = column.shape[0]
    chunks = [np.arange(start, min(start + count, stop), dtype=np.int64) for start in starts]
    blocks = column.read(chunks)
    try:
        with path.open("xb") as file:
            npy.write_array_header_2_0(file, header | {"shape": column.shape})
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
    except OSError as error:
        raise OutputError(
            f"{column.name!r} of {column.path} cannot be unpacked into the temporary folder "
            f"{path.parent} ({error}); free some space, or set TMPDIR to a larger disk"
        ) from error
    return npy_column(path)
