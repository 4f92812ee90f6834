"""How good an output is: arrays and labels in, numbers out. A new metric is one table row.

Rows are samples. What an output decides for every sample (`decisions`) is compared with the labels
or with what the dense model decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import DataError, SettingsError
from onnx_relief.results import OutputDifference

Array = NDArray[Any]
Hits = NDArray[np.bool_]

_FEWEST_OF_A_DIRECTION: Final = 16
_ROUNDING: Final = 1e-12
_LENGTH_TOLERANCE: Final = 1e-3
"""Numbers of 16 bits are as near to length 1 as this."""


@dataclass(frozen=True)
class Metric:
    """How two models are judged.

    Attributes:
        meaning: What the number says, for the help.
        hits: (output, labels) -> one bool per sample; None where labels play no part.
        unit: ``%`` or nothing.
    """

    meaning: str
    hits: Callable[[Array, NDArray[np.int64]], Hits] | None = None
    unit: str = "%"


def top1_hits(output: Array, labels: NDArray[np.int64]) -> Hits:
    """Return for which samples the output's first choice is the label, (samples,)."""
    _check_labels(output, labels)
    return np.asarray(choices(output) == labels)


def top5_hits(output: Array, labels: NDArray[np.int64]) -> Hits:
    """Return for which samples the label is among the five highest scores; ties by class number.

    Scores with NaN have no highest.
    """
    scores = _flat_tail(output)
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind in "biu":
        raise ValueError("top5 needs scores of shape (samples, classes)")
    _check_labels(output, labels)
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :5]
    return np.asarray((best == labels[:, None]).any(axis=1) & ~_with_nan(scores))


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "accuracy": Metric("share of samples whose first choice is the label", top1_hits),
        "top5": Metric("share of samples whose label is among the five best", top5_hits),
        "agreement": Metric("share of decisions that are those of the dense model"),
        "cosine": Metric("mean cosine to the dense model's output", unit=""),
        "error": Metric("difference over what the dense output varies by (1: a constant)", unit=""),
    }
)


def metric_named(name: str) -> Metric:
    """Return a metric of the table.

    Raises:
        SettingsError: There is none of that name.
    """
    metric = METRICS.get(name)
    if metric is None:
        raise SettingsError(f"--metric {name!r} does not exist; choose one of {', '.join(METRICS)}")
    return metric


def choices(output: Array) -> Array:
    """Return the class that an output chooses for each sample, (samples,).

    One number for each sample is taken for the share of class 1; whether it is one shows in the
    dense model's outputs (`is_share`), and a pruned one that leaves [0, 1] is on its side of 0.5.
    Where there is NaN no class is chosen, which is -1.

    Raises:
        ValueError: The output does not choose a class; the text says why.

    >>> choices(np.array([[0.1, 0.9], [0.7, 0.3]])).tolist()
    [1, 0]
    """
    values = _flat_tail(output)
    if values.dtype.kind in "biu" and values.size == len(values):
        return values.reshape(-1)
    if values.ndim == 2 and values.shape[1] >= 2 and values.dtype.kind not in "biu":
        return np.where(_with_nan(values), -1, values.argmax(axis=1))
    if values.ndim in (1, 2) and values.size == len(values):
        shares = values.reshape(-1, 1)
        return np.where(_with_nan(shares), -1, shares[:, 0] > 0.5)
    raise ValueError("it is neither (samples,) nor (samples, classes)")


def is_share(output: Array) -> bool:
    """Return whether an output chooses a class other than by one number that is no share."""
    values = _flat_tail(output)
    single = values.ndim in (1, 2) and values.size == len(values)
    return not single or values.dtype.kind in "biu" or _are_shares(values)


def classes_told(output: Array) -> int:
    """Return how many classes an output tells apart; 0 where only the classes stand in it.

    >>> [classes_told(np.ones(shape)) for shape in ((5, 3), (5, 3, 1, 1), (5, 1), (5,))]
    [3, 3, 2, 2]
    """
    values = _flat_tail(output)
    if values.dtype.kind in "biuOUS":
        return 0
    return max(2, values.shape[1]) if values.ndim == 2 else 2


