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
from onnx_relief.data.shuffle import StepPlan
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
        step: Number of the optimizer step, from 0, over all runs.
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
        plan: StepPlan,
        first_epoch: int,
        state: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.automatic_optimization = False  # Lightning's own takes half a millisecond per step
        self.first_epoch = first_epoch
        self.step = first_epoch * plan.steps
        self.losses: list[Tensor] = []
        self.judged = torch.zeros(4, dtype=torch.float64)
        self._hold = hold
        self._objective = objective
        self._settings = settings
        self._steps = plan.steps * settings.epochs
        self._accumulate = plan.accumulate
        self._state = state

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0, over all runs."""
        return self.first_epoch + self.current_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self._settings.lr * factor(step, self._steps, self._settings)

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

    def training_step(self, batch: Step, index: int) -> None:
        """Do one pass, and the optimizer's step where enough of them make one."""
        outputs = batch.real(self.module(batch.feed))
        loss = self._objective.loss(outputs, batch.labels, batch.targets)
        self.losses.append(loss.detach())
        self.manual_backward(loss if self._accumulate == 1 else loss / self._accumulate)
        if (index + 1) % self._accumulate == 0:
            self._update(self.trainer.optimizers[0])

    def _update(self, optimizer: torch.optim.Optimizer) -> None:
        """Do one step at its learning rate, and hold the masks."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            scaler.unscale_(optimizer)
        if self._settings.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self._settings.clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)  # passed over where 16 bits were not enough
            scaler.update()
        optimizer.zero_grad(set_to_none=True)
        self._hold()
        self.step += 1

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
    # One kernel for all weights makes the steps of small models shorter; where gradients were
    # scaled for 16 bits, it wants to unscale them itself, after they should have been clipped.
    fused = settings.precision != "16"
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            weights, lr=settings.lr, momentum=settings.momentum, weight_decay=decay, fused=fused
        )
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(weights, lr=settings.lr, weight_decay=decay, fused=fused)


def _mixed_seed(seed: int, epoch: int, rank: int) -> int:
    sequence = np.random.SeedSequence([seed, _DRAWS, epoch, rank])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
