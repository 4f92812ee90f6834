"""How `retrain` and `iterate` train, as flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from onnx_relief.errors import SettingsError
from onnx_relief.training import (
    LOSSES,
    Device,
    Optimizer,
    Precision,
    Schedule,
    TrainSettings,
)

_LEARNING = "What the model learns from"
_TRAINING = "How it is trained"
_PICTURES = "How pictures are varied"
_MACHINE = "Where it runs"
_DEFAULT = TrainSettings()


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train."""

    teacher: Annotated[
        Path | None,
        typer.Option(
            help="A model whose outputs to follow; by default the dense model that `prune` noted, "
            "where there are no labels.",
            rich_help_panel=_LEARNING,
        ),
    ] = None
    distill: Annotated[
        float | None,
        typer.Option(
            help="Share of the teacher in the loss beside labels, 0 to 1; 0.5 where --teacher is "
            "given.",
            rich_help_panel=_LEARNING,
        ),
    ] = None
    temperature: Annotated[
        float,
        typer.Option(
            help="Softens what teacher and model say of classes.", rich_help_panel=_LEARNING
        ),
    ] = _DEFAULT.temperature
    teacher_runtime: Annotated[
        str,
        typer.Option(
            help="What runs the teacher: onnxruntime, which runs anything, or torch, on the device "
            "that trains.",
            rich_help_panel=_LEARNING,
        ),
    ] = _DEFAULT.teacher_runtime
    distill_output: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Follow the teacher in this output only; repeatable.",
            rich_help_panel=_LEARNING,
        ),
    ] = None
    loss: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(LOSSES)}, or module:function of (outputs by name, labels).",
            rich_help_panel=_LEARNING,
        ),
    ] = _DEFAULT.loss
    validation: Annotated[
        float,
        typer.Option(
            help="Share of --data that is split off to choose the best epoch by.",
            rich_help_panel=_LEARNING,
        ),
    ] = _DEFAULT.validation
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave weights of such names as they are; repeatable.",
            rich_help_panel=_LEARNING,
        ),
    ] = None
    epochs: Annotated[
        int, typer.Option(help="Walks through the training data.", rich_help_panel=_TRAINING)
    ] = _DEFAULT.epochs
    batch_size: Annotated[
        int,
        typer.Option(help="Samples per step, over all processes.", rich_help_panel=_TRAINING),
    ] = _DEFAULT.batch_size
    optimizer: Annotated[
        str, typer.Option(help=", ".join(get_args(Optimizer)), rich_help_panel=_TRAINING)
    ] = _DEFAULT.optimizer
    lr: Annotated[float, typer.Option(help="Highest learning rate.", rich_help_panel=_TRAINING)] = (
        _DEFAULT.lr
    )
    momentum: Annotated[float, typer.Option(help="Of sgd.", rich_help_panel=_TRAINING)] = (
        _DEFAULT.momentum
    )
    weight_decay: Annotated[
        float,
        typer.Option(
            help="Pull of weights towards zero; never moves masked ones.", rich_help_panel=_TRAINING
        ),
    ] = _DEFAULT.weight_decay
    schedule: Annotated[
        str,
        typer.Option(
            help=f"How the rate changes: {', '.join(get_args(Schedule))}.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULT.schedule
    milestones: Annotated[
        str,
        typer.Option(
            help="Shares of the epochs at which multistep lowers the rate, like .5,.75.",
            rich_help_panel=_TRAINING,
        ),
    ] = ",".join(map(str, _DEFAULT.milestones))
    gamma: Annotated[
        float, typer.Option(help="Factor by which it does.", rich_help_panel=_TRAINING)
    ] = _DEFAULT.gamma
    warmup: Annotated[
        float,
        typer.Option(
            help="Rise of the rate at the start: a share of all epochs below 1, else epochs.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULT.warmup
    clip: Annotated[
        float | None,
        typer.Option(help="Largest norm of the gradient.", rich_help_panel=_TRAINING),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without improvement.", rich_help_panel=_TRAINING
        ),
    ] = None
    freeze_bn: Annotated[
        bool | None,
        typer.Option(
            "--freeze-bn/--train-bn",
            help="Whether BatchNormalization keeps its statistics; by default below 16 samples "
            "per step.",
            rich_help_panel=_TRAINING,
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(help="Decides everything that is random.", rich_help_panel=_TRAINING),
    ] = _DEFAULT.seed
    flip: Annotated[
        bool,
        typer.Option("--flip", help="Mirror left to right at random.", rich_help_panel=_PICTURES),
    ] = False
    crop_padding: Annotated[
        int,
        typer.Option(
            help="Shift at random by up to so many pixels (padded crop).",
            rich_help_panel=_PICTURES,
        ),
    ] = 0
    crop_scale: Annotated[
        float,
        typer.Option(
            help="Enlarge a random part of every picture, of at least this share of the area that "
            "the model sees; what --crop leaves out takes part.",
            rich_help_panel=_PICTURES,
        ),
    ] = 1.0
    device: Annotated[
        str, typer.Option(help=", ".join(get_args(Device)), rich_help_panel=_MACHINE)
    ] = _DEFAULT.device
    devices: Annotated[
        int,
        typer.Option(help="Processes, one for each device.", rich_help_panel=_MACHINE),
    ] = _DEFAULT.devices
    precision: Annotated[
        str,
        typer.Option(
            help=f"Width to compute in: {', '.join(get_args(Precision))}; weights stay in 32.",
            rich_help_panel=_MACHINE,
        ),
    ] = _DEFAULT.precision

    def train_settings(self, *, output: str | None) -> TrainSettings:
        """Return the choices as training knows them.

        Raises:
            SettingsError: One of them makes no sense.
        """
        same = (
            *("epochs", "batch_size", "lr", "momentum", "weight_decay", "gamma", "warmup", "clip"),
            *("patience", "freeze_bn", "seed", "flip", "crop_padding", "crop_scale"),
            *("devices", "validation"),
            *("temperature", "loss", "optimizer", "schedule", "device", "precision"),
            "teacher_runtime",
        )
        chosen: dict[str, Any] = {name: getattr(self, name) for name in same}
        return TrainSettings(
            **chosen,
            milestones=parse_shares(self.milestones, "--milestones"),
            distill=_DEFAULT.distill if self.distill is None else self.distill,
            distill_outputs=tuple(self.distill_output or ()),
            label_output=output,
        )


def parse_shares(text: str, flag: str) -> tuple[float, ...]:
    """Return the numbers of ``.5,.75``.

    Raises:
        SettingsError: One of them is no number.

    >>> parse_shares(".5, .75", "--milestones")
    (0.5, 0.75)
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingsError(
            f"{flag} {text!r} is no list of numbers; give for example .5,.75"
        ) from None
