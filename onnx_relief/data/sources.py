"""What the user calls DATA -> a dataset. The forms of files and folders are two tables.

A new form is one opener and one line in a table.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from onnx_relief.data.arrange import picture_axes
from onnx_relief.data.arrays import Column, MemoryColumn, NpzColumn, array_samples, npy_column
from onnx_relief.data.batch import Array, Dataset
from onnx_relief.data.feeds import NpzFeeds, ProtobufFeeds, feed_dataset, numbered
from onnx_relief.data.fit import Fit
from onnx_relief.data.listing import SPLITS, is_picture, list_pictures
from onnx_relief.data.names import LABELS, check_labels, listed, match_names
from onnx_relief.data.npz import read_headers, read_member, reading
from onnx_relief.data.pictures import COLUMN, FolderFiles, PictureFiles, PictureSamples, ZipFiles
from onnx_relief.data.preprocess import Preprocess
from onnx_relief.data.rendering import layout_for_pictures, rendering
from onnx_relief.data.samples import sample_dataset
from onnx_relief.data.spool import SequenceFeeds, SpooledFeeds, arrays_by_name, is_array
from onnx_relief.errors import DataError
from onnx_relief.tensors import TensorSpec

logger = logging.getLogger(__name__)

FORMS: Final = (
    "a folder or .zip of pictures, an .npz, an .npy, a folder of .npz files that each hold one "
    "complete feed, or a folder of ONNX test data"
)
_NO_PREPROCESSING: Final = Preprocess()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted of the data.

    Attributes:
        name: The data as the user called it.
        split: What stood behind the colon, or None.
        inputs: What the model takes.
        preprocess: What the user said about preprocessing.
        strict: Whether a broken picture is an error.
    """

    name: str
    split: str | None
    inputs: Sequence[TensorSpec]
    preprocess: Preprocess
    strict: bool


def open_data(
    source: object,
    inputs: Sequence[TensorSpec],
    *,
    preprocess: Preprocess = _NO_PREPROCESSING,
    strict: bool = False,
) -> Dataset:
    """Return the samples of `source`, ready to be fed to a model with these inputs.

    The first sample is tried at once, so that most mistakes show before anything long begins.

    Args:
        source: A path (`FORMS`; ``FILE.npz:train`` takes one split), an array, a mapping from
            input names to arrays (and ``labels``), samples along the first axis; or an iterable of
            complete feeds, each a mapping or a pair of mapping and labels. A `Dataset` is returned
            as it is.
        inputs: What the model takes.
        preprocess: How samples become what the model was trained on; not for complete feeds.
        strict: Whether a broken picture is an error instead of being skipped and counted.

    Raises:
        DataError: The data cannot be used with this model; the sentence says what to do.
        SettingsError: The preprocessing does not go with the model or the data.
    """
    if isinstance(source, Dataset):
        return source
    request = Request(
        name="the data", split=None, inputs=inputs, preprocess=preprocess, strict=strict
    )
    if not inputs:
        raise DataError("the model takes no inputs, so no data can be fed to it; leave --data out")
    if isinstance(source, str | Path):
        return _open_path(str(source), request)
    if isinstance(source, Mapping):
        return _open_arrays(arrays_by_name(source, request.name), request)
    if is_array(source):
        return _open_arrays(arrays_by_name({"array": source}, request.name), request)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return feed_dataset(request.name, SequenceFeeds(source, inputs), inputs, preprocess)
    if isinstance(source, Iterable):
        return feed_dataset(request.name, SpooledFeeds(source, inputs), inputs, preprocess)
    raise DataError(f"data cannot be a {type(source).__name__}; give {FORMS}, arrays or feeds")


def _open_path(text: str, request: Request) -> Dataset:
    path, split = _split_path(text)
    request = replace(request, name=text, split=split)
    if path.is_dir():
        return _open_folder(path, request)
    opener = _BY_SUFFIX.get(path.suffix.lower())
    if opener is None:
        hint = "; a single picture has to lie in a folder" if is_picture(path.name) else ""
        raise DataError(f"{text} is none of the forms of data: give {FORMS}{hint}")
    return opener(path, request)


