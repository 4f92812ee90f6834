"""How far a model's outputs are from the dense model's, on a few samples and without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.comparing.comparable import comparable_outputs, like, real_outputs, taken_apart
from onnx_relief.data import Batch, Dataset
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.graph.endings import joined_parts, scores_behind
from onnx_relief.measuring.measure import full_batches
from onnx_relief.runtime import Session, open_session
from onnx_relief.settings import DEFAULT_MEMORY

Array = NDArray[Any]
FEW = 32
"""Samples on which every part of a model is tried alone, to compare it with the others."""
TRIED_AT = 0.03
"""About the loss at which a part is tried: larger than rounding, small enough to add up."""
_SILENT = 0.999
_RATES = (1e-9, 1e9)
_PIECE = 1 << 20  # elements


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
    samples, averaged over the outputs that can be compared: 0 for the same answers, about 1 for an
    output that has become constant. Answers are held in memory, so there are only as many samples
    as fit.
    """

    def __init__(
        self,
        dense: Document,
        data: Dataset,
        *,
        batch_size: int,
        output: str | None = None,
        memory: int = DEFAULT_MEMORY,
        provider: str = "auto",
    ) -> None:
        """Run the dense model.

        Raises:
            ModelError, DataError: It cannot be run on the data.
            UnsupportedError: It has no output, or not this one, that can be compared.
        """
        self._provider = provider
        session = open_session(taken_apart(dense), provider=provider)
        some = _as_many_as_fit(session, data, batch_size, memory // 4)
        self._batches: Sequence[Batch] = list(full_batches(some, batch_size))
        names = comparable_outputs(session, self._batches)
        if output is not None:
            parts = joined_parts(dense.proto).get(output, (output,))
            asked = {*parts, *scores_behind(dense.proto)}
            names = tuple(name for name in names if name in asked)
        if not names:
            what = "no output" if output is None else f"no output {output!r}"
            raise UnsupportedError(
                f"{dense.name} has {what} of real numbers that can be compared one by one"
            )
        session = session.anew()
        results = [real_outputs(session.run(batch.feed)) for batch in self._batches]
        self._answers = [{name: _rows(r[name]) for name in names if name in r} for r in results]
        self._spread = {name: self._variance(name) for name in names}

    def of(self, model: Document) -> float:
        """Return the distance of a model with the same inputs and outputs.

        Raises:
            ModelError: It cannot be run.
        """
        session = open_session(taken_apart(model), provider=self._provider)
        return self.of_session(session)

    def of_session(self, session: Session) -> float:
        """Return the distance of an opened model, as `of`."""
        errors = dict.fromkeys(self._spread, 0.0)
        sizes = dict.fromkeys(self._spread, 0)
        for batch, expected in zip(self._batches, self._answers, strict=True):
            found = real_outputs(session.run(batch.feed))
            for name, answer in expected.items():
                given = found.get(name)
                got = like(answer, None if given is None else _rows(given))
                for one, other in _pieces(answer, got):
                    finite = np.isfinite(one)
                    errors[name] += float(((other[finite] - one[finite]) ** 2).sum())
                    sizes[name] += int(finite.sum())
        shares = [errors[name] / max(sizes[name], 1) / self._spread[name] for name in errors]
        distance = float(np.mean(shares))
        return distance if np.isfinite(distance) else float("inf")

    def _variance(self, name: str) -> float:
        """Return the variance of an output's elements over samples, or its mean square."""
        answers = [found[name] for found in self._answers if name in found]
        total, square, count = 0.0, 0.0, 0
        for (values,) in (piece for answer in answers for piece in _pieces(answer)):
            finite = values[np.isfinite(values)]
            total, square = total + float(finite.sum()), square + float((finite**2).sum())
            count += finite.size
        mean, square = total / max(count, 1), square / max(count, 1)
        same = {answer.shape[1:] for answer in answers}
        if len(same) == 1 and sum(map(len, answers)) > 1:
            spread = _variance_of_rows(answers)
        else:
            spread = max(square - mean**2, 0.0)
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
    dense: Document,
    data: Dataset,
    *,
    batch_size: int,
    output: str | None = None,
    memory: int = DEFAULT_MEMORY,
    provider: str = "auto",
) -> Divergence | None:
    """Return what tells models from `dense`, or None where it has nothing to compare.

    Raises:
        ModelError, DataError: It cannot be run on the data.
    """
    try:
        return Divergence(
            dense, data, batch_size=batch_size, output=output, memory=memory, provider=provider
        )
    except UnsupportedError:
        return None


def _as_many_as_fit(session: Session, data: Dataset, batch_size: int, memory: int) -> Dataset:
    """Return the samples whose feeds and answers fit, of one batch at least."""
    batch = next(full_batches(data, batch_size))
    arrays = (*batch.feed.values(), *real_outputs(session.run(batch.feed)).values())
    each = sum(np.asarray(array).nbytes for array in arrays) / batch.count
    return data.take(max(batch.count, int(memory / max(each, 1.0))))


def _variance_of_rows(answers: Sequence[Array]) -> float:
    """Return the variance over samples of numbers that are finite, averaged over all of these."""
    shape = answers[0].shape[1:]
    total, count, square = np.zeros(shape), np.zeros(shape, np.int64), 0.0
    for (values,) in (piece for answer in answers for piece in _pieces(answer)):
        finite = np.isfinite(values)
        total += np.where(finite, values, 0.0).sum(axis=0)
        count += finite.sum(axis=0)
    means = total / np.maximum(count, 1)
    for (values,) in (piece for answer in answers for piece in _pieces(answer)):
        square += float(np.square(np.where(np.isfinite(values), values - means, 0.0)).sum())
    return square / max(int(count.sum()), 1)


def _pieces(*arrays: Array) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """Yield some rows of arrays after the other, in float64, so that no copy is large."""
    rows = max(1, _PIECE // max(1, int(np.prod(arrays[0].shape[1:]))))
    for start in range(0, len(arrays[0]), rows):
        yield tuple(array[start : start + rows].astype(np.float64) for array in arrays)


def _rows(array: Any) -> Array:  # noqa: ANN401 - whatever an output holds
    return np.atleast_1d(array)
