"""The folder of checkpoints as its owner sees it: what in it is ours, and nothing else is touched.

No torch here: `bridge.train.checkpoints` writes what lies in it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from onnx_relief.errors import OutputError

CHECKPOINTS = ("last.ckpt", "best.ckpt")


def check_folder(folder: Path, flag: str) -> None:
    """Refuse a place for checkpoints that is something else already.

    Raises:
        OutputError: It is a file, holds other files, or its parent is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{flag} {folder} is a file; name a folder")
    if not folder.parent.is_dir():
        raise OutputError(f"{flag} {folder}: there is no folder {folder.parent}; make it first")
    if not folder.is_dir():
        return
    strange = sorted(
        {path.name for path in folder.iterdir()} - {path.name for path in _own(folder)}
    )
    if strange:
        raise OutputError(
            f"{flag} {folder} holds other files, for example {strange[0]}; name a new folder"
        )


def holds_checkpoint(folder: Path) -> bool:
    """Return whether a training that was begun there can be gone on with."""
    return (folder / CHECKPOINTS[0]).exists()


def clear(folder: Path) -> None:
    """Remove checkpoints, and the folder if nothing else is in it."""
    if folder.is_dir():
        for path in [*_own(folder)]:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not there, or holds something else
        folder.rmdir()


def asides(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield what a process that was killed left beside files of these names."""
    wanted = "|".join(re.escape(name[:100]) for name in names)
    left = re.compile(rf"\.({wanted})\.\d+\.[0-9a-f]{{8}}")
    return (path for path in folder.iterdir() if left.fullmatch(path.name))


def remove_asides(folder: Path, names: Iterable[str]) -> None:
    """Remove what `asides` finds."""
    for path in [*asides(folder, names)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _own(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in CHECKPOINTS)
    yield from asides(folder, CHECKPOINTS)
