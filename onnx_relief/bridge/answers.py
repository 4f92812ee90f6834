"""What the dense model answers to the samples that a pruned one is taught by."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onnx_relief.bridge.lessons import Lesson, Points, feed_of, laid_out, part_of, plain, portions
from onnx_relief.bridge.train.batches import Step, make_step
from onnx_relief.bridge.train.teacher import Teacher
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.batch import Rows
from onnx_relief.data.shuffle import epoch_batches, fixed_batch, plan_steps
from onnx_relief.errors import DataError, ModelError

_SCALED_BY = 64
"""Samples by which the variance of the dense model at a point is known well enough."""
_CACHED_SHARE = 0.25
"""What the dense model gives is kept if it takes less of the memory, and computed anew otherwise.

So it is with what epochs are judged by.
"""
_TINY = 1e-12


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
    """What the dense model gives, remembered by row where there is room for it.

    Attributes:
        scales: The variance of what it gives at each point.
    """

    def __init__(
        self, teacher: Teacher, points: Points, data: Dataset, lesson: Lesson, most: int
    ) -> None:
        self._teacher = teacher
        self._points = points
        self._data = data
        self._memory = lesson.memory
        self._axes = sample_axes(teacher, data)
        self._known: dict[int, dict[str, Tensor]] | None = None
        cuttable = all(name in self._axes for name in points)
        self._most = most if cuttable else sys.maxsize
        size = 0.0
        spreads = {name: Spread() for name in points}
        some = data.take(_SCALED_BY)
        for batch in some.batches(lesson.batch_size):
            for step in self.steps(None, plain(batch)):
                size += sum(values.nbytes for values in step.targets.values()) / some.size
                for name, spread in spreads.items():
                    spreads[name] = spread.with_more(step.targets[name])
        self.scales = {name: spread.variance for name, spread in spreads.items()}
        by_sample = cuttable or fixed_batch(data) == 1
        if by_sample and not data.whole_feeds and size * data.size < self.room:
            self._known = {}

    @property
    def room(self) -> float:
        """Bytes that answers may take which are kept."""
        return _CACHED_SHARE * self._memory

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
        step = laid_out(make_step(batch, self._teacher, whole_feeds=self._data.whole_feeds))
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


@dataclass(frozen=True)
class Spread:
    """How far numbers lie from their mean, taken in bit by bit (Chan, Golub and LeVeque 1979).

    Attributes:
        count: How many there were.
        mean: Their mean.
        squares: The sum of their squared distances to it.

    >>> Spread().with_more(torch.tensor([1.0, 2.0])).with_more(torch.tensor([6.0])).variance
    4.666666666666667
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def with_more(self, values: Tensor) -> Spread:
        """Return the same with more numbers."""
        if not values.numel():
            return self
        wide = values.double()
        count, mean = self.count + wide.numel(), float(wide.mean())
        gap = mean - self.mean
        squares = float((wide - mean).square().sum())
        return Spread(
            count=count,
            mean=self.mean + gap * wide.numel() / count,
            squares=self.squares + squares + gap**2 * self.count * wide.numel() / count,
        )

    @property
    def variance(self) -> float:
        """Their mean squared distance to the mean; their mean square where there is next to none.

        Of nothing but zeros it is 1.
        """
        variance = self.squares / self.count if self.count else 0.0
        square = variance + self.mean**2
        return (variance if variance > _TINY * square else square) or 1.0


@dataclass(frozen=True, eq=False)
class Answered:
    """Samples in order with what the dense model's outputs are, and no block's."""

    source: Targets
    data: Dataset
    points: Points
    lesson: Lesson

    def __iter__(self) -> Iterator[Step]:
        for batch in self.data.batches(self.lesson.batch_size):
            for step in self.source.steps(None, plain(batch)):
                outputs = {
                    name: step.targets[name] for name in self.points if self.points[name].is_output
                }
                yield replace(step, targets=outputs)

    def held(self) -> Iterable[Step]:
        """Return the same, kept where there is room for it."""
        size = 0
        steps = []
        for step in self:
            steps.append(step)
            size += sum(values.nbytes for values in (*step.feed.values(), *step.targets.values()))
            if size > self.source.room:
                return self
        return steps


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
            for batch in (part_of(two, 0, 1), two)
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
