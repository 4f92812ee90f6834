"""Write a model so that a reader sees the old file or the new one, never a half.

Everything is written into a hidden folder beside the target, so that it can be run and checked
there under the names it will have. Then data files are moved to names that nothing uses yet, and
last the model is renamed: this one step is where the old model ends and the new one begins. Killed
before it, the old model still has its own data; killed after it, the new one has.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnx_relief.errors import ModelError, OutputError
from onnx_relief.files import check_regular
from onnx_relief.graph import external
from onnx_relief.graph.document import MAX_PROTO_BYTES, Document, parse_file
from onnx_relief.graph.writing import write_model

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder with -o",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder with -o",
    errno.EFBIG: "files may not become this large here; choose another folder with -o",
    errno.EACCES: "the folder may not be written; choose another one with -o",
    errno.EPERM: "the folder may not be written; choose another one with -o",
    errno.EROFS: "the disk is read-only; choose another folder with -o",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one with -o",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Staged:
    """A complete model beside its target, not yet under its name.

    Attributes:
        path: The model as it lies now: complete, with its data files, ready to run.
        target: Where `commit` puts it.
        data: Its data files, relative to the folder of either.
        force: Whether the target may be replaced.
        replaced: Data files that only the model that is replaced uses.
    """

    path: Path
    target: Path
    data: tuple[str, ...]
    force: bool
    replaced: tuple[Path, ...]

    def commit(self) -> None:
        """Give the model its name.

        Raises:
            OutputError: This is not possible (any more); nothing has changed then.
        """
        moved: list[Path] = []
        try:
            with _told_as_output_error(self.target):
                self._move(moved)
        finally:
            # The model itself moves last: while it is still aside, nothing may stay behind.
            if self.path.exists():
                _remove(moved)
        with suppress(OSError):
            _sync(self.target.parent)
        for file in self.replaced:
            _remove_unless_mentioned(file, self.target.parent)

    def _move(self, moved: list[Path]) -> None:
        """Move data files, then the model; `moved` tells what now exists, also on failure."""
        for file in (*self.data, self.path.name):
            _sync(self.path.parent / file)
        if not self.force and os.path.lexists(self.target):
            raise _exists_already(self.target)
        for name in self.data:
            place = self.target.parent / name
            for folder in [*PurePosixPath(name).parents][-2::-1]:
                if not (self.target.parent / folder).is_dir():
                    moved.append(self.target.parent / folder)
                    moved[-1].mkdir()
            if os.path.lexists(place):
                raise OutputError(f"{place} appeared meanwhile; choose another name with -o")
            moved.append(place)
            os.replace(self.path.parent / name, place)
            _sync(place.parent)
        os.replace(self.path, self.target)


def save(document: Document, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write a model under a name, completely or not at all.

    Args:
        document: The model; its own files are only read.
        path: Where to write it, in a folder that exists.
        force: Whether a model of that name may be replaced.

    Raises:
        OutputError: It cannot be written there; what was there is as it was.
    """
    with staged(document, path, force=force) as ready:
        ready.commit()


@contextmanager
def staged(
    document: Document, path: str | os.PathLike[str], *, force: bool = False
) -> Iterator[Staged]:
    """Write a model beside its target and let the caller look at it before it gets its name.

    Leaving without `Staged.commit`, by an error or otherwise, removes what was written.

    Args:
        document: The model; its own files are only read.
        path: The target, in a folder that exists.
        force: Whether a model of that name may be replaced.

    Raises:
        OutputError: It cannot be written there; what was there is as it was.
    """
    target = Path(path)
    with _told_as_output_error(target):
        _refuse_target(document, target, force=force)
        names = _data_names(document, target, force=force)
        replaced = _data_of_replaced(document, target) if force else ()
    aside = target.parent / f".{target.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        with _told_as_output_error(target):
            aside.mkdir()
            write_model(document, aside / target.name, names)
        yield Staged(
            path=aside / target.name,
            target=target,
            data=tuple(names.values()),
            force=force,
            replaced=replaced,
        )
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_to(document: Document, folder: Path, filename: str) -> Path:
    """Write a model with its data files into a fresh folder, and return its path.

    Args:
        document: The model; its own files are only read.
        folder: An empty folder.
        filename: Name of the model in it.

    Raises:
        OutputError: It cannot be written.
    """
    target = folder / filename
    with _told_as_output_error(target):
        write_model(document, target, _data_names(document, target, force=False))
    return target


