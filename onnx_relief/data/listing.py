"""Which pictures of a folder or archive are meant, and the class of each.

Works on relative paths alone, so that a folder and a zip of it give the same. Class folders are the
first folders in which the paths differ: what wraps everything (``dataset/...``) is passed over.
Every class folder counts, an empty one too, or the classes behind it would move up by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from onnx_relief.data.decode import SUFFIXES
from onnx_relief.errors import DataError

SPLITS: Final = ("train", "test", "val", "valid", "validation")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The pictures to read.

    Attributes:
        paths: Relative paths, sorted.
        labels: Class number of each, or None without class folders.
        class_count: Number of class folders.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...] | None
    class_count: int


def list_pictures(entries: Iterable[str], split: str | None, name: str) -> Listing:
    """Return the pictures among `entries`.

    Args:
        entries: Relative paths between slashes; folders end in a slash.
        split: Top-level folder to take, or None for all.
        name: What to call the data in an error.

    Raises:
        DataError: There are no pictures, the split does not exist or must be chosen, or pictures
            lie beside class folders.
    """
    paths = sorted(entry for entry in entries if _is_visible(entry))
    pictures = [path for path in paths if is_picture(path)]
    if not pictures:
        raise DataError(f"{name} holds no pictures ({', '.join(sorted(SUFFIXES))}); give some")
    wrapping = _wrapping(paths, pictures, split)
    paths = [path.removeprefix(wrapping) for path in paths if path.startswith(wrapping)]
    splits = _splits(paths)
    if split is None:
        if splits:
            choices = " or ".join(f"{name}:{found}" for found in splits)
            raise DataError(f"{name} holds {' and '.join(splits)} pictures; choose {choices}")
        return _listing(paths, wrapping, _classes(paths), name)
    top = f"{split}/"
    chosen = [path.removeprefix(top) for path in paths if path.startswith(top) and path != top]
    if not any(is_picture(path) for path in chosen):
        raise DataError(
            f"{name} has no pictures in a folder {split!r}; its folders are "
            f"{', '.join(_classes(paths)) or 'none'}"
        )
    # A class that only the other split has still keeps its number here.
    inside = [path.split("/", 1)[1] for path in paths if path.split("/", 1)[0] in {split, *splits}]
    return _listing(chosen, wrapping + top, _classes(inside), f"{name}:{split}")


def is_picture(path: str) -> bool:
    """Return whether a file is a picture by its name."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES and not path.endswith("/")


def _is_visible(path: str) -> bool:
    parts = path.rstrip("/").split("/")
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _wrapping(paths: Sequence[str], pictures: Sequence[str], split: str | None) -> str:
    """Return the folders around all others, of which the last may be a class of its own."""
    wrapping = ""
    while True:
        depth = min(path.removeprefix(wrapping).count("/") for path in pictures)
        tops = _classes([path.removeprefix(wrapping) for path in paths])
        if depth < 2 or len(tops) != 1 or tops[0] == split:
            return wrapping
        wrapping += f"{tops[0]}/"


def _splits(paths: Sequence[str]) -> list[str]:
    """Return which top-level folders are splits, whatever lies beside them.

    A train is also a thing to recognise: a single folder of that name is a class.
    """
    tops = {path.split("/", 1)[0] for path in paths if is_picture(path)}
    found = [top for top in tops if top.lower() in SPLITS]
    return sorted(found, key=lambda top: SPLITS.index(top.lower())) if len(found) > 1 else []


def _classes(paths: Sequence[str]) -> list[str]:
    return sorted({path.split("/", 1)[0] for path in paths if "/" in path})


def _listing(paths: Sequence[str], prefix: str, classes: Sequence[str], name: str) -> Listing:
    pictures = [path for path in paths if is_picture(path)]
    loose = [path for path in pictures if "/" not in path]
    full = tuple(prefix + path for path in pictures)
    if len(loose) == len(pictures):
        return Listing(paths=full, labels=None, class_count=0)
    if loose:
        raise DataError(
            f"{name} has pictures beside its class folders, {loose[0]} for example; move them into "
            "a class folder"
        )
    number = {folder: index for index, folder in enumerate(classes)}
    labels = tuple(number[path.split("/", 1)[0]] for path in pictures)
    return Listing(paths=full, labels=labels, class_count=len(classes))
