"""Samples in a new order each epoch, shared among processes, with a part kept for validation.

Which sample comes when is a pure function of the seed, the epoch, and the rows of the dataset, so
that training that was interrupted goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from onnx_relief.data.batch import Batch, Dataset, Rows
from onnx_relief.data.samples import SampleSource
from onnx_relief.errors import DataError

_SPLIT, _ORDER = 1, 2  # what a random number is for, so that no two uses share one


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