def decisions(
    output: Array, *, steps: bool = False, each: bool = False, shares: bool = False
) -> Array | None:
    """Return what an output decides, of any shape, or None if it decides nothing.

    Integers and text are decisions; of scores (samples, classes) the highest is; of values in
    [0, 1] the side of 0.5 is. Of three axes the highest number of the last one is a decision where
    that is known to hold classes, or where the numbers are shares that add up to 1. Where there is
    NaN the highest is -1.

    Args:
        output: What a model gives.
        steps: Whether the last axis of (samples, steps, classes) is known to hold classes.
        each: Whether every number is a share for itself, as sigmoids are: then no number is to be
            the highest.
        shares: Whether the numbers are known to be shares, of which some may have left [0, 1].
    """
    if is_text(output):
        return output
    several = output.ndim == 3 and not each and not _add_up_to_one(_flat_tail(output))
    # A number for each step, (samples, steps, 1), is no class of the steps.
    values = output if several else _flat_tail(output)
    if values.dtype.kind in "biu":
        return values
    chooses = values.ndim == 2 or (values.ndim == 3 and (steps or not several))
    if chooses and values.shape[-1] >= 2 and not each:
        return np.where(_with_nan(values), -1, values.argmax(axis=-1))
    return np.asarray(values > 0.5) if shares or _are_shares(values) else None


