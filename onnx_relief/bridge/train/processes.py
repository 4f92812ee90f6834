"""Where training runs: on which device, in how many processes, and which of them this is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from onnx_relief.errors import ReliefError, SettingsError
from onnx_relief.training import TrainSettings

_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")


@dataclass(frozen=True, kw_only=True)
class World:
    """All processes of a training.

    Attributes:
        size: How many there are.
        local_size: How many of them are on this machine.
        is_main: Whether this process is the one that reports and writes.
        accelerator: `cpu` or `gpu`, as Lightning has it.
        environment: Who started the processes.
    """

    size: int
    local_size: int
    is_main: bool
    accelerator: str
    environment: ClusterEnvironment


def find_world(settings: TrainSettings) -> World:
    """Return where training runs: as torchrun has it, or as the user wants it.

    Raises:
        SettingsError: There is no such device, or batches cannot be shared equally.
    """
    accelerator = _accelerator(settings)
    environment: ClusterEnvironment = LightningEnvironment()
    if TorchElasticEnvironment.detect():
        environment = TorchElasticEnvironment()
        size, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        main = os.environ["RANK"] == "0"
        if settings.devices not in (1, size):
            raise SettingsError(
                f"torchrun started {size} processes, and --devices says {settings.devices}; leave "
                "--devices out"
            )
    else:
        size = local = settings.devices
        # Lightning starts the other processes with this variable.
        main = os.environ.get("LOCAL_RANK", "0") == "0"
    if settings.batch_size % size:
        raise SettingsError(
            f"--batch-size {settings.batch_size} cannot be shared equally by {size} processes; "
            f"give a multiple of {size}"
        )
    if accelerator == "gpu" and local > torch.cuda.device_count():
        raise SettingsError(
            f"{local} processes need as many GPUs, and there are {torch.cuda.device_count()}; give "
            "fewer with --devices, or --device cpu"
        )
    return World(
        size=size,
        local_size=local,
        is_main=main,
        accelerator=accelerator,
        environment=environment,
    )


@contextmanager
def together(world: World) -> Iterator[None]:
    """Say in a sentence that another process has gone.

    Raises:
        ReliefError: It has.
    """
    try:
        yield
    except RuntimeError as error:
        lost = world.size > 1 and any(word in str(error) for word in _LOST)
        if not lost:
            raise
        raise ReliefError(
            "another of the processes that train together has ended, so this one cannot go on; "
            "start them again, and they go on from the last checkpoint"
        ) from error


def _accelerator(settings: TrainSettings) -> str:
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise SettingsError(
            "--device cuda: PyTorch finds no GPU here (missing driver, or a PyTorch built for the "
            "CPU); leave it out to train on the CPU"
        )
    chosen = "gpu" if available and settings.device != "cpu" else "cpu"
    if settings.precision == "16" and chosen == "cpu":
        raise SettingsError(
            "--precision 16 needs a GPU; use --precision bf16 or 32 on the CPU, or --device cuda"
        )
    return chosen
