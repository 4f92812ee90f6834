"""How much a model's classes would surprise the dense model: Kullback-Leibler, without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.data import Batch, Dataset
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document
from onnx_relief.measuring.measure import full_batches
from onnx_relief.runtime import open_session

Floats = NDArray[np.float64]
_SURE = 1e-3
"""How far the shares of all classes may be from 1 together."""


class Surprise:
    """The dense model's classes for some samples, and what other models' classes lack of them.

    KL(dense || other) in nats, averaged over the samples (and steps) of an output that gives
    scores of classes along its last axis, or along its second where there are more than three.
    Outputs that are no shares are taken through a softmax.
    """

    def __init__(
        self,
        dense: Document,
        data: Dataset,
        *,
        batch_size: int,
        provider: str = "auto",
        output: str | None = None,
    ) -> None:
        """Run the dense model.

        Raises:
            SettingsError: No output, or not the one that is asked for, gives scores of classes.
            ModelError, DataError: It cannot be run on the data.
        """
        self._provider = provider
        self._batches: Sequence[Batch] = list(full_batches(data, batch_size))
        session = open_session(dense, provider=provider)
        answers = [session.run(batch.feed) for batch in self._batches]
        self.output = _classes_of(answers[0], output)
        self._answers = [_logs(answer[self.output]) for answer in answers]

    def of(self, model: Document) -> float:
        """Return the divergence of a model with the same inputs and outputs.

        Raises:
            ModelError: It cannot be run.
        """
        session = open_session(model, provider=self._provider)
        total, rows = 0.0, 0
        for batch, expected in zip(self._batches, self._answers, strict=True):
            found = _logs(session.run(batch.feed, [self.output])[self.output])
            if found.shape != expected.shape:
                return float("inf")
            total += float((np.exp(expected) * (expected - found)).sum())
            rows += len(expected)
        return max(total / rows, 0.0) if np.isfinite(total) else float("inf")


def _classes_of(answer: Mapping[str, Any], wanted: str | None) -> str:
    names = list(answer) if wanted is None else [wanted]
    for name in names:
        if _has_classes(answer.get(name)):
            return name
    listed = ", ".join(map(repr, names))
    raise SettingsError(
        f"--metric kl needs an output that gives scores of classes, and {listed} gives none; use "
        "--metric divergence"
    )


def _has_classes(array: object) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim < 2:
        return False
    flat = _flat(array)
    return bool(flat.shape[1 if flat.ndim > 3 else -1] >= 2)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _logs(array: NDArray[Any]) -> Floats:
    """Return the logarithms of the shares of classes, (samples and steps, classes)."""
    flat = _flat(array).astype(np.float64)
    if flat.ndim > 3:
        flat = np.moveaxis(flat, 1, -1)
    rows = flat.reshape(-1, flat.shape[-1])
    if rows.min(initial=0.0) >= 0 and np.abs(rows.sum(axis=1) - 1).max(initial=0.0) < _SURE:
        return np.log(np.maximum(rows, 1e-12))
    rows = rows - rows.max(axis=1, keepdims=True)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return np.asarray(np.maximum(logs, np.log(1e-12)))
