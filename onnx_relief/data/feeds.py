"""Complete feeds: for models whose batch is not the first axis, or that take scalars and states.

A feed is passed on as it is. Names, ranks, sizes and element types are checked, nothing is
rearranged, scaled or put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnx_relief.data.arrange import fits
from onnx_relief.data.batch import Array, Batch, Dataset, Rows, whole_dataset
from onnx_relief.data.cast import cast_values
from onnx_relief.data.names import LABELS, check_labels, match_names
from onnx_relief.data.npz import read_headers, read_member, reading
from onnx_relief.data.preprocess import Preprocess
from onnx_relief.errors import DataError, SettingsError
from onnx_relief.tensors import TensorSpec

TEST_DATA = re.compile(r"(?:input|test_data_set)_(\d+)(?:\.pb)?")


class Feeds(Protocol):
    """Complete feeds by number."""

    @property
    def names(self) -> Sequence[str]:
        """What to call each feed in an error."""

    def load(self, index: int) -> dict[str, Array]:
        """Return one feed as it was stored, labels among its arrays."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedSource:
    """Complete feeds, checked as they are read.

    Attributes:
        feeds: Where they are.
        inputs: What the model takes.
        has_labels: Whether every feed has labels.
    """

    feeds: Feeds
    inputs: Sequence[TensorSpec]
    has_labels: bool

    @property
    def size(self) -> int:
        """Number of feeds."""
        return len(self.feeds.names)

    @property
    def class_count(self) -> int:
        """Not known before all feeds are read."""
        return 0

    @property
    def whole_feeds(self) -> bool:
        """They are."""
        return True

    @property
    def skipped(self) -> dict[int, tuple[str, str]]:
        """No feed is ever left out."""
        return {}

    def read(self, rows: Rows, batch_size: int) -> Iterator[Batch]:  # noqa: ARG002 - as samples do
        """Yield one batch for each feed."""
        for row in rows.tolist():
            yield self._batch(self.feeds.load(row), self.feeds.names[row])

    def _batch(self, arrays: Mapping[str, Array], origin: str) -> Batch:
        feed = fit_feed(arrays, self.inputs, origin)
        if not self.has_labels:
            return Batch(feed=feed, labels=None, count=1)
        if LABELS not in arrays:
            raise DataError(
                f"{origin} has no 'labels', but the first feed has; give all of them or none"
            )
        labels = check_labels(np.atleast_1d(arrays[LABELS]), origin, None)
        return Batch(feed=feed, labels=labels, count=len(labels))


def fit_feed(
    arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], origin: str
) -> dict[str, Array]:
    """Return one feed by input name, of the element types that the model takes.

    Raises:
        DataError: Names, shapes, types or values do not suit the model.
    """
    feed = {}
    for name, spec in match_names(list(arrays), inputs, origin).items():
        array = arrays[name]
        place = f"array {name!r} of {origin}"
        if not fits(array.shape, spec, first_axis=True):
            raise DataError(
                f"{place} has shape {array.shape}, but the model's input {spec.name!r} takes "
                f"{spec.describe()}; give a complete feed of that shape"
            )
        remedy = f"store it as {spec.dtype}, scaled as the model takes it"
        feed[spec.name] = cast_values(array, spec, origin=place, rows=None, remedy=remedy)
    return feed


def feed_dataset(
    name: str, feeds: Feeds, inputs: Sequence[TensorSpec], preprocess: Preprocess
) -> Dataset:
    """Return all feeds as a dataset, after trying the first.

    Raises:
        SettingsError: There is preprocessing to do, which is not done to complete feeds.
        DataError: There are none, or the first does not suit the model.
    """
    if preprocess != Preprocess():
        raise SettingsError(
            f"{name} holds complete feeds, which are passed on as they are; leave out "
            f"{preprocess.flags()}, or give samples in one array for each input"
        )
    is_input = LABELS in {spec.name for spec in inputs}
    has_labels = bool(feeds.names) and LABELS in feeds.load(0) and not is_input
    source = FeedSource(feeds=feeds, inputs=inputs, has_labels=has_labels)
    dataset = whole_dataset(name, source)
    next(source.read(dataset.rows[:1], 1))
    return dataset


@dataclass(frozen=True, eq=False)
class NpzFeeds:
    """A folder of `.npz` files, one feed each."""

    paths: tuple[Path, ...]

    @property
    def names(self) -> Sequence[str]:
        """The files."""
        return [str(path) for path in self.paths]

    def load(self, index: int) -> dict[str, Array]:
        """Return all arrays of one file."""
        path = self.paths[index]
        return {name: read_member(path, name) for name in read_headers(path)}


@dataclass(frozen=True, eq=False)
class ProtobufFeeds:
    """ONNX test data: folders of `input_0.pb`, `input_1.pb`, ... in the order of the inputs."""

    folders: tuple[Path, ...]
    inputs: Sequence[TensorSpec]

    @property
    def names(self) -> Sequence[str]:
        """The folders."""
        return [str(folder) for folder in self.folders]

    def load(self, index: int) -> dict[str, Array]:
        """Return the inputs of one folder; outputs are not looked at."""
        folder = self.folders[index]
        files = numbered(folder.glob("input_*.pb"))
        names = [spec.name for spec in self.inputs]
        beyond = [file.name for number, file in files.items() if number >= len(names)]
        if beyond:
            raise DataError(
                f"{folder} holds {beyond[0]}, but the model takes {len(names)} "
                f"input{'' if len(names) == 1 else 's'}; give test data of this model"
            )
        return {names[number]: read_tensor(file) for number, file in files.items()}


def numbered(paths: Iterator[Path]) -> dict[int, Path]:
    """Return paths of ONNX test data by the number in their names, rising."""
    found = {}
    for path in paths:
        name = TEST_DATA.fullmatch(path.name)
        if name is not None:
            found[int(name.group(1))] = path
    return dict(sorted(found.items()))


def read_tensor(path: Path) -> Array:
    """Return the array of a file that holds one ONNX TensorProto.

    Raises:
        DataError: It is something else, or keeps its values in another file.
    """
    tensor = onnx.TensorProto()
    with reading(path):
        data = path.read_bytes()
    try:
        tensor.ParseFromString(data)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError("its values are in another file")
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} holds no tensor that can be read ({error}); make it again with "
            "onnx.numpy_helper.from_array"
        ) from error
