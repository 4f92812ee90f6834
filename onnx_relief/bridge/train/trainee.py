"""The model in training, as Lightning wants it: one step, one optimizer, one look at validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor, nn

from onnx_relief.bridge.train.batches import Step
from onnx_relief.bridge.train.objective import Objective
from onnx_relief.bridge.train.schedule import factor
from onnx_relief.training import TrainSettings

_DRAWS = 3  # what these random numbers are for; the order of samples has others


class Trainable(Protocol):
    """What the engine knows of an `OnnxModule` besides that it is an `nn.Module`."""

    masks: Mapping[str, Tensor]

    def hold_masks(self) -> None:
        """Write the zeros again."""


class Trainee(lightning.LightningModule):
    """A module, what it shall minimise, and how.

    Attributes:
        module: What is trained.
        first_epoch: Epochs that were done before.
        losses: Loss of every pass of this epoch so far.
        judged: Sums over the validation samples: loss, hits, samples, samples with hits.
    """

    def __init__(
        self,
        module: nn.Module,
        hold: Callable[[], None],
        objective: Objective,
        settings: TrainSettings,
        *,
        steps: int,
        first_epoch: int,
        state: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.first_epoch = first_epoch
        self.losses: list[Tensor] = []
        self.judged = torch.zeros(4, dtype=torch.float64)
        self._hold = hold
        self._objective = objective
        self._settings = settings
        self._steps = steps
        self._state = state

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0, over all runs."""
        return self.first_epoch + self.current_epoch

    @property
    def step(self) -> int:
        """Number of the optimizer step, from 0, over all runs."""
        return self.first_epoch * self._steps + self.global_step

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        steps = self._steps * self._settings.epochs
        return self._settings.lr * factor(step, steps, self._settings)

    def on_train_start(self) -> None:
        """Go on with the moments that the optimizer had."""
        if self._state is not None:
            self.trainer.optimizers[0].load_state_dict(self._state["optimizer"])
            self.trainer.precision_plugin.load_state_dict(self._state["precision"])
            self._state = None

    def on_train_epoch_start(self) -> None:
        """Begin anew: what dropout draws follows from the epoch, not from what was before."""
        self.losses = []
        torch.manual_seed(_mixed_seed(self._settings.seed, self.epoch, self.global_rank))

    def transfer_batch_to_device(self, batch: Step, device: torch.device, _index: int) -> Step:
        """Return the batch on the device."""
        return batch.to(device)

    def training_step(self, batch: Step, _index: int) -> Tensor:
        """Return the loss of one pass."""
        outputs = batch.real(self.module(batch.feed))
        loss = self._objective.loss(outputs, batch.labels, batch.targets)
        self.losses.append(loss.detach())
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,  # noqa: ANN401 - Lightning wraps it
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Do one step at its learning rate, and hold the masks."""
        rate = self.rate(self.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self._hold()

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self.judged = torch.zeros(4, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Step, _index: int) -> None:
        """Count one batch."""
        outputs = batch.real(self.module(batch.feed))
        loss = self._objective.loss(outputs, batch.labels, batch.targets)
        hits = self._objective.hits(outputs, batch.labels)
        sums = (float(loss) * batch.count, hits or 0, batch.count, 0 if hits is None else 1)
        self.judged += torch.tensor(sums, dtype=torch.float64, device=self.device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return make_optimizer(list(self.module.parameters()), self._settings)


def make_optimizer(weights: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimizer that the user wants."""
    decay = settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            weights, lr=settings.lr, momentum=settings.momentum, weight_decay=decay
        )
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(weights, lr=settings.lr, weight_decay=decay)


def _mixed_seed(seed: int, epoch: int, rank: int) -> int:
    sequence = np.random.SeedSequence([seed, _DRAWS, epoch, rank])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
