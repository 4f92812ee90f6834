"""How far a model's outputs are from the dense model's, on a few samples and without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.data import Batch, Dataset
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.measuring.measure import full_batches
from onnx_relief.runtime import Session, open_session
from onnx_relief.tensors import is_float

Array = NDArray[Any]
FEW = 32
"""Samples on which every part of a model is tried alone, to compare it with the others."""
TRIED_AT = 0.03
"""About the loss at which a part is tried: larger than rounding, small enough to add up."""
_SILENT = 0.999
_RATES = (1e-9, 1e9)


def exchange_rate(distance: float, lost: float) -> float:
    """Return what the loss of a part is worth to the model: its outputs' distance, over that loss.

    It is a finite number whatever the outputs do: there is something to lose everywhere, and where
    outputs are no longer numbers it is a lot.

    Args:
        distance: That of the outputs of a model that has lost a part.
        lost: How much the part has lost, positive.
    """
    return float(np.clip(distance / lost, *_RATES))


class Divergence:
    """The dense model's answers on some samples, and the distance of other models' answers to them.

    The distance is the mean square difference of an output, relative to its variance over the
    samples, averaged over the outputs that hold floats: 0 for the same answers, about 1 for an
    output that has become constant. The answers are held in memory, so the samples should be few.
    """

    def __init__(
        self, dense: Document, data: Dataset, *, batch_size: int, provider: str = "auto"
    ) -> None:
        """Run the dense model.

        Raises:
            ModelError, DataError: It cannot be run on the data.
            UnsupportedError: It has no output that holds floats.
        """
        self._provider = provider
        self._batches: Sequence[Batch] = list(full_batches(data, batch_size))
        session = open_session(dense, provider=provider)
        self._answers = [_floats(session.run(batch.feed)) for batch in self._batches]
        if not any(self._answers):
            raise UnsupportedError(f"{dense.name} has no output that holds floats to compare")
        self._spread = {name: self._variance(name) for name in self._answers[0]}

    def of(self, model: Document) -> float:
        """Return the distance of a model with the same inputs and outputs.

        Raises:
            ModelError: It cannot be run.
        """
        session = open_session(model, provider=self._provider)
        return self.of_session(session)

    def of_session(self, session: Session) -> float:
        """Return the distance of an opened model, as `of`."""
        errors = dict.fromkeys(self._spread, 0.0)
        sizes = dict.fromkeys(self._spread, 0)
        for batch, expected in zip(self._batches, self._answers, strict=True):
            found = _floats(session.run(batch.feed))
            for name, answer in expected.items():
                got = found.get(name)
                if got is None or got.shape != answer.shape:
                    return float("inf")
                finite = np.isfinite(answer)
                errors[name] += float(((got[finite] - answer[finite]) ** 2).sum())
                sizes[name] += int(finite.sum())
        shares = [errors[name] / max(sizes[name], 1) / self._spread[name] for name in errors]
        distance = float(np.mean(shares))
        return distance if np.isfinite(distance) else float("inf")

    def _variance(self, name: str) -> float:
        """Return the variance of an output's elements over samples, or its mean square."""
        answers = [found[name] for found in self._answers if name in found]
        values = [answer[np.isfinite(answer)] for answer in answers]
        flat = np.concatenate([value.reshape(-1) for value in values])
        same = {answer.shape[1:] for answer in answers}
        if len(same) == 1 and sum(map(len, answers)) > 1:
            spread = _variance_of_rows(np.concatenate(answers))
        else:
            spread = float(flat.var()) if flat.size else 0.0
        square = float((flat**2).mean()) if flat.size else 0.0
        return spread if spread > 1e-12 * max(square, 1e-300) and spread > 0 else max(square, 1e-30)


def noise_to_signal(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return losses, as shares of a signal, relative to what is left of it.

    A layer cannot lose more than all it says, so that of shares alone one layer that falls silent
    would cost little more than one that is half there. What is left counts: the sum over layers of
    noise to signal has no such bargain.
    """
    some = np.clip(losses, 0.0, _SILENT)
    return some / (1 - some)


def open_probe(
    dense: Document, data: Dataset, *, batch_size: int, provider: str = "auto"
) -> Divergence | None:
    """Return what tells models from `dense`, or None where it has no floats to compare.

    Raises:
        ModelError, DataError: It cannot be run on the data.
    """
    try:
        return Divergence(dense, data, batch_size=batch_size, provider=provider)
    except UnsupportedError:
        return None


def _variance_of_rows(rows: NDArray[np.float64]) -> float:
    """Return the variance over samples of numbers that are finite, averaged over all of these."""
    finite = np.isfinite(rows)
    means = np.where(finite, rows, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    apart = np.where(finite, rows - means, 0.0)
    return float(np.square(apart).sum() / max(int(finite.sum()), 1))


def _floats(results: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Return the outputs that hold floats."""
    found = {}
    for name, array in results.items():
        if isinstance(array, np.ndarray) and is_float(array.dtype) and array.size:
            rows = array if array.ndim else array.reshape(1)
            found[name] = rows.astype(np.float64)
    return found
