"""The course of a training, epoch by epoch: progress, history, checkpoints, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor, distributed

from onnx_relief.bridge.train.checkpoints import Checkpoints
from onnx_relief.bridge.train.trainee import Trainee
from onnx_relief.data.shuffle import StepPlan
from onnx_relief.errors import SettingsError
from onnx_relief.training import EpochRow, OnEpoch, TrainSettings, best_row

_LOOK_AT = 20
"""Steps between looks at the loss where looking costs: on a GPU, or over processes."""


class Course(lightning.Callback):
    """What happens around the steps.

    Attributes:
        start: What the weights that training begins with are worth, once they are judged.
        history: One row for each epoch.
    """

    def __init__(
        self,
        start: EpochRow | None,
        history: list[EpochRow],
        checkpoints: Checkpoints,
        settings: TrainSettings,
        plan: StepPlan,
        tick: Callable[[int], None],
        on_epoch: OnEpoch | None,
    ) -> None:
        self.start = start
        self.history = history
        self._checkpoints = checkpoints
        self._settings = settings
        self._accumulate = plan.accumulate
        self._tick = tick
        self._on_epoch = on_epoch
        self._began = monotonic()
        self._checked = 0
        self._stepped = 0

    def on_sanity_check_end(self, trainer: lightning.Trainer, trainee: Any) -> None:  # noqa: ANN401
        """Keep the weights that training begins with: no epoch may turn out better."""
        row = self._row(trainer, trainee, epoch=0, train_loss=None)
        if row.validation_loss is None or not math.isfinite(row.validation_loss):
            return  # anything is better
        self.start = row
        if trainer.is_global_zero:
            self._checkpoints.save_best(trainee.module)

    def on_train_epoch_start(self, _trainer: lightning.Trainer, trainee: Any) -> None:  # noqa: ANN401
        """Begin to count."""
        self._began, self._checked, self._stepped = monotonic(), 0, trainee.step

    def on_train_batch_end(self, trainer: lightning.Trainer, trainee: Any, *_: Any) -> None:  # noqa: ANN401
        """Look at the loss, and say how far the work has come."""
        cheap = trainer.world_size == 1 and trainee.device.type == "cpu"
        if cheap or len(trainee.losses) - self._checked >= _LOOK_AT:
            self._look(trainer, trainee)
        if trainee.step > self._stepped:
            self._tick(trainee.step - self._stepped)
            self._stepped = trainee.step

    def on_validation_start(self, trainer: lightning.Trainer, trainee: Any) -> None:  # noqa: ANN401
        """Judge the same model in every process."""
        _share_buffers(trainer, trainee)

    def on_train_epoch_end(self, trainer: lightning.Trainer, trainee: Any) -> None:  # noqa: ANN401
        """Write down what came of the epoch."""
        self._look(trainer, trainee)
        self._check_weights(trainee)
        _share_buffers(trainer, trainee)
        train = _reduced(trainer, torch.stack(trainee.losses).double().mean()) / trainer.world_size
        row = self._row(trainer, trainee, epoch=trainee.epoch + 1, train_loss=float(train))
        if row.validation_loss is not None and not math.isfinite(row.validation_loss):
            raise self._diverged(trainee.epoch, None)
        self.history.append(row)
        if trainer.is_global_zero:
            if best_row(self.start, self.history) is row:
                self._checkpoints.save_best(trainee.module)
            self._checkpoints.save(_state(trainer, trainee), self.start, self.history)
        trainer.strategy.barrier()
        if trainer.is_global_zero and self._on_epoch is not None:
            self._on_epoch(row)
        trainer.should_stop = impatient(self.start, self.history, self._settings)

    def _look(self, trainer: lightning.Trainer, trainee: Trainee) -> None:
        """Stop if a loss is no number.

        Raises:
            SettingsError: Naming epoch and step.
        """
        new = trainee.losses[self._checked :]
        if not new:
            return
        bad = ~torch.stack(new).isfinite()
        if trainer.world_size > 1:
            bad = _reduced(trainer, bad.to(torch.float32)) > 0
        if bool(bad.any()):
            place = self._checked + int(bad.nonzero()[0, 0])
            raise self._diverged(trainee.epoch, place // self._accumulate + 1)
        self._checked += len(new)

    def _check_weights(self, trainee: Trainee) -> None:
        finite = [weight.detach().isfinite().all() for weight in trainee.module.parameters()]
        if not bool(torch.stack(finite).all()):
            raise self._diverged(trainee.epoch, None)

    def _diverged(self, epoch: int, step: int | None) -> SettingsError:
        what = "a weight" if step is None else "the loss"
        place = "at the end of" if step is None else f"at step {step} of"
        kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "nothing was written"
        return SettingsError(
            f"{what} is no longer a finite number {place} epoch {epoch + 1}; {kept}; train with a "
            f"lower --lr than {self._settings.lr:g} (for example {self._settings.lr / 10:g})"
            f"{'' if self._settings.clip else ', or with --clip 1'}"
        )

    def _row(
        self,
        trainer: lightning.Trainer,
        trainee: Trainee,
        *,
        epoch: int,
        train_loss: float | None,
    ) -> EpochRow:
        loss = accuracy = None
        if trainer.val_dataloaders is not None:
            total, hits, samples, judged = _reduced(trainer, trainee.judged).tolist()
            loss = total / samples
            accuracy = 100 * hits / samples if judged else None
        return EpochRow(
            epoch=epoch,
            train_loss=train_loss,
            validation_loss=loss,
            validation_accuracy=accuracy,
            lr=trainee.rate(max(0, trainee.step - 1)),
            seconds=monotonic() - self._began,
        )


def impatient(start: EpochRow | None, history: list[EpochRow], settings: TrainSettings) -> bool:
    """Return whether the best epoch lies so far back that training stops."""
    best = best_row(start, history)
    if settings.patience is None or best is None:
        return False
    return history[-1].epoch - best.epoch >= settings.patience


def _state(trainer: lightning.Trainer, trainee: Trainee) -> dict[str, Any]:
    """Return what is needed to go on."""
    return {
        "module": trainee.module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "precision": trainer.precision_plugin.state_dict(),
    }


def _reduced(trainer: lightning.Trainer, value: Tensor) -> Tensor:
    """Return the sum over all processes."""
    if trainer.world_size == 1:
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value


def _share_buffers(trainer: lightning.Trainer, trainee: Trainee) -> None:
    """Give every process the running statistics of the first."""
    if trainer.world_size > 1:
        for buffer in trainee.module.buffers():
            if buffer.is_floating_point():
                distributed.broadcast(buffer, 0)
