"""Train a module on data: the whole way on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from onnx_relief.bridge.ops.batch_normalization import freeze_batch_normalization
from onnx_relief.bridge.train.checkpoints import Checkpoints, fingerprint, rows_of
from onnx_relief.bridge.train.course import Course, impatient
from onnx_relief.bridge.train.processes import World, together
from onnx_relief.bridge.train.task import Task, prepare
from onnx_relief.bridge.train.teacher import ModuleTeacher, Teacher
from onnx_relief.bridge.train.trainee import Trainee
from onnx_relief.bridge.train.trainer import (
    make_trainer,
    quiet,
    same_random_numbers_after,
    without_denormals,
)
from onnx_relief.data import Dataset
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.training import EpochRow, OnEpoch, Trained, TrainSettings, best_row


def train(
    module: nn.Module,
    data: Dataset,
    settings: TrainSettings,
    *,
    folder: Path,
    validation: Dataset | None = None,
    teacher: Teacher | nn.Module | None = None,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
    flag: str = "--run",
    contents: Mapping[str, str] | None = None,
) -> Trained:
    """Train `module` in place and leave the weights of the best epoch in it.

    The weights that it began with are kept where no epoch is better on the validation data.

    Started again with the same arguments and the same initial weights, it goes on from the last
    epoch that `folder` holds and ends with the weights that an uninterrupted run has.

    Args:
        module: An `OnnxModule`: takes and gives tensors by name, and holds its masks.
        data: The training data.
        settings: The choices.
        folder: Where checkpoints go; it is made where it does not exist.
        validation: What the best epoch is chosen by; by default a part split off `data`.
        teacher: What the outputs shall be like, where labels do not say it all.
        progress: Told of every optimizer step.
        on_epoch: Told of every epoch, in the main process.
        flag: What the user named `folder` with.
        contents: What else has to be the same for going on, by what it is: digests.

    Raises:
        SettingsError: Options, data, model and teacher do not suit each other, the loss is no
            longer a number, or the folder holds another training.
        DataError: The data cannot be used for training this model.
        UnsupportedError: The model has nothing to train.
        OutputError: A checkpoint cannot be written; the one before stays.
    """
    if isinstance(teacher, nn.Module):
        teacher = ModuleTeacher(teacher)
    task = prepare(module, data, settings, validation, teacher)
    checkpoints = Checkpoints(
        folder,
        flag,
        fingerprint(
            module,
            task.module.masks,
            settings,
            task.data,
            task.validation,
            has_teacher=teacher is not None,
        )
        | dict(contents or {}),
    )
    checkpoints.prepare()
    state = checkpoints.load()
    start, history = rows_of(state)
    done = len(history)
    if state is not None:
        module.load_state_dict(state["module"])
    if done < settings.epochs and not (history and impatient(start, history, settings)):
        with (
            quiet(),
            without_denormals(),
            same_random_numbers_after(task.world),
            together(task.world),
        ):
            start = _fit(task, checkpoints, state, start, history, progress, on_epoch)
    module.load_state_dict(checkpoints.load_best())
    task.module.hold_masks()
    module.eval()
    return _trained(start, history, settings, done, task.world)


def _fit(
    task: Task,
    checkpoints: Checkpoints,
    state: dict[str, Any] | None,
    start: EpochRow | None,
    history: list[EpochRow],
    progress: Progress | None,
    on_epoch: OnEpoch | None,
) -> EpochRow | None:
    """Do the epochs that are left, with Lightning, and return what the start was worth."""
    settings, plan, done = task.settings, task.plan, len(history)
    trainee = Trainee(
        task.module,
        task.module.hold_masks,
        task.objective,
        settings,
        plan=plan,
        first_epoch=done,
        state=state,
    )
    tick = ticker(
        progress if task.world.is_main else None, "training", settings.epochs * plan.steps
    )
    tick(done * plan.steps)
    course = Course(start, history, checkpoints, settings, plan, tick, on_epoch)
    trainer = make_trainer(task, course, settings.epochs - done, judge_start=state is None)
    walk = task.walk(lambda: (trainee.epoch, trainer.global_rank))
    judge = task.judge(lambda: (trainer.global_rank, trainer.world_size))
    task.module.train()
    freeze_batch_normalization(task.module, settings.freezes_bn(plan.share * plan.world))
    try:
        trainer.fit(trainee, walk, judge)
    except SystemExit as left:
        # Lightning leaves the program on Ctrl-C; whether to is not for a library to decide.
        if isinstance(left.__context__, KeyboardInterrupt):
            raise left.__context__ from None
        raise
    return course.start


def _trained(
    start: EpochRow | None,
    history: list[EpochRow],
    settings: TrainSettings,
    done: int,
    world: World,
) -> Trained:
    best = best_row(start, history)
    reason = f"all {settings.epochs} epochs are done"
    if len(history) < settings.epochs:
        reason = f"no improvement for {settings.patience} epochs (--patience)"
    return Trained(
        start=start,
        history=tuple(history),
        best_epoch=0 if best is None else best.epoch,
        reason=reason,
        resumed_from=done,
        is_main=world.is_main,
    )
