"""What every form of DATA becomes: a dataset that can be walked any number of times.

A `Dataset` is a source plus the rows of it that are wanted. The source knows how to read; the rows
are all that `take` changes, so taking some samples never reads or copies anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import DataError, SettingsError

Array = NDArray[Any]
Rows = NDArray[np.int64]

# The fractional parts of the multiples of the golden ratio fill [0, 1) more evenly than those of
# any other number (Knuth, The Art of Computer Programming, volume 3, section 6.4).
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One run's worth of inputs.

    Attributes:
        feed: Array by model input name, of the element type and rank that the model takes.
        labels: Class of each real sample, shape (count,), or None without labels.
        count: How many leading rows are real samples; fewer than the batch axis where the last
            batch was filled up for a model with a fixed batch. For whole feeds it is the number of
            labels, or 1 without labels, because only the model knows which axis is the batch.
    """

    feed: dict[str, Array]
    labels: Rows | None
    count: int


class Source(Protocol):
    """Where a `Dataset` gets its batches from."""

    @property
    def size(self) -> int:
        """Number of samples, or of whole feeds."""

    @property
    def has_labels(self) -> bool:
        """Whether every batch carries labels."""

    @property
    def class_count(self) -> int:
        """Number of different labels, 0 where that is not known."""

    @property
    def whole_feeds(self) -> bool:
        """Whether each item is one complete feed instead of one sample."""

    @property
    def skipped(self) -> Mapping[int, tuple[str, str]]:
        """Row -> (name, reason) of what could not be read and was left out so far."""

    def read(self, rows: Rows, batch_size: int) -> Iterator[Batch]:
        """Yield the given rows, which rise, in batches."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Samples for one model, ready to be fed, read anew in every walk.

    Attributes:
        name: What the user called the data, for example ``mnist.npz:train``.
        source: Where the samples come from.
        rows: Which rows of the source belong to this dataset, rising.
    """

    name: str
    source: Source
    rows: Rows

    @property
    def size(self) -> int:
        """Number of samples (or of whole feeds), broken pictures among them."""
        return len(self.rows)

    @property
    def has_labels(self) -> bool:
        """Whether every batch carries labels."""
        return self.source.has_labels

    @property
    def whole_feeds(self) -> bool:
        """Whether every batch is one complete feed, whatever batch size is asked for."""
        return self.source.whole_feeds

    @property
    def skipped(self) -> dict[str, str]:
        """Name -> reason of the broken pictures that walks left out so far."""
        found = self.source.skipped
        return dict(found[row] for row in self.rows.tolist() if row in found)

    @property
    def description(self) -> str:
        """One line for the report: ``mnist.npz:train (500 of 60000 samples, 10 classes)``."""
        thing = "complete feed" if self.whole_feeds else "sample"
        total = self.source.size
        amount = f"{total} {thing}{'' if total == 1 else 's'}"
        if self.size != total:
            amount = f"{self.size} of {amount}"
        classes = self.source.class_count
        if classes:
            amount += f", {classes} class{'' if classes == 1 else 'es'}"
        return f"{self.name} ({amount})"

    def take(self, samples: int | None) -> Dataset:
        """Return a dataset of at most `samples` of these, spread evenly over their order.

        Never simply the first ones: folders are sorted by class. None takes all.

        Raises:
            SettingsError: `samples` is below 1.
        """
        if samples is None or samples >= self.size:
            return self
        if samples < 1:
            raise SettingsError(f"--samples must be at least 1, got {samples}")
        return replace(self, rows=self.rows[spread(self.size, samples)])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield all samples in order, `batch_size` at a time.

        A model with a fixed batch gets that size whatever was asked; whole feeds come one by one.

        Raises:
            SettingsError: `batch_size` is below 1.
            DataError: A sample does not fit the model, or nothing could be read at all.
        """
        if batch_size < 1:
            raise SettingsError(f"--batch-size must be at least 1, got {batch_size}")
        empty = True
        for batch in self.source.read(self.rows, batch_size):
            empty = False
            yield batch
        if empty:
            names = ", ".join(f"{name} ({why})" for name, why in list(self.skipped.items())[:3])
            raise DataError(
                f"none of the {self.size} pictures of {self.name} can be read, beginning with "
                f"{names}; give other pictures"
            )


def whole_dataset(name: str, source: Source) -> Dataset:
    """Return everything that `source` has.

    Raises:
        DataError: It has nothing.
    """
    if source.size == 0:
        raise DataError(f"{name} holds no samples; give at least one")
    return Dataset(name=name, source=source, rows=np.arange(source.size, dtype=np.int64))


def first_sample(data: Dataset) -> Batch:
    """Return a batch of the first sample that can be read.

    Raises:
        DataError: None can.
    """
    return next(iter(data.batches(1)))


def spread(total: int, wanted: int) -> Rows:
    """Return `wanted` rising indices below `total`, one from each of as many equal stretches.

    Where in its stretch an index lies follows multiples of the golden ratio. A constant step would
    see a single class of data whose classes take turns (0, 1, ... 9, 0, 1, ...).

    Args:
        total: How many there are.
        wanted: How many to choose, 1 to `total`.

    >>> spread(10, 5).tolist()
    [0, 3, 4, 7, 8]
    """
    order = np.arange(wanted, dtype=np.int64)
    starts = order * total // wanted
    widths = (order + 1) * total // wanted - starts
    return starts + np.floor(order * _GOLDEN % 1 * widths).astype(np.int64)
