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
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from onnx_relief.bridge.answers import Answered, Targets, Walk
from onnx_relief.bridge.lessons import Lesson, Points, feed_of
from onnx_relief.bridge.module import OnnxModule
from onnx_relief.bridge.ops.batch_normalization import BatchNormalization
from onnx_relief.bridge.train.batches import Step
from onnx_relief.bridge.train.losses import wide
from onnx_relief.bridge.train.teacher import Teacher
from onnx_relief.bridge.train.trainer import without_denormals
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.batch import Rows
from onnx_relief.data.held_out import Split
from onnx_relief.data.shuffle import plan_steps
from onnx_relief.data.unpack import both_seekable
from onnx_relief.errors import UnsupportedError

_WARMUP = 0.05
_RATES = (0.00025, 0.001, 0.004, 0.015, 0.06)
"""Learning rates that are tried: Adam's, as shares of the size of each tensor's numbers."""
_TRIAL, _TRIAL_STEPS = 0.05, (10, 60)
"""A trial takes this share of all steps, and so many at least and at most."""
_NEARLY = 1.1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended.

    Attributes:
        before: Relative error of the outputs on held-out samples.
        after: The same in the end.
        trained: The same in the end, on as many samples of those that were trained on.
        best_epoch: The epoch that was kept, from 1; 0 if none was better than none.
        lr: The learning rate that was taken.
    """

    before: float
    after: float
    trained: float
    best_epoch: int
    lr: float


def train_to_match(
    module: OnnxModule,
    teacher: Teacher,
    points: Points,
    samples: Split,
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
        samples: What is trained on, and what epochs are judged by; labels are not looked at.
        lesson: How to train.
        tick: Called with 1 after every step, `lesson.epochs` times `plan_steps` of them.

    Raises:
        DataError: The data cannot be read, or an input is nothing that torch has.
        ModelError: The dense model cannot be run.
        UnsupportedError: The weights move nothing that is compared, or both models give other
            shapes on some samples.
    """
    training, judging = both_seekable(samples.work, samples.judge)
    module.eval()
    _check_gradients(module, points, training)
    room = _room(module, training, lesson.memory)
    source = Targets(teacher, points, training, lesson, room)
    judge = Answered(source, judging, points, lesson).held()
    seen = Answered(source, training.take(judging.size), points, lesson)
    walk = Walk(source, lesson.augment.drawn_from(training) if lesson.augment else training, lesson)
    with torch.random.fork_rng(devices=()), without_denormals():
        torch.manual_seed(lesson.seed)
        return _train(module, points, walk, judge, seen, lesson, tick)


def step_count(samples: Split, lesson: Lesson) -> int:
    """Return how many steps training takes."""
    return plan_steps(samples.work, lesson.batch_size).passes * lesson.epochs


def _train(
    module: OnnxModule,
    points: Points,
    walk: Walk,
    judge: Iterable[Step],
    seen: Iterable[Step],
    lesson: Lesson,
    tick: Callable[[int], None],
) -> Outcome:
    scales = walk.source.scales
    before = best = _error(module, points, scales, judge)
    kept, best_epoch = _state(module), 0
    _estimate_statistics(module, walk)
    course = _Course(module, points, scales, walk.source)
    rate = lesson.lr if lesson.lr is not None else _tried_rate(course, walk, judge, lesson, before)
    course.begin(rate, walk.steps * lesson.epochs)
    for epoch in range(lesson.epochs):
        for rows, batch in walk.batches_of(epoch):
            course.do(rows, batch)
            tick(1)
        error = _error(module, points, scales, judge)
        if error < best:
            best, kept, best_epoch = error, _state(module), epoch + 1
    module.load_state_dict(kept)
    module.hold_masks()
    trained = _error(module, points, scales, seen)
    return Outcome(before=before, after=best, trained=trained, best_epoch=best_epoch, lr=rate)


def _tried_rate(
    course: _Course, walk: Walk, judge: Iterable[Step], lesson: Lesson, before: float
) -> float:
    """Return the rate with which a short course ends best; the module is as it was after.

    It is ten times less for a transformer than for a small convolutional network, and less again
    for a deep one without normalisation. Long courses bear higher rates than short ones, so that
    the highest that is nearly as good is taken, unless only lower ones do any good (`before` is the
    error without a course). Rates beyond the first that is not nearly as good are not tried.
    """
    module, start = course.module, _state(course.module)
    count = int(np.clip(walk.steps * lesson.epochs * _TRIAL, *_TRIAL_STEPS))
    errors: dict[float, float] = {}
    for rate in _RATES:
        course.begin(rate, count)
        endless = chain.from_iterable(walk.batches_of(epoch) for epoch in range(count))
        for rows, batch in islice(endless, count):
            course.do(rows, batch)
        errors[rate] = _error(module, course.points, course.scales, judge)
        module.load_state_dict(start)
        if errors[rate] > _NEARLY * min(errors.values()):
            break
    least = min(errors.values())
    enough = min(before, _NEARLY * least) if least < before else _NEARLY * least
    return max(rate for rate, error in errors.items() if error <= enough)


