"""Samples in arrays: in memory, memory-mapped from `.npy`, or streamed out of an `.npz`.

However big the file is, only the rows of one batch are held.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from onnx_relief.data.batch import Array, Rows
from onnx_relief.data.npz import (
    SUFFIX,
    Header,
    fill,
    open_archive,
    read_header,
    read_member,
    reading,
)
from onnx_relief.errors import DataError


class Column(Protocol):
    """One array, samples along its first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type."""

    def read(self, chunks: Sequence[Rows]) -> Generator[Array, None, None]:
        """Yield a copy of the rows of each chunk; all rows rise."""


@dataclass(frozen=True, eq=False)
class MemoryColumn:
    """An array that the caller holds."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type."""
        return self.array.dtype

    def read(self, chunks: Sequence[Rows]) -> Generator[Array, None, None]:
        """Yield a copy of the rows of each chunk."""
        for rows in chunks:
            yield self.array[rows]


@dataclass(frozen=True, eq=False)
class NpyColumn:
    """A `.npy` file, memory-mapped while it is read."""

    path: Path
    header: Header

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type."""
        return self.header.dtype

    def read(self, chunks: Sequence[Rows]) -> Generator[Array, None, None]:
        """Yield a copy of the rows of each chunk."""
        order: Literal["C", "F"] = "F" if self.header.fortran else "C"
        for rows in chunks:
            # Mapped anew for each chunk: pages that were read count as memory until it is unmapped.
            with reading(self.path):
                mapped = np.memmap(
                    self.path, self.header.dtype, "r", self.header.start, self.header.shape, order
                )
            yield np.array(mapped[rows])


@dataclass(frozen=True, eq=False)
class NpzColumn:
    """One array of an `.npz`, read from front to back; rows between are passed over."""

    path: Path
    name: str
    header: Header

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type."""
        return self.header.dtype

    def read(self, chunks: Sequence[Rows]) -> Generator[Array, None, None]:
        """Yield a copy of the rows of each chunk."""
        if self.header.fortran:  # its rows are not together in the file
            yield from MemoryColumn(read_member(self.path, self.name)).read(chunks)
            return
        with open_archive(self.path) as archive, archive.open(self.name + SUFFIX) as stream:
            for rows in chunks:
                yield self._rows(stream, rows)

    def _rows(self, stream: Any, rows: Rows) -> Array:  # noqa: ANN401 - a seekable zip member
        block = np.empty((len(rows), *self.header.shape[1:]), dtype=self.header.dtype)
        begins = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
        for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
            stream.seek(self.header.start + int(rows[begin]) * self.header.row_bytes)
            fill(stream, block[begin:end])
        return block


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySamples:
    """Samples that lie in one array for each input, all of the same length.

    Attributes:
        columns: Array by the name it has in the data.
        size: Number of samples.
    """

    columns: Mapping[str, Column]
    size: int

    @property
    def skipped(self) -> dict[int, tuple[str, str]]:
        """Nothing is ever left out of arrays."""
        return {}

    def blocks(self, rows: Rows, count: int) -> Iterator[tuple[Rows, dict[str, Array]]]:
        """Yield row numbers and their arrays, `count` samples at a time."""
        chunks = [rows[start : start + count] for start in range(0, len(rows), count)]
        with ExitStack() as stack:
            # Closing them here and not at garbage collection closes the files in time.
            streams = {
                name: stack.enter_context(closing(column.read(chunks)))
                for name, column in self.columns.items()
            }
            for chunk in chunks:
                yield chunk, {name: next(stream) for name, stream in streams.items()}


def array_samples(columns: Mapping[str, Column], origin: str) -> ArraySamples:
    """Return the samples of `columns`.

    Raises:
        DataError: They have no samples axis, or different lengths.
    """
    for name, column in columns.items():
        if not column.shape:
            raise DataError(
                f"array {name!r} of {origin} is a single number and has no axis for samples; give "
                "a folder of .npz files that each hold one complete feed"
            )
    sizes = {name: column.shape[0] for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
        raise DataError(
            f"the arrays of {origin} have different numbers of samples ({counts}); the first axis "
            "must count the same samples in each, or give a folder of complete feeds"
        )
    return ArraySamples(columns=columns, size=next(iter(sizes.values())))


def npy_column(path: Path) -> NpyColumn:
    """Return the array of a `.npy` file.

    Raises:
        DataError: It is no such file, holds objects, or is cut short.
    """
    with reading(path), path.open("rb") as stream:
        header = read_header(stream, str(path))
    if path.stat().st_size < header.stop:
        raise DataError(f"{path} is cut short; make the file again")
    return NpyColumn(path, header)
