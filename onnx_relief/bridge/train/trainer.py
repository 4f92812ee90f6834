"""Lightning, as quiet and quick as it can be."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.strategies import DDPStrategy

from onnx_relief.bridge.train.course import Course
from onnx_relief.bridge.train.processes import World
from onnx_relief.bridge.train.task import Task


def make_trainer(
    task: Task, course: Course, epochs: int, *, judge_start: bool
) -> lightning.Trainer:
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
        num_sanity_val_steps=-1 if judge_start else 0,
        use_distributed_sampler=False,
        inference_mode=False,
    )


@contextmanager
def same_random_numbers_after(world: World) -> Iterator[None]:
    """Let the caller draw the random numbers that would have come without us."""
    devices = range(torch.cuda.device_count()) if world.accelerator == "gpu" else ()
    with torch.random.fork_rng(devices):
        yield


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take numbers too small for full precision as zero, on processors that can.

    Weights that decay towards zero pass through them, and arithmetic with them is far slower.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def quiet() -> Iterator[None]:
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