def _refuse_target(document: Document, target: Path, *, force: bool) -> None:
    """Refuse a target that could not or should not be written, before any work is done."""
    if target.is_dir():
        raise OutputError(f"{target} is a folder; name a file in it with -o")
    if not target.parent.is_dir():
        raise OutputError(
            f"the folder {target.parent} does not exist; create it, or choose another one with -o"
        )
    if not os.path.lexists(target):
        return
    check_regular(target, "-o")
    if any(target.exists() and target.samefile(file) for file in _inputs_data(document)):
        raise OutputError(
            f"{target} holds the weights of the input model; choose another name with -o"
        )
    if not force and document.path and target.exists() and target.samefile(document.path):
        raise OutputError(
            f"{target} is the input model itself; choose another name with -o, "
            "or add --force to replace it"
        )
    if not force:
        raise _exists_already(target)


def _inputs_data(document: Document) -> Iterator[Path]:
    yield from external.data_files(document).values() if document.has_external_data else ()


def _exists_already(target: Path) -> OutputError:
    return OutputError(
        f"{target} exists already; choose another name with -o, or add --force to replace it"
    )


def _data_names(document: Document, target: Path, *, force: bool) -> dict[str, str]:
    """Choose for each data file a name beside the target that nothing there uses.

    With `force` too: the data of the model that is replaced must stay until that model is gone.
    """
    names: dict[str, str] = {}
    taken = {target.name}
    for location in external.data_files(document):
        for name in _candidates(location, target, force=force):
            place = target.parent / name
            if name in taken or os.path.lexists(place):
                continue
            if not place.resolve().is_relative_to(target.parent.resolve()):
                raise OutputError(
                    f"{place} leads out of the folder of {target}; choose another one with -o"
                )
            names[location] = name
            taken.add(name)
            break
        else:
            raise OutputError(
                f"the model's data cannot be written beside {target}, its names exist already; "
                "choose another name with -o, or add --force to use a new one"
            )
    return names


def _candidates(location: str, target: Path, *, force: bool) -> Iterator[str]:
    """Yield names for a data file: ``w.bin``, ``out.w.bin``, and if forced ``out.1.w.bin``, ..."""
    old = PurePosixPath(location)
    yield str(old)
    yield str(old.with_name(f"{target.stem}.{old.name}"))
    for number in itertools.count(1) if force else ():
        yield str(old.with_name(f"{target.stem}.{number}.{old.name}"))


def _data_of_replaced(document: Document, target: Path) -> tuple[Path, ...]:
    """Return the data files that replacing the target leaves without a use.

    Only those that bear its name and are not the input of this run: otherwise every forced run
    would leave one more copy of all weights behind.
    """
    if not document.has_external_data or not target.is_file():
        return ()
    try:
        files = external.data_files(parse_file(target))
    except ModelError:  # what stands there has no data that could be told apart
        return ()
    ours = set(external.data_files(document).values())
    return tuple(
        target.parent / location
        for location, file in files.items()
        if PurePosixPath(location).name.startswith(f"{target.stem}.") and file not in ours
    )


def _remove(moved: list[Path]) -> None:
    """Remove files and the folders made for them, the latest first."""
    for path in reversed(moved):
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


def _remove_unless_mentioned(file: Path, folder: Path) -> None:
    """Remove a data file, unless another file beside it or its model still speaks of it.

    Whatever that file is called: a copy ``model.onnx.bak`` needs its weights, too.
    """
    with suppress(OSError):
        for place in {folder.resolve(), file.parent.resolve()}:
            for other in place.iterdir():
                if other.is_file() and not other.samefile(file) and _may_mention(other, file.name):
                    return
        file.unlink()


def _may_mention(file: Path, name: str) -> bool:
    """Return whether a name may stand in a file that can be a model; what is closed may hold it."""
    try:
        with file.open("rb") as opened:
            if not 0 < os.fstat(opened.fileno()).st_size <= MAX_PROTO_BYTES:
                return False
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(name.encode()) >= 0
    except OSError:
        return True


def _sync(path: Path) -> None:
    """Make a file's contents, or a folder's names, survive a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not read, or any on Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told_as_output_error(target: Path) -> Iterator[None]:
    """Turn a failure of the disk into one sentence about the target."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, f"{error.strerror or error}; choose another -o")
        raise OutputError(f"{target} cannot be written: {advice}") from error
