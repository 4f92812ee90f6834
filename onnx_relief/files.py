"""Write reports, plans and scores so that a reader sees the old file or the new one, no half."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO

from onnx_relief.errors import OutputError


def check_output(path: Path, flag: str, *, force: bool) -> None:
    """Refuse a file that could not be written, before any work is done.

    Args:
        path: Where it shall go.
        flag: What the user said it with.
        force: Whether a file of that name may be replaced.

    Raises:
        OutputError: It cannot be written there.
    """
    if os.path.isdir(path):
        raise OutputError(f"{path} is a folder; name a file in it with {flag}")
    if os.path.lexists(path) and not force:
        raise OutputError(
            f"{path} exists already; choose another name with {flag}, or add --force to replace it"
        )
    check_regular(path, flag)
    _check_folder(path.parent, flag)


def check_regular(path: Path, flag: str) -> None:
    """Refuse to replace what is no file: a pipe, a device.

    Raises:
        OutputError: It is one.
    """
    if os.path.lexists(path) and not os.path.islink(path) and not os.path.isfile(path):
        raise OutputError(f"{path} is not a regular file; choose another name with {flag}")


def check_output_folder(path: Path, flag: str, *, force: bool) -> None:
    """Refuse a folder that could not be filled; an existing one has to be empty or forced.

    Raises:
        OutputError: It cannot be used.
    """
    if not os.path.lexists(path):
        _check_folder(path.parent, flag)
        return
    if not os.path.isdir(path):
        raise OutputError(f"{path} is not a folder; choose another name with {flag}")
    _check_folder(path, flag)
    if not force and any(path.iterdir()):
        raise OutputError(
            f"{path} is not empty; choose another folder with {flag}, or add --force to write there"
        )


def check_distinct(places: Sequence[tuple[str, Path]]) -> None:
    """Refuse outputs that would overwrite each other.

    Args:
        places: Flag and path of each.

    Raises:
        OutputError: Naming both flags.
    """
    taken: dict[Path, str] = {}
    for flag, path in places:
        place = path.resolve()
        if place in taken:
            raise OutputError(
                f"{taken[place]} and {flag} both name {path}; give them different names"
            )
        taken[place] = flag


class StagedFiles:
    """Files that are complete beside their targets, and get their names all at once."""

    def __init__(self, *, force: bool) -> None:
        self._force = force
        self._files: list[tuple[Path, Path, str]] = []

    def add(self, path: Path, flag: str, write: Callable[[IO[bytes]], object]) -> None:
        """Let `write` fill a new file that will be called `path`.

        Raises:
            OutputError: It cannot be written.
        """
        aside = aside_of(path)
        self._files.append((aside, path, flag))
        with _told(path, flag), aside.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())

    def commit(self) -> None:
        """Give every file its name.

        Raises:
            OutputError: This is not possible (any more).
        """
        for aside, path, flag in self._files:
            with _told(path, flag):
                if not self._force and os.path.lexists(path):
                    raise OutputError(f"{path} appeared meanwhile; choose another name with {flag}")
                os.replace(aside, path)

    def clean_up(self) -> None:
        """Remove what did not get its name."""
        for aside, _, _ in self._files:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


@contextmanager
def staged_files(*, force: bool) -> Iterator[StagedFiles]:
    """Collect files; leaving without `StagedFiles.commit` removes them."""
    files = StagedFiles(force=force)
    try:
        yield files
    finally:
        files.clean_up()


def write_file(
    path: Path, flag: str, write: Callable[[IO[bytes]], object], *, force: bool = False
) -> None:
    """Write one file, completely or not at all.

    Raises:
        OutputError: It cannot be written; what was there is as it was.
    """
    check_output(path, flag, force=force)
    with staged_files(force=force) as files:
        files.add(path, flag, write)
        files.commit()


def remove_asides(paths: Iterable[Path]) -> None:
    """Remove what this process left beside `paths`, should even the cleaning up be interrupted."""
    for path in paths:
        for left in path.parent.glob(f".{escape(path.name[:100])}.{os.getpid()}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def aside_of(path: Path) -> Path:
    """Return a hidden name beside `path` that nothing uses."""
    return path.parent / f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}"


def _check_folder(folder: Path, flag: str) -> None:
    if not os.path.isdir(folder):
        raise OutputError(
            f"the folder {folder} does not exist; create it, or choose another one with {flag}"
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"the folder {folder} may not be written ({reason}); choose another one with {flag}"
        ) from error


@contextmanager
def _told(path: Path, flag: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"{path} cannot be written ({reason}); choose another place with {flag}"
        ) from error