def _split_path(text: str) -> tuple[Path, str | None]:
    """Return the path and what stands behind its last colon, if the path needs that to exist."""
    # Unlike Path.exists, os.path.exists takes what no path can be (too long, or hidden from us).
    if os.path.exists(text):
        return Path(text), None
    head, _, tail = text.rpartition(":")
    if head and tail and os.path.exists(head):
        return Path(head), tail
    raise DataError(f"{text} does not exist; give {FORMS}")


def file_of(source: str) -> Path:
    """Return the file or folder of data that was named, without a split behind a colon."""
    try:
        return _split_path(source)[0]
    except DataError:  # told where it is opened
        return Path(source)


def is_same_data(data: object, eval_data: object | None) -> bool:
    """Return whether a comparison would use the calibration data, as far as can be seen.

    Args:
        data: The calibration data, as the user gave it.
        eval_data: What is compared on, None for the calibration data.
    """
    if eval_data is None or eval_data is data:
        return True
    if not isinstance(data, str | Path) or not isinstance(eval_data, str | Path):
        return False
    (path, split), (other, other_split) = _split_path(str(data)), _split_path(str(eval_data))
    return (path.resolve(), split) == (other.resolve(), other_split)


def _open_folder(path: Path, request: Request) -> Dataset:
    if request.split is not None and _form_of(path / request.split) not in (None, _open_pictures):
        return _open_folder(path / request.split, replace(request, split=None))
    with reading(path):
        empty = next(path.iterdir(), None) is None
    if empty:
        raise DataError(f"{request.name} is empty; give {FORMS}")
    return (_form_of(path) or _open_pictures)(path, request)


def _form_of(path: Path) -> _Opener | None:
    if not path.is_dir():
        return None
    return next((opener for test, opener in _FOLDERS if test(path)), _open_pictures)


def _open_npz(path: Path, request: Request) -> Dataset:
    headers = read_headers(path)
    prefix = "" if request.split is None else f"{request.split}_"
    members = {name.removeprefix(prefix): name for name in headers if name.startswith(prefix)}
    inputs = {spec.name for spec in request.inputs}
    splits = [split for split in SPLITS if any(name.startswith(f"{split}_") for name in headers)]
    if not members or (request.split is None and splits and not inputs & set(members)):
        choices = " or ".join(f"{path}:{split}" for split in splits) or str(path)
        problem = f"has no {prefix!r} arrays" if prefix else "is split"
        raise DataError(f"{path} {problem}, it holds {listed(headers)}; give {choices}")
    columns = {key: NpzColumn(path, name, headers[name]) for key, name in members.items()}
    labels = None
    if LABELS in columns and LABELS not in inputs:
        labels = read_member(path, columns.pop(LABELS).name)
    dataset = _open_columns(columns, labels, request)
    if request.split is None:  # `images` of a split is a form of its own
        _say_what_is_taken(columns, request)
    return dataset


def _say_what_is_taken(columns: Mapping[str, Column], request: Request) -> None:
    """Say that an array of another name is taken, since there is only one."""
    for name, spec in match_names(list(columns), request.inputs, request.name).items():
        if name != spec.name:
            logger.warning(
                "%s has no array %r, so %r is taken for that input of the model",
                request.name,
                spec.name,
                name,
            )


def _open_npy(path: Path, request: Request) -> Dataset:
    if request.split is not None:
        raise DataError(f"{path} is a single array without splits; leave :{request.split} out")
    return _open_columns({path.stem: npy_column(path)}, None, request)


def _open_arrays(arrays: dict[str, Array], request: Request) -> Dataset:
    labels = None
    if LABELS not in {spec.name for spec in request.inputs}:
        labels = arrays.pop(LABELS, None)
    columns = {name: MemoryColumn(array) for name, array in arrays.items()}
    return _open_columns(columns, labels, request)


