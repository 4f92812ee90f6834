"""Samples of any origin -> batches that the model takes: fitted, labelled, filled up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnx_relief.data.batch import Array, Batch, Dataset, Rows, whole_dataset
from onnx_relief.data.fit import COMPLETE_FEEDS, Fit
from onnx_relief.errors import DataError
from onnx_relief.tensors import TensorSpec


class RawSamples(Protocol):
    """Samples as they were stored."""

    @property
    def size(self) -> int:
        """How many there are, broken ones among them."""

    @property
    def skipped(self) -> Mapping[int, tuple[str, str]]:
        """Row -> (name, reason) of what was left out so far."""

    def blocks(self, rows: Rows, count: int) -> Iterator[tuple[Rows, dict[str, Array]]]:
        """Yield row numbers and arrays by name, `count` samples at a time, fewer at the end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSource:
    """Samples that can be put together into batches of any size.

    Attributes:
        raw: The samples as they were stored.
        fits: What makes each array fit its input, by the array's name.
        labels: Class of each sample, shape (samples,), or None.
        fixed_batch: Batch size that the model fixes, or None.
        class_count: Number of different classes, 0 without labels.
    """

    raw: RawSamples
    fits: Mapping[str, Fit]
    labels: Rows | None
    fixed_batch: int | None
    class_count: int

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.raw.size

    @property
    def has_labels(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None

    @property
    def whole_feeds(self) -> bool:
        """Samples are no whole feeds."""
        return False

    @property
    def skipped(self) -> Mapping[int, tuple[str, str]]:
        """Row -> (name, reason) of what was left out so far."""
        return self.raw.skipped

    def read(self, rows: Rows, batch_size: int) -> Iterator[Batch]:
        """Yield the given rows in batches; the last is filled up only for a fixed batch."""
        for numbers, arrays in self.raw.blocks(rows, self.fixed_batch or batch_size):
            feed = self.fit(numbers, arrays)
            if self.fixed_batch is not None:
                feed = {name: _filled_up(part, self.fixed_batch) for name, part in feed.items()}
            labels = None if self.labels is None else self.labels[numbers]
            yield Batch(feed=feed, labels=labels, count=len(numbers))

    def fit(self, numbers: Rows, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the arrays of some samples as the model takes them, by input name.

        Raises:
            DataError: They do not fit.
        """
        fits = ((self.fits[name], block) for name, block in arrays.items())
        return {fit.spec.name: fit(block, numbers) for fit, block in fits}


def _filled_up(block: Array, length: int) -> Array:
    missing = length - len(block)
    return np.concatenate([block, np.repeat(block[-1:], missing, axis=0)]) if missing else block


def sample_dataset(
    name: str,
    raw: RawSamples,
    fits: Mapping[str, Fit],
    labels: Rows | None,
    class_count: int,
) -> Dataset:
    """Return all of `raw` as a dataset, after trying its first sample.

    Raises:
        DataError: There are no samples, or the first does not fit the model.
    """
    specs = [fit.spec for fit in fits.values()]
    source = SampleSource(
        raw=raw,
        fits=fits,
        labels=labels,
        fixed_batch=_fixed_batch(specs, name),
        class_count=class_count,
    )
    dataset = whole_dataset(name, source)
    for numbers, arrays in raw.blocks(dataset.rows[:1], 1):
        source.fit(numbers, arrays)
    return dataset


def _fixed_batch(specs: Sequence[TensorSpec], name: str) -> int | None:
    """Return the batch size that all inputs with a fixed one agree on.

    Raises:
        DataError: They do not, or an input has no axis at all.
    """
    for spec in specs:
        if spec.shape == ():
            raise DataError(
                f"the model's input {spec.name!r} is a single number without an axis for samples, "
                f"so {name} cannot be split into batches for it; give {COMPLETE_FEEDS}"
            )
    sizes = {spec.name: spec.fixed_batch for spec in specs if spec.fixed_batch is not None}
    if len(set(sizes.values())) > 1:
        lengths = ", ".join(f"{key!r} {size}" for key, size in sizes.items())
        raise DataError(
            f"the model fixes different lengths for the first axis of its inputs ({lengths}), so "
            f"it is not an axis of samples; give {COMPLETE_FEEDS}"
        )
    return next(iter(sizes.values()), None)
