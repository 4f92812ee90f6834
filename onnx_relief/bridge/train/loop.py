"""Train a module on data: the whole way on one screen, Lightning's part in `_fit`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from onnx_relief.bridge.ops.batch_normalization import freeze_batch_normalization
from onnx_relief.bridge.train.augment import augmentation
from onnx_relief.bridge.train.batches import TrainingWalk, ValidationWalk, make_step
from onnx_relief.bridge.train.checkpoints import Checkpoints, fingerprint, rows_of
from onnx_relief.bridge.train.choose import check_range, choose_objective, unused_parameters
from onnx_relief.bridge.train.course import Course, impatient
from onnx_relief.bridge.train.objective import Objective
from onnx_relief.bridge.train.processes import World, find_world, together
from onnx_relief.bridge.train.teacher import ModuleTeacher, Teacher
from onnx_relief.bridge.train.trainee import Trainee
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.shuffle import (
    StepPlan,
    both_seekable,
    plan_steps,
    seekable,
    split_validation,
)
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.training import EpochRow, OnEpoch, Trained, TrainSettings, best_row

_TRIED = 32
"""Samples by which is found out what the outputs are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """Everything that training needs, found out and checked before the first step."""

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
) -> Trained:
    """Train `module` in place and leave the weights of the best epoch in it.

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

    Raises:
        SettingsError: Options, data, model and teacher do not suit each other, the loss is no
            longer a number, or the folder holds another training.
        DataError: The data cannot be used for training this model.
        UnsupportedError: The model has nothing to train.
        OutputError: A checkpoint cannot be written; the one before stays.
    """
    if isinstance(teacher, nn.Module):
        teacher = ModuleTeacher(teacher)
    task = _prepared(module, data, settings, validation, teacher)
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
        ),
    )
    checkpoints.prepare()
    state = checkpoints.load()
    history = [] if state is None else rows_of(state)
    done = len(history)
    if state is not None:
        module.load_state_dict(state["module"])
    if done < settings.epochs and not (history and impatient(history, settings)):
        with _same_random_numbers_after(task.world), together(task.world):
            _fit(task, checkpoints, state, history, progress, on_epoch)
    module.load_state_dict(checkpoints.load_best())
    task.module.hold_masks()
    module.eval()
    return _trained(history, settings, done, task.world)


def _prepared(
    module: nn.Module,
    data: Dataset,
    settings: TrainSettings,
    validation: Dataset | None,
    teacher: Teacher | None,
) -> _Task:
    """Return what training needs, after one batch has been tried."""
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
    return _Task(
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


def _fit(
    task: _Task,
    checkpoints: Checkpoints,
    state: dict[str, Any] | None,
    history: list[EpochRow],
    progress: Progress | None,
    on_epoch: OnEpoch | None,
) -> None:
    """Do the epochs that are left, with Lightning."""
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
    course = Course(history, checkpoints, settings, plan, tick, on_epoch)
    with _quiet():
        trainer = _trainer(task, course, settings.epochs - done)

        def check(labels: Tensor) -> None:
            if task.objective.task is not None and task.objective.weight < 1:
                check_range(task.objective.task, labels, task.data.name)

        walk = TrainingWalk(
            data=task.data,
            plan=plan,
            seed=settings.seed,
            augment=augmentation(task.data, task.first.feed, settings),
            teacher=task.teacher,
            check=check,
            place=lambda: (trainee.epoch, trainer.global_rank),
        )
        judge = None
        if task.validation is not None:
            judge = ValidationWalk(
                data=task.validation,
                batch_size=max(1, settings.batch_size // plan.world),
                teacher=task.teacher,
                check=check,
                place=lambda: (trainer.global_rank, trainer.world_size),
            )
        task.module.train()
        freeze_batch_normalization(task.module, settings.freezes_bn(plan.share * plan.world))
        try:
            trainer.fit(trainee, walk, judge)
        except SystemExit as left:
            # Lightning leaves the program on Ctrl-C; whether to is not for a library to decide.
            if isinstance(left.__context__, KeyboardInterrupt):
                raise left.__context__ from None
            raise


def _trainer(task: _Task, course: Course, epochs: int) -> lightning.Trainer:
    """Return a trainer without anything that takes time, writes files or talks."""
    settings = task.settings
    precision: Any = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[settings.precision]
    strategy: Any = "auto"
    if task.world.size > 1:
        strategy = DDPStrategy(
            process_group_backend="nccl" if task.world.accelerator == "gpu" else "gloo",
            find_unused_parameters=task.some_unused,
            broadcast_buffers=False,
        )
    return lightning.Trainer(
        accelerator=task.world.accelerator,
        devices=task.world.local_size,
        num_nodes=task.world.size // task.world.local_size,
        strategy=strategy,
        plugins=task.world.environment,
        precision=precision,
        max_epochs=epochs,
        callbacks=[course],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_autolog_hparams=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,
        default_root_dir=os.fspath(Path.cwd()),
    )


def _trained(history: list[EpochRow], settings: TrainSettings, done: int, world: World) -> Trained:
    best = best_row(history)
    reason = f"all {settings.epochs} epochs are done"
    if len(history) < settings.epochs:
        reason = f"no improvement for {settings.patience} epochs (--patience)"
    return Trained(
        history=tuple(history),
        best_epoch=0 if best is None else best.epoch,
        reason=reason,
        resumed_from=done,
        is_main=world.is_main,
    )


@contextmanager
def _same_random_numbers_after(world: World) -> Iterator[None]:
    """Let the caller draw the random numbers that would have come without us."""
    devices = range(torch.cuda.device_count()) if world.accelerator == "gpu" else ()
    with torch.random.fork_rng(devices):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Lightning says to its developers from the user."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
