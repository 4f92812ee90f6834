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

from onnx_relief.comparing.gap import rows_of
from onnx_relief.errors import DataError, SettingsError

Array = NDArray[Any]
Hits = NDArray[np.bool_]

_FEWEST_OF_A_DIRECTION: Final = 16
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
    flat = _flat_tail(output)
    several = 3 in (output.ndim, flat.ndim) and not each and not _add_up_to_one(flat)
    # A number for each step, (samples, steps, 1), is no class of the steps.
    values = output if several and output.ndim == 3 else flat
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
    return output.size == rows_of(output, samples)


def beside_dense(output: Array, samples: int) -> str:
    """Return the metric that compares outputs that decide nothing: an angle needs two numbers."""
    return "error" if is_number(output, samples) else "cosine"


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
