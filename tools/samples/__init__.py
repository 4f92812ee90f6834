"""Sample data for the models of the corpus: rendered, synthesised or found, always with a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnx_relief.data import Preprocess

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Runs one model on one feed and returns its outputs by name."""


AS_IT_IS = Preprocess()


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many samples to make: cheap ones (bytes, digits) and dear ones (large pictures)."""

    calibration: int
    test: int
    dear_calibration: int
    dear_test: int


FULL = Sizes(calibration=64, test=300, dear_calibration=8, dear_test=16)
QUICK = Sizes(calibration=8, test=16, dear_calibration=2, dear_test=4)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """What one model is calibrated and judged with.

    Attributes:
        calibration: Data of any form that `onnx_relief.prune` takes.
        test: The same, other samples.
        data: What the data is, in words.
        preprocess: How samples become what the model takes.
        batch_size: Samples in one run.
        metric: How pruned and dense outputs are compared; the usual way by default.
        output: The output that is compared.
        judge: For a task that labels alone do not describe: the score of the second model in
            percent; the first is the dense one.
        against_dense: Whether the judge compares with what the dense model finds.
        score: What the score (`judge`, accuracy on labels or agreement) means, in words.
    """

    calibration: object
    test: object
    data: str
    preprocess: Preprocess = AS_IT_IS
    batch_size: int = 16
    metric: str | None = None
    output: str | None = None
    judge: Callable[[Run, Run], float] | None = None
    against_dense: bool = False
    score: str = "accuracy"


def overlap(dense: Array, pruned: Array, threshold: float) -> float:
    """Return in percent the intersection over union of what exceeds `threshold` in two outputs."""
    first, second = dense > threshold, pruned > threshold
    union = int((first | second).sum())
    return 100.0 * int((first & second).sum()) / union if union else 100.0
