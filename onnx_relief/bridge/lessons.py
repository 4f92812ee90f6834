"""What a pruned model is taught by: calibration samples, and the dense model's answers to them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from onnx_relief.bridge.train.augment import Augmentation
from onnx_relief.bridge.train.batches import Step, make_step
from onnx_relief.bridge.train.losses import wide
from onnx_relief.bridge.train.teacher import Teacher
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.batch import Rows
from onnx_relief.data.shuffle import epoch_batches, fixed_batch, plan_steps
from onnx_relief.errors import DataError, ModelError
from onnx_relief.settings import DEFAULT_MEMORY

_SCALED_BY = 64
"""Samples by which the variance of the dense model at a point is known well enough."""
_CACHED_BYTES = 1 << 29
"""What the dense model gives is kept if it takes less than this, and computed anew otherwise."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How to train.

    Attributes:
        epochs: Walks through the calibration data.
        batch_size: Samples per step.
        lr: Highest learning rate of Adam, as a share of the root mean square of what is left of
            each tensor; it rises at first and then follows a cosine down to 0. None tries some.
        output_weight: What an output of the model counts; a block counts 1. With 4, digits with a
            tenth of the weights end with a tenth less error on other samples than with 1, and
            ResNet-20 with a fifth of them with a hundredth more.
        augment: What is done to the pictures of every epoch; None for nothing. The dense model
            sees the same.
        memory: Bytes that a step may keep for its gradients, about; it goes through its samples in
            as many portions as that takes. Where the model fixes the batch, steps stay whole.
        seed: Decides the order of samples.
    """

    epochs: int
    batch_size: int = 32
    lr: float | None = None
    output_weight: float = 4.0
    augment: Augmentation | None = None
    memory: int = DEFAULT_MEMORY
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """A tensor at which the pruned model is compared with the dense one.

    Attributes:
        axis: Axis of which only some places are left, where that is so.
        places: Which of the dense model's places those are.
        weight: What the point counts.
        is_output: Whether it is an output of the model itself.
    """

    axis: int = 0
    places: tuple[int, ...] | None = None
    weight: float = 1.0
    is_output: bool = False

    def of(self, dense: Tensor) -> Tensor:
        """Return of the dense model's values those that the pruned model has."""
        if self.places is None:
            return dense
        return dense.index_select(self.axis, torch.tensor(self.places))


Points = Mapping[str, Point]


def _laid_out(step: Step) -> Step:
    """Return a step whose pictures keep the channels of a pixel together.

    Depthwise convolutions of torch are twice as quick on these, and no other is slower.
    """
    feed = {
        name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in step.feed.items()
    }
    return replace(step, feed=feed)


