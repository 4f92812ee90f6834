"""Everything that training needs, found out and checked before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from onnx_relief.bridge.train.augment import augmentation
from onnx_relief.bridge.train.batches import TrainingWalk, ValidationWalk, make_step
from onnx_relief.bridge.train.choose import check_range, choose_objective, unused_parameters
from onnx_relief.bridge.train.objective import Objective
from onnx_relief.bridge.train.processes import World, find_world
from onnx_relief.bridge.train.teacher import Teacher
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.shuffle import StepPlan, plan_steps, split_validation
from onnx_relief.data.unpack import both_seekable, seekable
from onnx_relief.training import TrainSettings

_TRIED = 32
"""Samples by which is found out what the outputs are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What is trained on what, where, and how.

    Attributes:
        module: An `OnnxModule`, or what behaves like one.
        settings: The choices.
        data: The training data, quick to read in any order.
        validation: What the best epoch is chosen by, or None.
        teacher: Who is followed, or None.
        first: Some samples.
        objective: What is minimised.
        plan: How an epoch is cut into steps.
        world: Where training runs.
        some_unused: Whether the objective leaves some weights without a gradient.
    """

    module: Any
    settings: TrainSettings
    data: Dataset
    validation: Dataset | None
    teacher: Teacher | None
    first: Batch
    objective: Objective
    plan: StepPlan
    world: World
    some_unused: bool

    def walk(self, place: Callable[[], tuple[int, int]]) -> TrainingWalk:
        """Return the training data; `place` tells epoch and rank.

        Raises:
            SettingsError: There are no pictures to augment.
        """
        augment = augmentation(
            self.data,
            self.first.feed,
            flip=self.settings.flip,
            crop_padding=self.settings.crop_padding,
            crop_scale=self.settings.crop_scale,
            seed=self.settings.seed,
        )
        return TrainingWalk(
            data=augment.drawn_from(self.data) if augment else self.data,
            plan=self.plan,
            seed=self.settings.seed,
            augment=augment,
            teacher=self.teacher,
            check=self._check,
            place=place,
        )

    def judge(self, place: Callable[[], tuple[int, int]]) -> ValidationWalk | None:
        """Return the validation data, if there is some; `place` tells rank and processes."""
        if self.validation is None:
            return None
        return ValidationWalk(
            data=self.validation,
            batch_size=max(1, self.settings.batch_size // self.world.size),
            teacher=self.teacher,
            check=self._check,
            place=place,
        )

    def _check(self, labels: Tensor) -> None:
        if self.objective.task is not None and self.objective.weight < 1:
            check_range(self.objective.task, labels, self.data.name)


def prepare(
    module: nn.Module,
    data: Dataset,
    settings: TrainSettings,
    validation: Dataset | None,
    teacher: Teacher | None,
) -> Task:
    """Return what training needs, after one batch has been tried; arguments as `train`.

    Raises:
        SettingsError, DataError, UnsupportedError: As `train`.
    """
    world = find_world(settings)
    if validation is None:
        data, validation = split_validation(seekable(data), settings.validation, settings.seed)
    else:
        data, validation = both_seekable(data, validation)
    plan = plan_steps(data, settings.batch_size, world.size)
    first = next(data.take(_TRIED).batches(min(_TRIED, settings.batch_size)))
    step = make_step(first, teacher, whole_feeds=data.whole_feeds)
    module.eval()
    objective = choose_objective(step.real(module(step.feed)), step, data, settings)
    some_unused = unused_parameters(module, objective, step)
    if objective.weight == 0:
        teacher = None
    return Task(
        module=module,
        settings=settings,
        data=data,
        validation=validation,
        teacher=teacher,
        first=first,
        objective=objective,
        plan=plan,
        world=world,
        some_unused=some_unused,
    )
