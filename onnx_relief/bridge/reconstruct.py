"""Train what is left of a model until its blocks give what those of the dense model gave.

No labels. With s the values of the pruned model at a point of comparison (the end of a block, or an
output), t those of the dense model there, on the same samples, the loss is

    sum over points of weight * mean (s - t)^2 / var t,

so that every block counts the same whatever its scale. All points are trained at once, end to end:
a block sees what the repaired blocks before it really give, and an error that they cannot avoid is
made up for further on. Block by block, each on the dense model's inputs, is FitNets (Romero et al.,
arXiv 1412.6550) and BRECQ (Li et al., arXiv 2102.05426).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnx_relief.bridge.module import OnnxModule
from onnx_relief.bridge.ops.batch_normalization import BatchNormalization
from onnx_relief.bridge.train.batches import Step, make_step
from onnx_relief.bridge.train.losses import wide
from onnx_relief.bridge.train.teacher import Teacher
from onnx_relief.bridge.train.trainer import without_denormals
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.batch import Rows
from onnx_relief.data.shuffle import epoch_batches, numbered_batches, plan_steps, split_validation
from onnx_relief.data.unpack import seekable
from onnx_relief.errors import DataError

_HELD_OUT = 0.1
_SCALED_BY = 64
"""Samples by which the variance of the dense model at a point is known well enough."""
_CACHED_BYTES = 1 << 29
"""What the dense model gives is kept if it takes less than this, and computed anew otherwise."""
_WARMUP = 0.05
_TINY = 1e-12
_LEAST = 0.1
"""Tensors of (nearly) zeros move as if they had this share of the usual size: fresh biases."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How to train.

    Attributes:
        epochs: Walks through the calibration data.
        batch_size: Samples per step.
        lr: Highest learning rate of Adam, as a share of the root mean square of what is left of
            each tensor; it rises at first and then follows a cosine down to 0.
        output_weight: What an output of the model counts; a block counts 1.
        seed: Decides the order of samples, and which are held out.
    """

    epochs: int
    batch_size: int = 32
    lr: float = 5e-2
    output_weight: float = 1.0
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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended: relative errors of the outputs on held-out samples, before and after."""

    before: float
    after: float
    best_epoch: int


Points = Mapping[str, Point]


def train_to_match(
    module: OnnxModule,
    teacher: Teacher,
    points: Points,
    data: Dataset,
    lesson: Lesson,
    tick: Callable[[int], None],
) -> Outcome:
    """Train a module in place towards the dense model; the best epoch's weights stay in it.

    The best epoch is the one with the least error of the outputs on samples that are held out; the
    state before the first step takes part.

    Args:
        module: The pruned model, masks held; its outputs have the names of the points.
        teacher: The dense model; gives all points by name.
        points: Where both are compared.
        data: Calibration samples; labels are not looked at.
        lesson: How to train.
        tick: Called with 1 after every step, `lesson.epochs` times `plan_steps` of them.

    Raises:
        DataError: The data cannot be read, or an input is nothing that torch has.
        ModelError: The dense model cannot be run.
    """
    training, held_out = parts_of(data, lesson)
    judged = [_plain(b) for _, b in numbered_batches(held_out or training, lesson.batch_size)]
    source = _Targets(teacher, points, training, lesson)
    judge = [source.step(None, batch) for batch in judged]
    with torch.random.fork_rng(devices=()), without_denormals():
        torch.manual_seed(lesson.seed)
        return _train(module, points, _Walk(source, training, lesson), judge, lesson, tick)


def parts_of(data: Dataset, lesson: Lesson) -> tuple[Dataset, Dataset | None]:
    """Return what is trained on, quick to read in any order, and what is held out."""
    return split_validation(seekable(data), _HELD_OUT, lesson.seed)


def step_count(data: Dataset, lesson: Lesson) -> int:
    """Return how many steps training on all of `data` takes."""
    training, _ = parts_of(data, lesson)
    return plan_steps(training, lesson.batch_size).passes * lesson.epochs


