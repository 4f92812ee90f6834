"""What the user can decide about training, checked when it is said, and what came of it.

No torch here: settings can be made, stored and compared where PyTorch is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from onnx_relief.errors import SettingsError

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "multistep", "cosine"]
Precision = Literal["32", "bf16", "16"]
Device = Literal["auto", "cpu", "cuda"]
TeacherRuntime = Literal["onnxruntime", "torch"]

LOSSES = ("auto", "cross-entropy", "mse", "bce")
MOST_EPOCHS = 1_000_000
"""More is a typing mistake, and no checkpoint could count them."""
SMALL_BATCH = 16
"""Below so many samples per step batch statistics are too noisy to normalise by."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The choices of `retrain`.

    Attributes:
        epochs: Walks through the training data.
        batch_size: Samples per optimizer step, over all processes.
        optimizer: Adam, AdamW (decay apart from the gradient) or SGD.
        lr: Learning rate, the highest of the schedule.
        momentum: Of SGD.
        weight_decay: Pull of every weight towards zero; masked weights are zero already.
        schedule: How the rate changes: not at all, by `gamma` at `milestones`, or along a cosine.
        milestones: Shares of all epochs, in (0, 1), at which `multistep` lowers the rate.
        gamma: Factor by which it does.
        warmup: Linear rise of the rate at the start: a share of all epochs below 1, else epochs.
        clip: Largest norm of the gradient, or None.
        precision: Width in which is computed; weights are always kept in full.
        seed: Decides the order of samples, the validation part, augmentation and dropout.
        validation: Share of the training data that is split off to choose the best epoch.
        patience: Epochs without improvement after which training stops, or None.
        loss: One of `LOSSES`, or ``module:function`` of (outputs by name, labels).
        label_output: Output that the labels belong to; None finds it.
        distill: Share of the teacher in the loss where there are labels as well.
        temperature: Softens class-like outputs of teacher and student.
        teacher_runtime: What runs the teacher: ONNX Runtime, which can run anything, or PyTorch on
            the device that trains.
        distill_outputs: Outputs that follow the teacher; empty for all that can.
        freeze_bn: Whether BatchNormalization keeps its statistics; None decides by `SMALL_BATCH`.
        flip: Whether pictures are mirrored left to right at random.
        crop_padding: Pixels of zeros around pictures before a random crop to their size.
        crop_scale: Least share of the area that the model sees, a random part of which is enlarged
            to the whole; 1 for none.
        device: Where to train.
        devices: Number of processes, one for each device.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = (0.5,)
    gamma: float = 0.1
    warmup: float = 0.0
    clip: float | None = None
    precision: Precision = "32"
    seed: int = 0
    validation: float = 0.1
    patience: int | None = None
    loss: str = "auto"
    label_output: str | None = None
    distill: float = 0.5
    temperature: float = 4.0
    teacher_runtime: TeacherRuntime = "onnxruntime"
    distill_outputs: tuple[str, ...] = ()
    freeze_bn: bool | None = None
    flip: bool = False
    crop_padding: int = 0
    crop_scale: float = 1.0
    device: Device = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        _check_choices(self)
        for flag, count, least in (
            ("--epochs", self.epochs, 1),
            ("--batch-size", self.batch_size, 1),
            ("--devices", self.devices, 1),
            ("--patience", self.patience, 1),
            ("--seed", self.seed, 0),
            ("--crop-padding", self.crop_padding, 0),
        ):
            if count is not None and (isinstance(count, bool) or count != int(count)):
                raise SettingsError(f"{flag} must be a whole number, got {count!r}")
            if count is not None and count < least:
                raise SettingsError(f"{flag} must be at least {least}, got {count}")
        if self.epochs > MOST_EPOCHS:
            raise SettingsError(f"--epochs must be at most {MOST_EPOCHS}, got {self.epochs}")
        for flag, number, holds, range_text in _ranges(self):
            if not (math.isfinite(number) and holds):
                raise SettingsError(f"{flag} must {range_text}, got {number}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise SettingsError(f"--milestones must rise, got {_listed(self.milestones)}")
        if self.batch_size % self.devices:
            raise SettingsError(
                f"--batch-size {self.batch_size} cannot be shared equally by --devices "
                f"{self.devices}; give a multiple of {self.devices}"
            )
        if self.patience is not None and self.validation == 0:
            raise SettingsError(
                "--patience needs a validation part to judge epochs by; leave --validation 0 out"
            )

    @property
    def warmup_share(self) -> float:
        """The share of all steps in which the rate rises."""
        return self.warmup if self.warmup < 1 else self.warmup / self.epochs

    def freezes_bn(self, samples: int) -> bool:
        """Return whether BatchNormalization keeps its statistics.

        Args:
            samples: Samples that all processes together pass through the model at once.
        """
        return samples < SMALL_BATCH if self.freeze_bn is None else self.freeze_bn


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """What one epoch came to.

    Attributes:
        epoch: Its number, from 1; 0 for the weights that training began with.
        train_loss: Mean over its steps; None for epoch 0.
        validation_loss: Mean over the validation samples, or None without them.
        validation_accuracy: Share of them that are classified rightly in percent, or None.
        lr: Learning rate of its last step.
        seconds: How long it took, validation included.
    """

    epoch: int
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    lr: float
    seconds: float

    def better_than(self, other: EpochRow) -> bool:
        """Return whether this epoch's validation beat another's: accuracy first, then the loss."""
        if self.validation_accuracy is not None and other.validation_accuracy is not None:
            mine, theirs = self.validation_accuracy, other.validation_accuracy
            if mine != theirs:
                return mine > theirs
        if self.validation_loss is None or other.validation_loss is None:
            return True  # without validation the last epoch counts
        return self.validation_loss < other.validation_loss


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How training ended; the module holds the weights of the best epoch.

    Attributes:
        start: What the weights that training began with were worth, or None without validation.
        history: One row for each epoch.
        best_epoch: Number of the epoch whose weights were kept; 0 if none was better than `start`.
        reason: Why it stopped, in words.
        resumed_from: Epochs that an earlier run had done already.
        is_main: Whether this process is the one that reports and writes.
    """

    start: EpochRow | None
    history: tuple[EpochRow, ...]
    best_epoch: int
    reason: str
    resumed_from: int
    is_main: bool


OnEpoch = Callable[[EpochRow], None]


def best_row(start: EpochRow | None, history: Iterable[EpochRow]) -> EpochRow | None:
    """Return the row of the best epoch, the start among them, the earlier one of equals."""
    best = start
    for row in history:
        if best is None or row.better_than(best):
            best = row
    return best


def train_settings(
    chosen: Mapping[str, Any], *, output: str | None, distill: float | None
) -> TrainSettings:
    """Return settings from fields by name, as a caller from Python gives them.

    Raises:
        SettingsError: There is no such field, or a value makes no sense.
    """
    fields_given = {**chosen, "label_output": output}
    if distill is not None:
        fields_given["distill"] = distill
    unknown = sorted(fields_given.keys() - TrainSettings.__dataclass_fields__.keys())
    if unknown:
        names = ", ".join(TrainSettings.__dataclass_fields__)
        raise SettingsError(f"training has no setting {unknown[0]!r}; it takes {names}")
    return TrainSettings(**fields_given)


def plain_train_settings(settings: TrainSettings) -> dict[str, Any]:
    """Return what the user chose as plain data."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _check_choices(settings: TrainSettings) -> None:
    for flag, value, choices in (
        ("--optimizer", settings.optimizer, get_args(Optimizer)),
        ("--schedule", settings.schedule, get_args(Schedule)),
        ("--precision", settings.precision, get_args(Precision)),
        ("--device", settings.device, get_args(Device)),
        ("--teacher-runtime", settings.teacher_runtime, get_args(TeacherRuntime)),
    ):
        if value not in choices:
            raise SettingsError(
                f"{flag} {value!r} does not exist; choose one of {', '.join(choices)}"
            )
    module, colon, function = settings.loss.rpartition(":")
    if settings.loss not in LOSSES and not (module and colon and function):
        raise SettingsError(
            f"--loss {settings.loss!r} does not exist; choose one of {', '.join(LOSSES)}, or name "
            "a function of yours as module:function"
        )


def _ranges(settings: TrainSettings) -> Iterable[tuple[str, float, bool, str]]:
    """Yield flag, value, whether it is good, and what it must be."""
    s = settings
    yield "--lr", s.lr, s.lr > 0, "be positive"
    yield "--momentum", s.momentum, 0 <= s.momentum < 1, "lie in [0, 1)"
    yield "--weight-decay", s.weight_decay, s.weight_decay >= 0, "not be negative"
    yield "--gamma", s.gamma, 0 < s.gamma <= 1, "lie in (0, 1]"
    warmup = s.warmup >= 0 and s.warmup_share < 1
    yield "--warmup", s.warmup, warmup, "be a share below 1 or fewer epochs than --epochs"
    yield "--validation", s.validation, 0 <= s.validation < 1, "lie in [0, 1)"
    yield "--distill", s.distill, 0 <= s.distill <= 1, "lie in [0, 1]"
    yield "--crop-scale", s.crop_scale, 0 < s.crop_scale <= 1, "lie in (0, 1]"
    yield "--temperature", s.temperature, s.temperature > 0, "be positive"
    if s.clip is not None:
        yield "--clip", s.clip, s.clip > 0, "be positive"
    for share in s.milestones:
        yield "--milestones", share, 0 < share < 1, "be shares of the epochs in (0, 1)"


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
