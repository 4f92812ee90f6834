"""Whether a repair did any good, on samples that it has not seen; if it did harm, it is undone.

What is judged is what comes out of the model in the end: the mean square of the difference from the
dense model's outputs, relative to the mean square of these.

`onnx_relief.divergence` measures the same distance for another purpose, and so keeps the dense
answers: it sees a model for every layer, on few samples. Here two models are seen, on more samples
than answers may fit in memory, so the dense model runs again beside each of them. And only there an
output counts against its own variance, because losses of different outputs have to add up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.data import Dataset
from onnx_relief.graph.document import Document
from onnx_relief.measuring.measure import full_batches
from onnx_relief.runtime import Session, open_session

_TINY = 1e-30


class Guard:
    """Tells how far a model's outputs are from the dense model's on held-out samples."""

    def __init__(self, dense: Document, data: Dataset, *, batch_size: int, provider: str) -> None:
        self._data, self._batch_size, self._provider = data, batch_size, provider
        self._dense = open_session(dense, provider=provider)

    def error(self, document: Document) -> float | None:
        """Return the relative mean square error, averaged over outputs.

        Infinite where an output is NaN or infinite and the dense model's is not. None where there
        is no output to compare: one of real numbers, that keeps its shape.

        Raises:
            ModelError, DataError: A model cannot be run on the data.
        """
        session = open_session(document, provider=self._provider)
        wrong: dict[str, float] = {}
        total: dict[str, float] = {}
        for batch in full_batches(self._data, self._batch_size):
            for name, (dense, other) in _outputs(self._dense, session, batch.feed).items():
                fine = np.isfinite(dense)
                apart = np.where(fine, other - np.where(fine, dense, 0), 0)
                wrong[name] = wrong.get(name, 0.0) + _square(apart)
                total[name] = total.get(name, 0.0) + _square(dense[fine])
        if not wrong:
            return None
        errors = [wrong[name] / max(total[name], _TINY) for name in wrong]
        return float(np.mean([error if np.isfinite(error) else np.inf for error in errors]))


def _outputs(
    dense: Session, other: Session, feed: dict[str, NDArray[Any]]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the outputs of both models that can be compared."""
    ours, theirs = dense.run(feed), other.run(feed)
    return {
        name: (np.asarray(array, np.float64), np.asarray(theirs[name], np.float64))
        for name, array in ours.items()
        if _is_real(array) and _is_real(theirs.get(name)) and array.shape == theirs[name].shape
    }


def _is_real(value: object) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    return bool(value.dtype.kind == "f" or value.dtype.name == "bfloat16")


def _square(array: NDArray[np.float64]) -> float:
    with np.errstate(over="ignore"):
        return float(np.square(array).sum())
