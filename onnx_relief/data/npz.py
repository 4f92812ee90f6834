"""Reading `.npy` and `.npz` without loading them, and never unpickling.

The format is NumPy's NEP 1: magic, version, a header that is a Python literal, then the values.
An `.npz` is a zip of such files.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy

from onnx_relief.data.batch import Array
from onnx_relief.errors import DataError

SUFFIX: Final = ".npy"

_READERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an array file says about itself.

    Attributes:
        shape: Length of every axis.
        dtype: Element type.
        fortran: Whether the first axis runs fastest.
        start: Where the values begin, in bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def stop(self) -> int:
        """Where the values end, in bytes."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], origin: str) -> Header:
    """Return the header that `stream` begins with and leave it at the values.

    Raises:
        DataError: It is no array, or holds pickled objects or other things than numbers and text.
    """
    try:
        reader = _READERS.get(npy.read_magic(stream))
        if reader is None:
            raise DataError(f"{origin} is of an unknown .npy version; save it again")
        sizes, fortran, dtype = reader(stream)
        shape = tuple(map(int, sizes))
        if min(shape, default=0) < 0:
            raise ValueError(f"it has shape {shape}")
    except DataError:
        raise
    except Exception as error:  # NumPy parses the header as Python, which fails in a dozen ways
        raise DataError(f"{origin} is not a .npy array ({error}); save it again") from error
    if dtype.hasobject:
        raise DataError(
            f"{origin} holds pickled Python objects, which are not loaded because that can run any "
            "code; save it again as an array of numbers"
        )
    if dtype.kind not in "biufcU":
        raise DataError(f"{origin} holds {dtype}, not numbers; save the numbers alone")
    return Header(shape=shape, dtype=dtype, fortran=fortran, start=stream.tell())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged or vanished file raises into a `DataError` that names it.

    Raises:
        DataError: It does, or it is a pipe, which would be waited for without end.
    """
    try:
        if path.is_fifo():
            raise DataError(f"{path} is a pipe, but data are read more than once; give a file")
        yield
    except (*_DAMAGED, KeyError) as error:
        raise DataError(f"{path} is damaged or cannot be read ({error}); make it again") from error


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an `.npz` or `.zip` for reading.

    Raises:
        DataError: It is no archive, or turns out to be damaged while it is open.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        yield archive


def read_headers(path: Path) -> dict[str, Header]:
    """Return the header of every array in an `.npz` by its name.

    Raises:
        DataError: As `read_header`, or there is no array in it, or one is cut short.
    """
    headers = {}
    with open_archive(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(SUFFIX)
            if name == info.filename:
                continue
            origin = f"array {name!r} of {path}"
            with archive.open(info) as stream:
                headers[name] = read_header(stream, origin)
            if info.file_size < headers[name].stop:
                raise DataError(f"{origin} is cut short; make the file again")
    if not headers:
        raise DataError(f"{path} holds no arrays; save some with numpy.savez")
    return headers


def read_member(path: Path, name: str) -> Array:
    """Return one whole array of an `.npz`.

    Raises:
        DataError: It cannot be read.
    """
    with open_archive(path) as archive, archive.open(name + SUFFIX) as stream:
        header = read_header(stream, f"array {name!r} of {path}")
        flat = np.empty(math.prod(header.shape), dtype=header.dtype)
        fill(stream, flat)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def fill(stream: IO[bytes], target: Array) -> None:
    """Read the bytes of `target`, which is C-contiguous, from `stream`.

    Raises:
        EOFError: The stream ends before.
    """
    if not target.size:
        return
    view = target.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("it ends too early")
        done += count