def portions(rows: Rows | None, batch: Batch, most: int) -> list[tuple[Rows | None, Batch]]:
    """Return a batch, and which rows it has, in portions of at most so many samples.

    It stays as it is where it is no list of samples.
    """
    arrays = batch.feed.values()
    if batch.count <= most or any(a.ndim == 0 or len(a) != batch.count for a in arrays):
        return [(rows, batch)]
    number = -(-batch.count // most)
    ends = [batch.count * place // number for place in range(number + 1)]
    return [
        (None if rows is None else rows[start:end], _part(batch, start, end))
        for start, end in pairwise(ends)
    ]


def _part(batch: Batch, start: int, end: int) -> Batch:
    feed = {name: array[start:end] for name, array in batch.feed.items()}
    return Batch(feed=feed, labels=None, count=end - start)


def plain(batch: Batch) -> Batch:
    """Return a batch without labels."""
    return replace(batch, labels=None)


def feed_of(batch: Batch, data: Dataset) -> Step:
    """Return a batch of `data` as tensors, without targets."""
    return _laid_out(make_step(batch, None, whole_feeds=data.whole_feeds))


@dataclass(frozen=True, eq=False)
class Walk:
    """The training samples with their targets, in a new order in each epoch."""

    source: Targets
    data: Dataset
    lesson: Lesson

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return plan_steps(self.data, self.lesson.batch_size).passes

    def batches_of(self, epoch: int) -> Iterator[tuple[Rows | None, Batch]]:
        """Yield a batch for each step of an epoch, and its rows; None where it is drawn anew."""
        augment = self.lesson.augment
        plan = replace(plan_steps(self.data, self.lesson.batch_size), accumulate=1)
        for rows, batch in epoch_batches(self.data, plan, seed=self.lesson.seed, epoch=epoch):
            if augment is not None:
                yield None, plain(replace(batch, feed=augment(batch.feed, rows, epoch)))
            else:
                yield rows, plain(batch)


class Targets:
    """What the dense model gives, remembered by row where there is room for it."""

    def __init__(
        self, teacher: Teacher, points: Points, data: Dataset, lesson: Lesson, most: int
    ) -> None:
        self._teacher = teacher
        self._points = points
        self._data = data
        self._axes = sample_axes(teacher, data)
        self._known: dict[int, dict[str, Tensor]] | None = None
        cuttable = all(name in self._axes for name in points)
        self._most = most if cuttable else sys.maxsize
        self._first = [
            step
            for batch in data.take(_SCALED_BY).batches(lesson.batch_size)
            for step in self.steps(None, plain(batch))
        ]
        samples = sum(step.count for step in self._first)
        size = sum(t.nbytes for step in self._first for t in step.targets.values())
        by_sample = cuttable or fixed_batch(data) == 1
        if by_sample and not data.whole_feeds and size / samples * data.size < _CACHED_BYTES:
            self._known = {}

    def steps(self, rows: Rows | None, batch: Batch) -> Iterator[Step]:
        """Yield a batch with its targets, as many samples at a time as there is room for.

        Args:
            rows: Names the samples; None where what is known of them does not count.
            batch: The samples.
        """
        for some, part in portions(rows, batch, self._most):
            yield self._step(some, part)

    def _step(self, rows: Rows | None, batch: Batch) -> Step:
        names = [] if self._known is None or rows is None else rows.tolist()
        known = [self._known[row] for row in names if row in self._known] if self._known else []
        if known and len(known) == len(names):
            kept = {name: self._joined(name, [one[name] for one in known]) for name in self._points}
            return replace(feed_of(batch, self._data), targets=kept)
        step = _laid_out(make_step(batch, self._teacher, whole_feeds=self._data.whole_feeds))
        missing = [name for name in self._points if name not in step.targets]
        if missing:
            raise DataError(f"the dense model gives no numbers at {missing[0]!r}")
        targets = {name: point.of(step.targets[name]) for name, point in self._points.items()}
        if self._known is not None:
            for place, row in enumerate(names):
                self._known[row] = {
                    name: value.clone() if len(names) == 1 else self._one(name, value, place)
                    for name, value in targets.items()
                }
        return replace(step, targets=targets)

    def _one(self, name: str, values: Tensor, place: int) -> Tensor:
        return values.narrow(self._axes[name], place, 1).clone()

    def _joined(self, name: str, each: list[Tensor]) -> Tensor:
        return each[0] if len(each) == 1 else torch.cat(each, self._axes[name])

    def scales(self) -> dict[str, float]:
        """Return the variance of the dense model's values at each point."""
        found = {}
        for name in self._points:
            values = torch.cat([wide(step.targets[name]).reshape(-1) for step in self._first])
            variance = float(values.double().var(unbiased=False))
            found[name] = variance if variance > _TINY else 1.0
        return found


def sample_axes(teacher: Teacher, data: Dataset) -> dict[str, int]:
    """Return which axis of the dense model's tensors is that of samples, by name.

    It is the only one that grows with their number. Its length alone says nothing: where time
    steps come first, as recurrent layers want them, there may be as many as samples. Tensors
    without such an axis are left out, and all of them where the number of samples cannot be chosen.
    """
    if data.whole_feeds or fixed_batch(data) is not None:
        return {}
    two = plain(next(iter(data.batches(2))))
    if two.count < 2:
        return {}
    try:
        one, other = (
            make_step(batch, teacher, whole_feeds=False).targets
            for batch in (_part(two, 0, 1), two)
        )
    except ModelError:
        return {}
    axes = {name: _grown(one[name].shape, other[name].shape) for name in one if name in other}
    return {name: axis for name, axis in axes.items() if axis is not None}


def _grown(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Return the axis of length 1 that has 2 in the other shape, if nothing else is different."""
    if len(one) != len(other):
        return None
    differ = [
        axis for axis, lengths in enumerate(zip(one, other, strict=True)) if len({*lengths}) > 1
    ]
    return differ[0] if [(one[axis], other[axis]) for axis in differ] == [(1, 2)] else None
