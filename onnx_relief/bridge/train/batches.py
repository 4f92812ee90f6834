"""Batches as tensors, made a little ahead of the training, with what the teacher says to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from onnx_relief.bridge.train.augment import Augmentation
from onnx_relief.bridge.train.teacher import Teacher
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.arrays import ArraySamples
from onnx_relief.data.batch import Array, Rows
from onnx_relief.data.samples import SampleSource
from onnx_relief.data.shuffle import StepPlan, epoch_batches
from onnx_relief.errors import DataError
from onnx_relief.tensors import is_float

_T = TypeVar("_T")
_AHEAD = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one pass through the model needs.

    Attributes:
        feed: Tensor by input name.
        labels: Class of each real sample, or None.
        targets: What the teacher gives, by output name; empty without one.
        count: How many samples are real.
        filled: Rows of the feed where some only fill up a fixed batch, else None.
    """

    feed: dict[str, Tensor]
    labels: Tensor | None
    targets: dict[str, Tensor]
    count: int
    filled: int | None

    def real(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return outputs without the rows that only fill up a batch."""
        if self.filled is None:
            return dict(outputs)
        return {
            name: value[: self.count] if value.ndim and len(value) == self.filled else value
            for name, value in outputs.items()
        }

    def to(self, device: torch.device) -> Step:
        """Return the same on a device."""
        if device.type == "cpu":
            return self

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        return replace(
            self,
            feed={name: move(value) for name, value in self.feed.items()},
            labels=None if self.labels is None else move(self.labels),
            targets={name: move(value) for name, value in self.targets.items()},
        )


def make_step(batch: Batch, teacher: Teacher | None, *, whole_feeds: bool) -> Step:
    """Return a batch as tensors.

    Raises:
        DataError: An input is text.
        ModelError: The teacher cannot be run.
    """
    rows = max((len(array) for array in batch.feed.values() if array.ndim), default=0)
    step = Step(
        feed={name: as_tensor(array, name) for name, array in batch.feed.items()},
        labels=None if batch.labels is None else torch.from_numpy(batch.labels),
        targets={},
        count=batch.count,
        filled=None if whole_feeds or batch.count == rows else rows,
    )
    if teacher is None:
        return step
    found = teacher(batch.feed)
    arrays = {name: value for name, value in found.items() if _is_numbers(value)}
    targets = {name: as_tensor(value, name) for name, value in arrays.items()}
    return replace(step, targets=step.real(targets))


def as_tensor(array: Array, name: str) -> Tensor:
    """Return an array as a tensor.

    Raises:
        DataError: It does not hold numbers that torch has.
    """
    if array.dtype.name == "bfloat16":  # an extension of NumPy that torch does not know
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    try:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    except TypeError as error:
        raise DataError(
            f"input {name!r} takes {array.dtype}, which cannot be trained on; cut the part of the "
            "model off that works on it"
        ) from error


def _is_numbers(value: object) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    return value.dtype.kind in "biu" or is_float(value.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingWalk:
    """The training data of one process, in a new order in each epoch.

    Attributes:
        data: All of the training data, quick to read in any order.
        plan: How it is cut into steps.
        seed: Of the training.
        augment: What is done to pictures, or None.
        teacher: Who says what to answer, or None.
        check: Refuses labels.
        place: Returns epoch and rank of this process when a walk begins.
    """

    data: Dataset
    plan: StepPlan
    seed: int
    augment: Augmentation | None
    teacher: Teacher | None
    check: Callable[[Tensor], None]
    place: Callable[[], tuple[int, int]]

    def __len__(self) -> int:
        return self.plan.passes

    def __iter__(self) -> Iterator[Step]:
        epoch, rank = self.place()
        found = epoch_batches(self.data, self.plan, seed=self.seed, epoch=epoch, rank=rank)
        steps = (self._step(rows, batch, epoch) for rows, batch in found)
        return _ahead_if_slow(steps, self.data, self.teacher)

    def _step(self, rows: Rows, batch: Batch, epoch: int) -> Step:
        if self.augment is not None:
            batch = replace(batch, feed=self.augment(batch.feed, rows, epoch))
        return _checked_step(batch, self.data, self.teacher, self.check)


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidationWalk:
    """The validation data of one process, in order.

    Attributes:
        data: All of the validation data.
        batch_size: Samples per pass.
        teacher: As for training.
        check: Refuses labels.
        place: Returns rank and number of processes when a walk begins.
    """

    data: Dataset
    batch_size: int
    teacher: Teacher | None
    check: Callable[[Tensor], None]
    place: Callable[[], tuple[int, int]]

    def __iter__(self) -> Iterator[Step]:
        rank, world = self.place()
        # Where there is not one sample for each process, all of them look at everything.
        rows = self.data.rows if self.data.size < world else self.data.rows[rank::world]
        batches = replace(self.data, rows=rows).batches(self.batch_size)
        steps = (_checked_step(batch, self.data, self.teacher, self.check) for batch in batches)
        return _ahead_if_slow(steps, self.data, self.teacher)


def _ahead_if_slow(steps: Iterator[Step], data: Dataset, teacher: Teacher | None) -> Iterator[Step]:
    """Return the steps, made ahead where that takes longer than two threads disturb each other."""
    source = data.source
    quick = isinstance(source, SampleSource) and isinstance(source.raw, ArraySamples)
    return steps if quick and teacher is None else iter(Ahead(steps))


def _checked_step(
    batch: Batch, data: Dataset, teacher: Teacher | None, check: Callable[[Tensor], None]
) -> Step:
    step = make_step(batch, teacher, whole_feeds=data.whole_feeds)
    if step.labels is not None:
        check(step.labels)
    return step


class Ahead(Generic[_T]):
    """Items that a thread makes a few ahead, while those before are in use."""

    def __init__(self, items: Iterator[_T]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[_T]:
        end = object()

        def following() -> Any:  # noqa: ANN401 - an item or the end
            return next(self._items, end)

        waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
            try:
                waiting.extend(pool.submit(following) for _ in range(_AHEAD))
                while (item := waiting.popleft().result()) is not end:
                    waiting.append(pool.submit(following))
                    yield item
            finally:
                for future in waiting:
                    future.cancel()