class _Course:
    """A number of steps with one schedule of the learning rate, and a fresh Adam."""

    def __init__(
        self, module: OnnxModule, points: Points, scales: Mapping[str, float], source: Targets
    ) -> None:
        self.module, self.points, self.scales, self._source = module, points, scales, source
        self._sizes = _sizes(module)

    def begin(self, rate: float, steps: int) -> None:
        """Begin a course of so many steps, with the given highest rate."""
        self._rate, self._steps, self._done = rate, steps, 0
        groups = [{"params": [parameter]} for parameter in self.module.parameters()]
        self._optimizer = torch.optim.Adam(groups, fused=True)

    def do(self, rows: Rows | None, batch: Batch) -> None:
        """Do one step; arguments as `Targets.steps`."""
        factor = self._rate * _factor(self._done, self._steps)
        for group, size in zip(self._optimizer.param_groups, self._sizes, strict=True):
            group["lr"] = size * factor
        for step in self._source.steps(rows, batch):
            found = step.real(self.module.run(step.feed))
            loss = _loss(found, step.targets, self.points, self.scales)
            (loss * (step.count / batch.count)).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.module.hold_masks()
        self._done += 1


def _check_gradients(module: OnnxModule, points: Points, data: Dataset) -> None:
    found = module.run(feed_of(next(iter(data.batches(1))), data).feed)
    if not any(found[name].requires_grad for name in points):
        raise UnsupportedError(
            f"nothing that is compared with the dense model ({', '.join(map(repr, points))}) has a "
            "gradient, so it cannot be trained; use another --repair"
        )


def _room(module: OnnxModule, data: Dataset, memory: int) -> int:
    """Return how many samples a module can be trained on at a time, with half of the memory.

    That is found out on one: what backward needs of it grows with their number, what it needs of
    the weights does not. For each tensor that is given there is one of the dense model, too.
    """
    norms = (part for part in module.modules() if isinstance(part, BatchNormalization))
    if any(norm.of_batch for norm in norms):
        return sys.maxsize
    sample = feed_of(next(iter(data.batches(1))), data)
    known = {parameter.data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        found = module.run(sample.feed)
    given = 2 * sum(values.nbytes for values in found.values())
    each = (sum(kept.values()) + given) / sample.count
    return max(1, int(memory / 2 / max(each, 1)))


def _loss(
    found: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    points: Points,
    scales: Mapping[str, float],
) -> Tensor:
    parts = []
    for name, point in points.items():
        ours, theirs = wide(found[name]), wide(targets[name])
        if ours.shape != theirs.shape:  # which would be stretched to fit, if that can be done
            raise UnsupportedError(
                f"{name!r} has shape {tuple(ours.shape)} in the pruned model and "
                f"{tuple(theirs.shape)} in the dense one on some samples, so that the one cannot "
                "follow the other; use another --repair"
            )
        parts.append(point.weight * mse_loss(ours, theirs) / scales[name])
    return torch.stack(parts).sum()


def _error(
    module: OnnxModule, points: Points, scales: Mapping[str, float], steps: Iterable[Step]
) -> float:
    """Return the mean relative error of the outputs; infinite where one is no number."""
    outputs = {name: replace(p, weight=1.0) for name, p in points.items() if p.is_output}
    total, count = 0.0, 0
    with torch.no_grad():
        for step in steps:
            found = step.real(module.run(step.feed))
            total += step.count * float(_loss(found, step.targets, outputs, scales))
            count += step.count
    error = total / (count * len(outputs))
    return error if math.isfinite(error) else math.inf


def _estimate_statistics(module: OnnxModule, walk: Walk) -> None:
    """Let BatchNormalization take the mean over an epoch of what the pruned model gives it."""
    nodes = [part for part in module.modules() if isinstance(part, BatchNormalization)]
    if not nodes or any(part.of_batch for part in nodes):
        return
    old = [part.momentum for part in nodes]
    with torch.no_grad():
        for count, (_, batch) in enumerate(walk.batches_of(0)):
            for part in nodes:
                part.train()
                part.momentum = count / (count + 1)
            module.run(feed_of(batch, walk.data).feed)
    for part, momentum in zip(nodes, old, strict=True):
        part.momentum = momentum
        part.eval()


def _sizes(module: OnnxModule) -> list[float]:
    """Return how large the numbers of each parameter are, to which its learning rate is relative.

    Adam moves every number by about its rate, whatever the gradient, and tensors whose sizes differ
    a hundredfold are usual where normalisation was folded into weights. Small vectors (fresh
    biases) count as usual ones, or they would take for ever.
    """
    sizes = []
    for parameter in module.parameters():
        left = parameter.detach()[parameter.detach() != 0].double()
        sizes.append(float(left.square().mean().sqrt()) if left.numel() else 0.0)
    positive = [size for size in sizes if size > 0]
    usual = float(np.median(positive)) if positive else 1.0
    return [
        size if size > 0 and parameter.ndim > 1 else max(size, usual)
        for size, parameter in zip(sizes, module.parameters(), strict=True)
    ]


def _factor(step: int, steps: int) -> float:
    """Return what the learning rate is multiplied by at one step."""
    warmup = max(1, round(_WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _state(module: OnnxModule) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
