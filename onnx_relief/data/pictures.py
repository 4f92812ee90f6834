"""Pictures of a folder or zip, decoded by a few threads, in order, a few pictures ahead.

Pillow lets go of Python's lock while it decodes and resizes, so threads are enough.
"""

from __future__ import annotations

import os
import stat
import sys
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from onnx_relief.data.batch import Array, Rows
from onnx_relief.data.decode import MAX_FILE_BYTES, BrokenPictureError, decode
from onnx_relief.data.npz import open_archive, reading
from onnx_relief.data.rendering import Rendering
from onnx_relief.errors import DataError

COLUMN = "pictures"

_Result = TypeVar("_Result")


class PictureFiles(Protocol):
    """Where the bytes of pictures are."""

    def entries(self) -> list[str]:
        """Return relative paths of all files and folders, folders with a slash at the end."""

    def opened(self) -> AbstractContextManager[Callable[[str], bytes]]:
        """Return a way to read one file, which several threads may use while it is open."""


@dataclass(frozen=True)
class FolderFiles:
    """Pictures in a folder."""

    root: Path

    def entries(self) -> list[str]:
        """Return all files and folders below; links are followed, but not in circles."""
        with reading(self.root):
            return self._walk()

    def _walk(self) -> list[str]:
        found: list[str] = []
        # The real paths of each folder and those above it: two links to one folder are no circle.
        lines: dict[str, frozenset[str]] = {}
        for parent, folders, files in os.walk(self.root, onerror=_raise, followlinks=True):
            real = os.path.realpath(parent)
            above = lines.get(os.path.dirname(parent), frozenset())
            if real in above:
                folders.clear()
                continue
            lines[parent] = above | {real}
            below = Path(parent).relative_to(self.root)
            found += [f"{(below / folder).as_posix()}/" for folder in folders]
            found += [(below / file).as_posix() for file in files]
        return found

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], bytes]]:
        """Return a reader of files."""

        def read(path: str) -> bytes:
            file = self.root / path
            facts = file.stat()
            if not stat.S_ISREG(facts.st_mode):  # a pipe would be waited for without end
                raise BrokenPictureError("it is no file")
            _check_bytes(facts.st_size)
            return file.read_bytes()

        yield read


def _raise(error: OSError) -> None:
    raise error


@dataclass(frozen=True)
class ZipFiles:
    """Pictures in a zip, read in place; nothing is extracted."""

    path: Path

    def entries(self) -> list[str]:
        """Return all members."""
        with open_archive(self.path) as archive:
            return [path for path in map(_member_path, archive.namelist()) if path]

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], bytes]]:
        """Return a reader of members."""
        with reading(self.path):
            archive = zipfile.ZipFile(self.path)

        names = {_member_path(name): name for name in archive.namelist()}

        def read(path: str) -> bytes:
            _check_bytes(archive.getinfo(names[path]).file_size)
            return archive.read(names[path])

        with archive:
            yield read


def _member_path(name: str) -> str:
    """Return a member's path between slashes; older zippers on Windows wrote backslashes."""
    return name.replace("\\", "/").removeprefix("./")


def _check_bytes(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise BrokenPictureError(f"the file has {size} bytes, more than {MAX_FILE_BYTES}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureSamples:
    """Pictures as samples.

    Attributes:
        files: Where their bytes are.
        paths: Which ones, in order.
        plan: What becomes of each.
        strict: Whether a broken picture stops everything instead of being left out.
        name: What to call the data in an error.
        skipped: Row -> (path, reason) of broken pictures; grows while pictures are read.
    """

    files: PictureFiles
    paths: tuple[str, ...]
    plan: Rendering
    strict: bool
    name: str
    skipped: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of pictures, broken ones among them."""
        return len(self.paths)

    def blocks(self, rows: Rows, count: int) -> Iterator[tuple[Rows, dict[str, Array]]]:
        """Yield row numbers and uint8 (samples, height, width, channels), `count` at a time.

        Raises:
            DataError: A picture is broken and `strict` is set, or pictures differ in size.
        """
        numbers: list[int] = []
        block: list[Array] = []
        first: tuple[str, tuple[int, ...]] | None = None
        for row, pixels in self._good(rows):
            first = first or (self.paths[row], pixels.shape)
            self._check_size(first, row, pixels)
            numbers.append(row)
            block.append(pixels)
            if len(block) == count:
                yield np.array(numbers, dtype=np.int64), {COLUMN: np.stack(block)}
                numbers, block = [], []
        if block:
            yield np.array(numbers, dtype=np.int64), {COLUMN: np.stack(block)}

    def _check_size(self, first: tuple[str, tuple[int, ...]], row: int, pixels: Array) -> None:
        path, shape = first
        if pixels.shape != shape:
            raise DataError(
                f"the pictures of {self.name} have different sizes, {path} {shape[0]} x {shape[1]} "
                f"and {self.paths[row]} {pixels.shape[0]} x {pixels.shape[1]}; give one size with "
                f"--resize {shape[0]}x{shape[1]} or --crop"
            )

    def _good(self, rows: Rows) -> Iterator[tuple[int, Array]]:
        """Yield row and pixels of every picture that can be read."""
        with self.files.opened() as read:

            def load(row: int) -> Array | BrokenPictureError:
                path = self.paths[row]
                try:
                    image = decode(_bytes_of(read, path))
                    return self.plan.pixels(image, f"{path} of {self.name}")
                except BrokenPictureError as error:
                    return error

            for row, result in _in_order(load, rows.tolist()):
                if isinstance(result, BrokenPictureError):
                    self._skip(row, result)
                else:
                    yield row, result

    def _skip(self, row: int, reason: BrokenPictureError) -> None:
        path = self.paths[row]
        if self.strict:
            raise DataError(
                f"{path} of {self.name} is broken ({reason}); remove it, or leave --strict out to "
                "skip such pictures"
            ) from reason
        self.skipped[row] = (path, str(reason))


def _bytes_of(read: Callable[[str], bytes], path: str) -> bytes:
    try:
        return read(path)
    except BrokenPictureError:
        raise
    except Exception as error:  # files vanish, zips are encrypted, cut short, of unknown methods
        raise BrokenPictureError(f"{error or type(error).__name__}") from error


def _in_order(work: Callable[[int], _Result], rows: Iterable[int]) -> Iterator[tuple[int, _Result]]:
    """Yield each row with its result, computed by threads a bounded number of rows ahead."""
    threads = min(8, _processor_count())
    waiting: deque[tuple[int, Future[_Result]]] = deque()
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pictures") as pool:
        try:
            for row in rows:
                waiting.append((row, pool.submit(work, row)))
                if len(waiting) > 2 * threads:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _processor_count() -> int:
    # Containers often allow fewer processors than the machine has.
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