def _open_columns(columns: Mapping[str, Column], labels: Array | None, request: Request) -> Dataset:
    given = [*columns, *([] if labels is None else [LABELS])]
    specs = match_names(given, request.inputs, request.name)
    raw = array_samples(columns, request.name)
    wanted = _preprocess_of_each(columns, specs, request.preprocess)
    fits = {
        name: Fit(spec=spec, preprocess=wanted[name], origin=f"array {name!r} of {request.name}")
        for name, spec in specs.items()
    }
    checked = None if labels is None else check_labels(labels, request.name, raw.size)
    classes = 0 if checked is None else len(np.unique(checked))
    return sample_dataset(request.name, raw, fits, checked, classes)


def _preprocess_of_each(
    columns: Mapping[str, Column], specs: Mapping[str, TensorSpec], preprocess: Preprocess
) -> dict[str, Preprocess]:
    """Return the preprocessing of each array: of several inputs it is for the pictures.

    Those are the uint8 arrays of gray or colour pictures; where there are none, it is for every
    input that the model takes as floats.
    """
    if len(specs) == 1:
        return dict.fromkeys(specs, preprocess)
    pictures = {
        name
        for name, column in columns.items()
        if column.dtype == np.uint8 and len(column.shape) > 2
    }
    floats = {name for name, spec in specs.items() if spec.dtype is None or spec.dtype.kind == "f"}
    chosen = pictures or floats
    return {name: preprocess if name in chosen else _NO_PREPROCESSING for name in specs}


def _open_pictures(path: Path, request: Request) -> Dataset:
    return _open_picture_files(FolderFiles(path), request)


def _open_zip(path: Path, request: Request) -> Dataset:
    return _open_picture_files(ZipFiles(path), request)


def _open_picture_files(files: PictureFiles, request: Request) -> Dataset:
    base = request.name.removesuffix(f":{request.split}")
    listing = list_pictures(files.entries(), request.split, base)
    spec = next(iter(match_names([COLUMN], request.inputs, request.name).values()))
    layout = layout_for_pictures(spec, request.preprocess)
    filled = request.preprocess.for_pictures(picture_axes(spec, layout)[1])
    raw = PictureSamples(
        files=files,
        paths=listing.paths,
        plan=rendering(spec, filled, layout),
        strict=request.strict,
        name=request.name,
    )
    origin = f"the picture data of {request.name}"
    fit = Fit(spec=spec, preprocess=request.preprocess, origin=origin, pictures=True)
    labels = None if listing.labels is None else np.array(listing.labels, dtype=np.int64)
    return sample_dataset(request.name, raw, {COLUMN: fit}, labels, listing.class_count)


def _open_feed_folder(path: Path, request: Request) -> Dataset:
    feeds = NpzFeeds(tuple(sorted(_visible(path, "*.npz"))))
    return feed_dataset(request.name, feeds, request.inputs, request.preprocess)


def _open_test_data(path: Path, request: Request) -> Dataset:
    folders = tuple(numbered(path.glob("test_data_set_*")).values()) or (path,)
    feeds = ProtobufFeeds(folders, request.inputs)
    return feed_dataset(request.name, feeds, request.inputs, request.preprocess)


def _has(*patterns: str) -> Callable[[Path], bool]:
    def any_found(path: Path) -> bool:
        return any(True for pattern in patterns for _ in _visible(path, pattern))

    return any_found


def _visible(path: Path, pattern: str) -> Iterator[Path]:
    """Yield what lies in a folder, but nothing hidden: some systems leave ``._0.npz`` beside it."""
    return (file for file in path.glob(pattern) if not file.name.startswith("."))


_Opener = Callable[[Path, Request], Dataset]

_BY_SUFFIX: Final[Mapping[str, _Opener]] = MappingProxyType(
    {".npz": _open_npz, ".npy": _open_npy, ".zip": _open_zip}
)

# The first test that holds decides; any other folder is one of pictures.
_FOLDERS: Final[tuple[tuple[Callable[[Path], bool], _Opener], ...]] = (
    (_has("test_data_set_*", "input_*.pb"), _open_test_data),
    (_has("*.npz"), _open_feed_folder),
)
