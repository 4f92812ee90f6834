"""Feeds that a program hands over: a sequence is used where it is, a stream is put on disk first.

A stream can be walked only once and its length is not known, but samples are measured, taken and
compared in several walks. On disk it costs no memory, and every walk sees the same feeds.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_relief.data.batch import Array
from onnx_relief.data.names import LABELS
from onnx_relief.errors import DataError, OutputError
from onnx_relief.tensors import TensorSpec


class SequenceFeeds:
    """Feeds in a list or tuple."""

    def __init__(self, feeds: Sequence[object], inputs: Sequence[TensorSpec]) -> None:
        self._feeds = feeds
        self._inputs = inputs

    @property
    def names(self) -> Sequence[str]:
        """Their numbers in words."""
        return [f"feed {index}" for index in range(len(self._feeds))]

    def load(self, index: int) -> dict[str, Array]:
        """Return one feed."""
        return feed_arrays(self._feeds[index], self._inputs, self.names[index])


class SpooledFeeds:
    """Feeds in a temporary folder that goes when this object does."""

    def __init__(self, feeds: Iterable[object], inputs: Sequence[TensorSpec]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="onnx-relief-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._types: list[dict[str, np.dtype[Any]]] = []
        try:
            for index, feed in enumerate(feeds):
                self._store(index, feed_arrays(feed, inputs, f"feed {index}"))
        except BaseException:
            self._remove()
            raise

    def _store(self, index: int, arrays: Mapping[str, Array]) -> None:
        # Text in Python objects is text; other objects are refused by allow_pickle.
        plain = {
            name: array.astype(np.str_) if array.dtype.kind == "O" else array
            for name, array in arrays.items()
        }
        try:
            for position, array in enumerate(plain.values()):
                np.save(self._file(index, position), array, allow_pickle=False)
        except OSError as error:
            raise OutputError(
                f"feed {index} cannot be kept in the temporary folder {self._folder} ({error}); "
                "free some space, set TMPDIR to a larger disk, or pass a list"
            ) from error
        self._types.append({name: array.dtype for name, array in plain.items()})

    def _file(self, index: int, position: int) -> Path:
        return self._folder / f"{index}-{position}.npy"

    @property
    def names(self) -> Sequence[str]:
        """Their numbers in words."""
        return [f"feed {index}" for index in range(len(self._types))]

    def load(self, index: int) -> dict[str, Array]:
        """Return one feed."""
        # Files know NumPy's own types only, and of others (bfloat16) no more than their size.
        return {
            name: np.load(self._file(index, position), allow_pickle=False).view(kind)
            for position, (name, kind) in enumerate(self._types[index].items())
        }


def feed_arrays(feed: object, inputs: Sequence[TensorSpec], origin: str) -> dict[str, Array]:
    """Return one feed of a caller as arrays by name, its labels among them.

    Args:
        feed: A mapping from names to arrays, or an array for a model with one input; or a pair of
            that and labels.
        inputs: What the model takes.
        origin: What to call the feed in an error.

    Raises:
        DataError: It is something else.
    """
    labels: object = None
    if isinstance(feed, tuple | list) and len(feed) == 2:
        feed, labels = feed
    if isinstance(feed, Mapping):
        arrays = arrays_by_name(feed, origin)
    elif is_array(feed):
        arrays = arrays_by_name({inputs[0].name: feed}, origin)
    else:
        raise DataError(
            f"{origin} is a {type(feed).__name__}; give a mapping from input names to arrays, or a "
            "pair of that and labels"
        )
    if labels is not None:
        arrays |= arrays_by_name({LABELS: labels}, origin)
    return arrays


def arrays_by_name(values: Mapping[Any, object], origin: str) -> dict[str, Array]:
    """Return what the caller gave as arrays of NumPy.

    Raises:
        DataError: NumPy cannot make an array of it, rows of different lengths for example.
    """
    arrays = {}
    for name, value in values.items():
        try:
            arrays[str(name)] = np.asarray(value)
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(
                f"{str(name)!r} of {origin} is no array ({error}); give a NumPy array"
            ) from error
    return arrays


def is_array(value: object) -> bool:
    """Return whether NumPy can take it as one array: its own, PyTorch's, TensorFlow's, pandas'."""
    return isinstance(value, np.ndarray) or callable(getattr(value, "__array__", None))