def _train(
    module: OnnxModule,
    points: Points,
    walk: _Walk,
    judge: list[Step],
    lesson: Lesson,
    tick: Callable[[int], None],
) -> Outcome:
    module.eval()
    scales = walk.source.scales()
    before = best = _error(module, points, scales, judge)
    kept, best_epoch = _state(module), 0
    _estimate_statistics(module, walk)
    rates = _rates(module, lesson.lr)
    optimizer = torch.optim.Adam([{"params": [p]} for p in module.parameters()], fused=True)
    total, done = walk.steps * lesson.epochs, 0
    for epoch in range(lesson.epochs):
        for step in walk.steps_of(epoch):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _factor(done, total)
            loss = _loss(step.real(module.run(step.feed)), step.targets, points, scales)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            module.hold_masks()
            done += 1
            tick(1)
        error = _error(module, points, scales, judge)
        if error < best:
            best, kept, best_epoch = error, _state(module), epoch + 1
    module.load_state_dict(kept)
    module.hold_masks()
    return Outcome(before=before, after=best, best_epoch=best_epoch)


def _loss(
    found: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    points: Points,
    scales: Mapping[str, float],
) -> Tensor:
    parts = [
        point.weight * (wide(found[name]) - wide(targets[name])).square().mean() / scales[name]
        for name, point in points.items()
    ]
    return torch.stack(parts).sum()


def _error(
    module: OnnxModule, points: Points, scales: Mapping[str, float], judge: list[Step]
) -> float:
    """Return the mean relative error of the outputs; infinite where one is no number."""
    outputs = {name: replace(p, weight=1.0) for name, p in points.items() if p.is_output}
    total, count = 0.0, 0
    with torch.no_grad():
        for step in judge:
            found = step.real(module.run(step.feed))
            total += step.count * float(_loss(found, step.targets, outputs, scales))
            count += step.count
    error = total / (count * len(outputs))
    return error if math.isfinite(error) else math.inf


def _estimate_statistics(module: OnnxModule, walk: _Walk) -> None:
    """Let BatchNormalization take the mean over an epoch of what the pruned model gives it."""
    nodes = [part for part in module.modules() if isinstance(part, BatchNormalization)]
    if not nodes or any(part.of_batch for part in nodes):
        return
    old = [part.momentum for part in nodes]
    with torch.no_grad():
        for count, step in enumerate(walk.steps_of(0)):
            for part in nodes:
                part.train()
                part.momentum = count / (count + 1)
            module.run(step.feed)
    for part, momentum in zip(nodes, old, strict=True):
        part.momentum = momentum
        part.eval()


def _rates(module: OnnxModule, share: float) -> list[float]:
    """Return the learning rate of each parameter: a share of the size that its numbers have.

    Adam moves every number by about its rate, whatever the gradient, and tensors whose sizes differ
    a hundredfold are usual where normalisation was folded into weights.
    """
    sizes = []
    for parameter in module.parameters():
        left = parameter.detach()[parameter.detach() != 0].double()
        sizes.append(float(left.square().mean().sqrt()) if left.numel() else 0.0)
    positive = [size for size in sizes if size > 0]
    least = _LEAST * float(np.median(positive)) if positive else 1.0
    return [share * max(size, least) for size in sizes]


def _factor(step: int, steps: int) -> float:
    """Return what the learning rate is multiplied by at one step."""
    warmup = max(1, round(_WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _state(module: OnnxModule) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _plain(batch: Batch) -> Batch:
    return replace(batch, labels=None)


@dataclass(frozen=True, eq=False)
class _Walk:
    """The training samples with their targets, in a new order in each epoch."""

    source: _Targets
    data: Dataset
    lesson: Lesson

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return plan_steps(self.data, self.lesson.batch_size).passes

    def steps_of(self, epoch: int) -> Iterator[Step]:
        """Yield the steps of an epoch."""
        plan = replace(plan_steps(self.data, self.lesson.batch_size), accumulate=1)
        for rows, batch in epoch_batches(self.data, plan, seed=self.lesson.seed, epoch=epoch):
            yield self.source.step(rows, _plain(batch))


class _Targets:
    """What the dense model gives, remembered by row where there is room for it."""

    def __init__(self, teacher: Teacher, points: Points, data: Dataset, lesson: Lesson) -> None:
        self._teacher = teacher
        self._points = points
        self._data = data
        self._known: dict[int, dict[str, Tensor]] | None = None
        self._first = [
            self.step(None, _plain(batch))
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
            step = make_step(batch, None, whole_feeds=self._data.whole_feeds)
            kept = {name: torch.stack([one[name] for one in known]) for name in self._points}
            return replace(step, targets=kept)
        step = make_step(batch, self._teacher, whole_feeds=self._data.whole_feeds)
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
