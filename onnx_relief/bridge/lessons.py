"""What a pruned model is taught by: calibration samples, and the dense model's answers to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from onnx_relief.data.shuffle import epoch_batches, plan_steps
from onnx_relief.errors import DataError
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
            as many portions as that takes. None leaves steps whole, as models with a fixed batch
            need them.
        seed: Decides the order of samples.
    """

    epochs: int
    batch_size: int = 32
    lr: float | None = None
    output_weight: float = 4.0
    augment: Augmentation | None = None
    memory: int | None = DEFAULT_MEMORY
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


def portions(step: Step, most: int) -> list[Step]:
    """Return a step as several of at most so many samples, or as it is where it cannot be cut."""
    values = [*step.feed.values(), *step.targets.values()]
    if step.count <= most or any(v.ndim == 0 or len(v) != step.count for v in values):
        return [step]
    number = -(-step.count // most)
    ends = [step.count * place // number for place in range(number + 1)]
    return [
        replace(
            step,
            feed={name: value[start:end] for name, value in step.feed.items()},
            targets={name: value[start:end] for name, value in step.targets.items()},
            count=end - start,
        )
        for start, end in pairwise(ends)
    ]


def plain(batch: Batch) -> Batch:
    """Return a batch without labels."""
    return replace(batch, labels=None)


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

    def steps_of(self, epoch: int) -> Iterator[Step]:
        """Yield the steps of an epoch; what is drawn anew in each is not remembered."""
        augment = self.lesson.augment
        plan = replace(plan_steps(self.data, self.lesson.batch_size), accumulate=1)
        for rows, batch in epoch_batches(self.data, plan, seed=self.lesson.seed, epoch=epoch):
            if augment is not None:
                batch = replace(batch, feed=augment(batch.feed, rows, epoch))
                yield self.source.step(None, plain(batch))
            else:
                yield self.source.step(rows, plain(batch))


class Targets:
    """What the dense model gives, remembered by row where there is room for it."""

    def __init__(self, teacher: Teacher, points: Points, data: Dataset, lesson: Lesson) -> None:
        self._teacher = teacher
        self._points = points
        self._data = data
        self._known: dict[int, dict[str, Tensor]] | None = None
        self._first = [
            self.step(None, plain(batch))
            for batch in data.take(_SCALED_BY).batches(lesson.batch_size)
        ]
        samples = sum(step.count for step in self._first)
        size = sum(t.nbytes for step in self._first for t in step.targets.values())
        by_sample = all(
            t.ndim and len(t) == step.count for step in self._first for t in step.targets.values()
        )
        if by_sample and not data.whole_feeds and size / samples * data.size < _CACHED_BYTES:
            self._known = {}

    def step(self, rows: Rows | None, batch: Batch) -> Step:
        """Return a batch as tensors with its targets; `rows` names its samples."""
        names = [] if self._known is None or rows is None else rows.tolist()
        known = [self._known[row] for row in names if row in self._known] if self._known else []
        if known and len(known) == len(names):
            step = _laid_out(make_step(batch, None, whole_feeds=self._data.whole_feeds))
            kept = {name: torch.stack([one[name] for one in known]) for name in self._points}
            return replace(step, targets=kept)
        step = _laid_out(make_step(batch, self._teacher, whole_feeds=self._data.whole_feeds))
        missing = [name for name in self._points if name not in step.targets]
        if missing:
            raise DataError(f"the dense model gives no numbers at {missing[0]!r}")
        targets = {name: point.of(step.targets[name]) for name, point in self._points.items()}
        if self._known is not None:
            for place, row in enumerate(names):
                self._known[row] = {name: value[place].clone() for name, value in targets.items()}
        return replace(step, targets=targets)

    def scales(self) -> dict[str, float]:
        """Return the variance of the dense model's values at each point."""
        found = {}
        for name in self._points:
            values = torch.cat([wide(step.targets[name]).reshape(-1) for step in self._first])
            variance = float(values.double().var(unbiased=False))
            found[name] = variance if variance > _TINY else 1.0
        return found
