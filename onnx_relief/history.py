"""What iterations came to, and when to stop: values that know neither models nor files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_relief.errors import SettingsError
from onnx_relief.settings import Settings
from onnx_relief.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class IterationRow:
    """One line of the history, as the authors print it.

    Attributes:
        iteration: Its number; 0 is the dense model.
        alpha: Share of the signal that was kept, of convolutions and of everything else.
        metric_pruned: Score right after pruning, before rewinding and retraining.
        metric_retrained: Score after retraining.
        remaining: Weights that are left, in percent of the layers' weights.
        nonzero: Parameters of the whole model that are not zero.
        architecture: Units alive in each layer.
        flops: Twice the multiply-accumulates per sample that are left, or None.
        epochs: Epochs of training in this iteration.
        seconds: How long it took.
    """

    iteration: int
    alpha: tuple[float, float]
    metric_pruned: float
    metric_retrained: float
    remaining: float
    nonzero: int
    architecture: tuple[int, ...]
    flops: float | None
    epochs: int
    seconds: float

    @property
    def compression(self) -> float:
        """How many times as many weights there were."""
        return 100 / self.remaining if self.remaining else float("inf")


@dataclass(frozen=True, kw_only=True)
class IterateSettings:
    """The choices of `iterate`.

    Attributes:
        prune: How to prune; the alphas below go before its own.
        train: How to train in each iteration.
        iterations: At most so many.
        alphas: Alpha of the first, second ... iteration; the last one repeats.
        alphas_conv: The same for convolutions; empty for `alphas`.
        alphas_fc: The same for everything else; empty for `alphas`.
        until_sparsity: Stop once so many percent of the layers' weights are zero.
        until_params: Stop once so few parameters are not zero.
        max_drop: Stop once the metric is so many points worse than the dense model's; of a cosine
            or an error, hundredths.
    """

    prune: Settings
    train: TrainSettings
    iterations: int = 10
    alphas: tuple[float, ...] = ()
    alphas_conv: tuple[float, ...] = ()
    alphas_fc: tuple[float, ...] = ()
    until_sparsity: float | None = None
    until_params: int | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise SettingsError(f"--iterations must be at least 1, got {self.iterations}")
        if self.until_sparsity is not None and not 0 < self.until_sparsity < 100:
            raise SettingsError(
                f"--until-sparsity must lie between 0 and 100 percent, got {self.until_sparsity}"
            )
        if self.until_params is not None and self.until_params < 1:
            raise SettingsError(f"--until-params must be at least 1, got {self.until_params}")
        if self.max_drop is not None and not 0 <= self.max_drop < math.inf:
            raise SettingsError(f"--max-drop must be 0 or more points, got {self.max_drop}")
        for number in range(1, max(map(len, (self.alphas, self.alphas_conv, self.alphas_fc))) + 1):
            self.pruning(number)  # refuses alphas that make no sense

    def pruning(self, iteration: int) -> Settings:
        """Return how to prune in an iteration, counted from 1."""
        alpha = _at(self.alphas, iteration, None)
        return replace(
            self.prune,
            alpha=self.prune.alpha if alpha is None else alpha,
            alpha_conv=_at(self.alphas_conv, iteration, self.prune.alpha_conv),
            alpha_fc=_at(self.alphas_fc, iteration, self.prune.alpha_fc),
        )

    def sparing(self, layers: Sequence[str]) -> IterateSettings:
        """Return the same, with these layers left alone, too."""
        return replace(self, prune=replace(self.prune, skip=(*self.prune.skip, *layers)))

    def changes_after(self, iteration: int) -> bool:
        """Return whether a later iteration has another alpha."""
        later = range(iteration + 1, self.iterations + 1)
        return any(self.pruning(number) != self.pruning(iteration) for number in later)

    @property
    def has_target(self) -> bool:
        """Whether there is anything to reach."""
        return self.until_sparsity is not None or self.until_params is not None

    def reached(self, row: IterationRow) -> bool:
        """Whether a model is as small as it was asked to be."""
        small = self.until_sparsity is None or 100 - row.remaining >= self.until_sparsity
        few = self.until_params is None or row.nonzero <= self.until_params
        return small and few

    def good_enough(self, lost: float) -> bool:
        """Whether a model that lost so much of the metric may be kept."""
        return self.max_drop is None or lost <= self.max_drop


def choose_best(
    rows: Sequence[IterationRow], lost: Sequence[float], settings: IterateSettings
) -> tuple[IterationRow, bool]:
    """Return the model to keep, and whether it meets every target.

    Of the models that are small and good enough: the best one where a size was asked for, else the
    smallest. Where there is none: the smallest that is good enough, else the one that lost least.

    Args:
        rows: All iterations, the dense model left out; at least one.
        lost: What each lost of the dense model's score.
        settings: The targets.
    """
    pairs = list(zip(rows, lost, strict=True))
    good = [pair for pair in pairs if settings.good_enough(pair[1])]
    met = [pair for pair in good if settings.reached(pair[0])]
    if met and settings.has_target:
        return min(met, key=lambda pair: (pair[1], pair[0].remaining))[0], True
    if met or good:
        return min(met or good, key=lambda pair: pair[0].remaining)[0], bool(met)
    return min(pairs, key=lambda pair: pair[1])[0], False


def _at(schedule: tuple[float, ...], iteration: int, otherwise: float | None) -> float | None:
    if not schedule:
        return otherwise
    return schedule[min(iteration, len(schedule)) - 1]