def is_text(value: object) -> bool:
    """Return whether an output is an array of text: names of classes."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "OUS"


def are_directions(output: Array) -> bool:
    """Return whether rows of at least 16 numbers of both signs all have length 1: embeddings.

    Their largest number decides nothing; what counts is the angle between two of them.
    """
    if output.ndim < 2 or output.dtype.kind != "f" or output.shape[-1] < _FEWEST_OF_A_DIRECTION:
        return False
    rows = output.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=-1)
    return bool(rows.size and rows.min() < 0 and np.abs(lengths - 1).max() < _LENGTH_TOLERANCE)


def is_number(output: Array, samples: int) -> bool:
    """Return whether an output is one number for each row, or one for all of them.

    The angle between two of them is a sign, whatever the numbers are; their difference counts.

    >>> [is_number(np.ones(shape), 3) for shape in ((3, 1), (3,), (), (1, 3))]
    [True, True, True, False]
    """
    if output.ndim > 1 and output.size == len(output):
        return True  # rows are samples, even of a feed that counts as one
    return output.size == _rows(output, samples)


def beside_dense(output: Array, samples: int) -> str:
    """Return the metric that compares outputs that decide nothing: an angle needs two numbers."""
    return "error" if is_number(output, samples) else "cosine"


class Gap:
    """Sums over samples from which the difference of one output of two models follows."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._largest = self._squares = self._dense_squares = self._cosines = 0.0
        self._mean = Means()
        self._lengths = set[int]()
        self._rows = self._broken = 0
        self._nan = [0, 0]
        self._are_labels = False

    def add(self, dense: Array, pruned: Array, samples: int) -> None:
        """Take in what both models give for some samples, arrays of the same shape."""
        self._are_labels = dense.dtype.kind in "bi"
        wide = [np.asarray(part, dtype=np.float64) for part in (dense, pruned)]
        for index, part in enumerate(wide):
            self._nan[index] += int(np.count_nonzero(np.isnan(part)))
        known = np.isfinite(wide[0])
        broken = known & ~np.isfinite(wide[1])
        self._broken += int(np.count_nonzero(broken))
        first, second = (np.where(known & ~broken, part, 0.0) for part in wide)
        gap = second - first
        self._largest = max(self._largest, float(np.abs(gap).max(initial=0.0)))
        self._squares += float(np.vdot(gap, gap))
        self._dense_squares += float(np.vdot(first, first))
        self._mean.add(first, known & ~broken)
        rows = _rows(first, samples)
        self._lengths.add(first.size // max(rows, 1))
        cosines = _cosines(first.reshape(rows, -1), second.reshape(rows, -1))
        whole = ~broken.reshape(rows, -1).any(axis=1)  # else there is no angle
        self._cosines += float(cosines[whole].sum())
        self._rows += rows

    def is_constant(self) -> bool:
        """Whether the dense output is the same for all of several rows, but for rounding.

        Where the pruned model's is no number, the dense one was not looked at either.
        """
        whole = self._rows > 1 and not self._broken
        return whole and self._spread() <= _ROUNDING * self._dense_squares

    def _spread(self) -> float:
        """Return the sum of squares of the dense output's distance from its mean over samples."""
        return self._dense_squares - self._mean.squares()

    def finish(self) -> OutputDifference:
        """Return the difference over all samples; class numbers have no norm and no angle."""
        if self._are_labels:
            return OutputDifference(
                output=self._output, largest=self._largest, relative_error=None, cosine=None
            )
        # Of a constant, its size has to do.
        spread = self._dense_squares if self.is_constant() else self._spread()
        single = self._lengths <= {1}
        return OutputDifference(
            output=self._output,
            largest=np.inf if self._broken else self._largest,
            relative_error=self._over(self._dense_squares),
            unexplained=self._over(spread),
            cosine=self._cosines / self._rows if self._rows and not single else None,
            nan_dense=self._nan[0],
            nan_pruned=self._nan[1],
            broken=self._broken,
        )

    def _over(self, squares: float) -> float | None:
        """Return the norm of the difference over another one; None over nothing."""
        if self._broken:
            return np.inf
        if squares > 0:
            return float(np.sqrt(self._squares / squares))
        return None if self._squares else 0.0


class Means:
    """The mean of every number of an output over samples; of all of them where shapes change."""

    def __init__(self) -> None:
        self._sums: Array | None = None
        self._counts: Array | None = None

    def add(self, values: Array, known: NDArray[np.bool_]) -> None:
        """Take in some rows, zeros where they are not known."""
        sums = np.asarray(values.sum(axis=0) if values.ndim else values)
        counts = np.asarray(known.sum(axis=0) if known.ndim else known, dtype=np.int64)
        if self._sums is None or self._counts is None:
            self._sums, self._counts = sums, counts
            return
        if self._sums.shape != sums.shape:
            self._sums, self._counts = self._sums.sum(), self._counts.sum()
            sums, counts = sums.sum(), counts.sum()
        self._sums, self._counts = self._sums + sums, self._counts + counts

    def squares(self) -> float:
        """Return the sum of squares of an output that is its mean everywhere."""
        if self._sums is None or self._counts is None:
            return 0.0
        return float((self._sums**2 / np.maximum(self._counts, 1)).sum())


def _cosines(first: Array, second: Array) -> Array:
    """Return the cosine of each pair of rows; 1 where both are zero, 0 where one is."""
    lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    product = lengths[0] * lengths[1]
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    dots = np.einsum("rc,rc->r", first, second)
    cosines = np.divide(dots, product, out=np.zeros_like(dots), where=product > 0)
    return np.where(both_zero, 1.0, np.clip(cosines, -1.0, 1.0))


def _rows(output: Array, samples: int) -> int:
    """Return how many rows an output has, one for each sample; 1 where it mixes them."""
    return samples if output.ndim and len(output) == samples else 1


def _flat_tail(output: Array) -> Array:
    """Drop axes of length 1 at the end: classifiers may give (samples, classes, 1, 1)."""
    while output.ndim > 2 and output.shape[-1] == 1:
        output = output[..., 0]
    return output


def _add_up_to_one(values: Array) -> bool:
    """Return whether the numbers of the last axis are shares of a whole."""
    if values.dtype.kind in "biu" or not _are_shares(values):
        return False
    sums = values.astype(np.float64).sum(axis=-1)
    return bool(np.abs(sums - 1).max(initial=0) < _LENGTH_TOLERANCE)


def _with_nan(values: Array) -> Hits:
    """Return which rows along the last axis hold NaN, which argmax takes for the largest."""
    known = values if values.dtype.kind == "f" else values.astype(np.float32)  # bfloat16
    return np.asarray(np.isnan(known).any(axis=-1))


def _are_shares(values: Array) -> bool:
    return bool(values.size) and bool(values.min() >= 0) and bool(values.max() <= 1)


def _check_labels(output: Array, labels: NDArray[np.int64]) -> None:
    """Refuse labels that the output has no class for, or not one for each row.

    Raises:
        DataError: Naming the label.
    """
    if output.ndim == 0 or len(output) != len(labels):
        raise DataError(
            f"there are {len(labels)} labels for an output of shape {output.shape}, which has not "
            "as many rows; correct 'labels', or use --metric agreement"
        )
    classes = classes_told(output)
    if not classes or not len(labels):
        return
    if labels.max() >= classes:
        raise DataError(
            f"the data has label {labels.max()}, but the output has {classes} classes "
            f"(0 to {classes - 1}); correct the labels, or use --metric agreement"
        )
