"""The learning rate as a pure function of the step: nothing to store, nothing to restore."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

from onnx_relief.training import TrainSettings


def factor(step: int, steps: int, settings: TrainSettings) -> float:
    """Return what the learning rate is multiplied by at one step.

    During warm-up it rises linearly and reaches 1 with the last step of it. The cosine goes from 1
    there to 0 behind the last step (Loshchilov and Hutter, arXiv 1608.03983, without restarts).

    Args:
        step: From 0.
        steps: Steps of all epochs.
        settings: The choices.
    """
    warmup = round(settings.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    return _AFTER_WARMUP[settings.schedule](step, steps, warmup, settings)


def _constant(_step: int, _steps: int, _warmup: int, _settings: TrainSettings) -> float:
    return 1.0


def _multistep(step: int, steps: int, _warmup: int, settings: TrainSettings) -> float:
    passed = bisect_right([round(share * steps) for share in settings.milestones], step)
    return float(settings.gamma**passed)


def _cosine(step: int, steps: int, warmup: int, _settings: TrainSettings) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


_AFTER_WARMUP: dict[str, Callable[[int, int, int, TrainSettings], float]] = {
    "constant": _constant,
    "multistep": _multistep,
    "cosine": _cosine,
}
