"""Samples in a new order each epoch, shared among processes, with a part kept for validation.

Which sample comes when is a pure function of the seed, the epoch, and the rows of the dataset, so
that training that was interrupted goes on as if nothing had happened.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from onnx_relief.data.arrays import ArraySamples, Column, NpyColumn, NpzColumn, npy_column
from onnx_relief.data.batch import Array, Batch, Dataset, Rows
from onnx_relief.data.samples import SampleSource
from onnx_relief.errors import DataError, OutputError

_SPLIT, _ORDER = 1, 2  # what a random number is for, so that no two uses share one
_CHUNK_BYTES = 1 << 22
_MAPPED_BYTES = 1 << 28
_FAULT_BYTES = 1 << 16  # what Linux maps around a byte that is read


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """How an epoch is cut into steps.

    Attributes:
        share: Rows that one process passes through the model at once.
        passes: How often it does in an epoch.
        accumulate: Passes that make one optimizer step.
        world: Number of processes.
    """

    share: int
    passes: int
    accumulate: int = 1
    world: int = 1

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self.passes // self.accumulate


def plan_steps(data: Dataset, batch_size: int, world: int = 1) -> StepPlan:
    """Return how `data` is walked in global batches of `batch_size`, incomplete ones dropped.

    A dataset that is smaller is one batch. A model with a fixed batch collects gradients over
    several passes until `batch_size` is reached; each complete feed is a step of its own.

    Args:
        data: The training data.
        batch_size: Samples per optimizer step over all processes, a multiple of `world`.
        world: Number of processes.

    Raises:
        DataError: There are fewer samples than processes.
    """
    size = data.size
    if size < world:
        raise DataError(
            f"{data.name} has {size} training samples for {world} processes; give more data, or "
            "fewer --devices"
        )
    if data.whole_feeds:
        return StepPlan(share=1, passes=size // world, world=world)
    fixed = fixed_batch(data)
    if fixed is None:
        share = min(batch_size, size) // world
        return StepPlan(share=share, passes=size // (share * world), world=world)
    if size < fixed * world:
        return StepPlan(share=size // world, passes=1, world=world)
    accumulate = max(1, min(batch_size, size) // (fixed * world))
    passes = size // (fixed * world * accumulate) * accumulate
    return StepPlan(share=fixed, passes=passes, accumulate=accumulate, world=world)


def fixed_batch(data: Dataset) -> int | None:
    """Return the batch size that the model fixes, or None."""
    return data.source.fixed_batch if isinstance(data.source, SampleSource) else None


def epoch_rows(rows: Rows, plan: StepPlan, *, seed: int, epoch: int, rank: int = 0) -> Rows:
    """Return the rows that process `rank` reads in an epoch, (passes * share,), in order.

    Every process takes an equal part of each global batch, so that together they see the batches
    that one process alone would see.

    Args:
        rows: All rows.
        plan: How they are cut.
        seed: Of the training.
        epoch: From 0.
        rank: Number of the process.
    """
    order = np.random.default_rng([seed, _ORDER, epoch]).permutation(rows)
    used = order[: plan.passes * plan.share * plan.world]
    # Passes that make one step lie together: (steps, processes, passes of a step, samples).
    cut = used.reshape(plan.steps, plan.world, plan.accumulate, plan.share)
    return np.ascontiguousarray(cut[:, rank]).reshape(-1)


def epoch_batches(
    data: Dataset, plan: StepPlan, *, seed: int, epoch: int, rank: int = 0
) -> Iterator[tuple[Rows, Batch]]:
    """Yield exactly `plan.passes` batches of an epoch with the row of every sample.

    In place of broken pictures those that follow move up, and at the end the first ones come again.

    Raises:
        DataError: Nothing can be read, or a sample does not fit the model.
    """
    mine = epoch_rows(data.rows, plan, seed=seed, epoch=epoch, rank=rank)
    done = 0
    while done < plan.passes:
        full = False
        for rows, batch in numbered_batches(replace(data, rows=mine), plan.share):
            full = full or len(rows) == plan.share
            if len(rows) < plan.share and full:
                break  # normalising by a remainder of one or two samples would do harm
            yield rows, batch
            done += 1
            if done == plan.passes:
                return


def numbered_batches(data: Dataset, batch_size: int) -> Iterator[tuple[Rows, Batch]]:
    """Yield every batch of `data` with the row that each of its samples is.

    Raises:
        DataError: As `Dataset.batches`.
    """
    waiting = iter(data.rows.tolist())
    for batch in data.batches(batch_size):
        skipped, count = data.source.skipped, 1 if data.whole_feeds else batch.count
        found: list[int] = []
        while len(found) < count:
            row = next(waiting)
            if row not in skipped:
                found.append(row)
        yield np.array(found, dtype=np.int64), batch


def labels_of(data: Dataset) -> Rows | None:
    """Return the class of every sample if that is known without reading them, (samples,)."""
    if isinstance(data.source, SampleSource) and data.source.labels is not None:
        return data.source.labels[data.rows]
    return None


def split_validation(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """Return `data` without a part for validation, and that part, None where there is none.

    The same seed gives the same parts. Each class keeps its share as far as whole samples allow.

    Args:
        data: At least one sample.
        share: What goes to validation, in [0, 1); at least one sample stays on each side.
        seed: Of the training.
    """
    if share == 0 or data.size < 2:
        return data, None
    count = min(max(1, round(share * data.size)), data.size - 1)
    order = np.random.default_rng([seed, _SPLIT]).permutation(data.size)
    labels = labels_of(data)
    if labels is not None:
        order = order[_classes_in_turn(labels[order])]
    chosen, rest = np.sort(order[:count]), np.sort(order[count:])
    return replace(data, rows=data.rows[rest]), replace(data, rows=data.rows[chosen])


def _classes_in_turn(labels: Rows) -> Rows:
    """Return an order whose every beginning has each class in proportion, (samples,)."""
    by_class = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.arange(len(labels)) - np.repeat(starts, counts)
    key = np.empty(len(labels))
    key[by_class] = (place + 0.5) / np.repeat(counts, counts)
    return np.argsort(key, kind="stable")


def seekable(data: Dataset) -> Dataset:
    """Return the same samples, quick to read in any order.

    The arrays of an `.npz` can be read from front to back only, so they are put into a temporary
    folder, which goes when the dataset does; everything else is returned as it is.

    Raises:
        OutputError: The temporary folder has no room.
        DataError: The file cannot be read.
    """
    source = data.source
    if not isinstance(source, SampleSource) or not isinstance(source.raw, ArraySamples):
        return data
    columns = source.raw.columns
    if not any(isinstance(column, NpzColumn) for column in columns.values()):
        return data
    raw = replace(source.raw, columns=_unpacked(columns))
    return replace(data, source=replace(source, raw=raw))


def both_seekable(data: Dataset, other: Dataset) -> tuple[Dataset, Dataset]:
    """Return two datasets as `seekable` does; what both have is unpacked once.

    Raises:
        OutputError, DataError: As `seekable`.
    """
    ready = seekable(data)
    if other.source is data.source:
        return ready, replace(other, source=ready.source)
    return ready, seekable(other)


@dataclass(frozen=True, eq=False)
class _Unpacked(NpyColumn):
    """An array in a temporary folder, which lives as long as one of its arrays is in use."""

    folder: _Folder

    def read(self, chunks: Sequence[Rows]) -> Generator[Array, None, None]:
        """Yield a copy of the rows of each chunk."""
        left = 0
        for rows in chunks:
            if left <= 0:
                # Pages that were read count as memory until the file is mapped anew.
                mapped = np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))
                left = _MAPPED_BYTES
            block: Array = mapped[rows]
            left -= len(rows) * max(_FAULT_BYTES, self.header.row_bytes)
            yield block


class _Folder:
    """A temporary folder that goes when this object does."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="onnx-relief-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _unpacked(columns: Mapping[str, Column]) -> dict[str, Column]:
    folder = _Folder()
    found: dict[str, Column] = {}
    try:
        for index, (name, column) in enumerate(columns.items()):
            if isinstance(column, NpzColumn):
                plain = _unpack(column, folder.path / f"{index}.npy")
                found[name] = _Unpacked(plain.path, plain.header, folder)
            else:
                found[name] = column
    except BaseException:
        folder.remove()
        raise
    return found


def _unpack(column: NpzColumn, path: Path) -> NpyColumn:
    header = {"descr": npy.dtype_to_descr(column.dtype), "fortran_order": False}
    count = max(1, _CHUNK_BYTES // max(1, column.header.row_bytes))
    starts = range(0, column.shape[0], count)
    stop = column.shape[0]
    chunks = [np.arange(start, min(start + count, stop), dtype=np.int64) for start in starts]
    blocks = column.read(chunks)
    try:
        with path.open("xb") as file:
            npy.write_array_header_2_0(file, header | {"shape": column.shape})
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
    except OSError as error:
        raise OutputError(
            f"{column.name!r} of {column.path} cannot be unpacked into the temporary folder "
            f"{path.parent} ({error}); free some space, or set TMPDIR to a larger disk"
        ) from error
    return npy_column(path)
