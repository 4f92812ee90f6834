"""Whether a repair did any good, on samples that it has not seen; if it did harm, it is undone.

What is judged is what comes out of the model in the end: the mean square of the difference from the
dense model's outputs, relative to the mean square of these.

`comparing.divergence` measures the same distance for another purpose, and so keeps the dense
answers: it sees a model for every layer, on few samples. Here two models are seen, on more samples
than answers may fit in memory, so the dense model runs again beside each of them. And only there an
output counts against its own variance, because losses of different outputs have to add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from onnx_relief.comparing.comparable import comparable_outputs, like, taken_apart
from onnx_relief.data import Dataset
from onnx_relief.graph.document import Document
from onnx_relief.measuring.measure import full_batches
from onnx_relief.runtime import open_session

_TINY = 1e-30
_LOOKED_AT = 8
"""Batches by which is found out which outputs can be compared."""


Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far two models are from the dense one.

    Attributes:
        before: Relative mean square error of the first; None where no output can be compared.
        after: The same of the second.
        broken: Where each of them gives NaN or infinity and the dense model a number, counted; None
            where all of that was compared.
    """

    before: float | None
    after: float | None
    broken: tuple[int, int] | None = None


class Guard:
    """Tells how far a model's outputs are from the dense model's on held-out samples."""

    def __init__(self, dense: Document, data: Dataset, *, batch_size: int, provider: str) -> None:
        self._data, self._batch_size, self._provider = data, batch_size, provider
        self._dense = open_session(taken_apart(dense), provider=provider)
        self._names = comparable_outputs(
            self._dense, islice(full_batches(data, batch_size), _LOOKED_AT)
        )

    def error(self, document: Document) -> float | None:
        """Return the relative mean square error, averaged over outputs that can be compared.

        Infinite where an output is NaN or infinite and the dense model's is not. None where there
        is none to compare.

        Raises:
            ModelError, DataError: A model cannot be run on the data.
        """
        sums = _Sums()
        for outputs in self._outputs(document):
            for name, (dense, other) in outputs.items():
                sums.add(name, dense, other, np.isfinite(dense))
        return sums.error()

    def verdict(self, before: Document, after: Document) -> Verdict:
        """Return how far two models are from the dense one.

        Where both give NaN or infinity and the dense model does not, neither error is a number:
        then they are compared where all three models give numbers, and the second one's error
        stays infinite if it gives fewer of them.

        Raises:
            ModelError, DataError: A model cannot be run on the data.
        """
        errors = self.error(before), self.error(after)
        if errors != (np.inf, np.inf):
            return Verdict(before=errors[0], after=errors[1])
        both, broken = (_Sums(), _Sums()), [0, 0]
        for outputs in self._outputs(before, after):
            for name, (dense, *others) in outputs.items():
                known = np.isfinite(dense)
                fine = known & np.isfinite(others).all(axis=0)
                for place, other in enumerate(others):
                    both[place].add(name, dense, other, fine)
                    broken[place] += int(np.count_nonzero(known & ~np.isfinite(other)))
        found = [sums.error() for sums in both]
        if found[1] is not None and broken[1] > broken[0]:
            found[1] = np.inf
        return Verdict(before=found[0], after=found[1], broken=(broken[0], broken[1]))

    def _outputs(self, *documents: Document) -> Iterator[dict[str, tuple[Array, ...]]]:
        """Yield the outputs that can be compared, the dense model's first, batch by batch."""
        opened = [open_session(taken_apart(one), provider=self._provider) for one in documents]
        self._dense = self._dense.anew()
        for batch in full_batches(self._data, self._batch_size):
            dense = self._dense.run(batch.feed)
            others = [session.run(batch.feed) for session in opened]
            yield {
                name: tuple(
                    np.asarray(array, np.float64)
                    for array in (dense[name], *(like(dense[name], o.get(name)) for o in others))
                )
                for name in self._names
            }


@dataclass(frozen=True, eq=False)
class _Sums:
    """Squares of what is wrong and of what is right, by output."""

    wrong: dict[str, float] = field(default_factory=dict)
    right: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, dense: Array, other: Array, where: NDArray[np.bool_]) -> None:
        """Take in an output where it counts."""
        if where.any():
            apart = np.where(where, other - np.where(where, dense, 0), 0)
            self.wrong[name] = self.wrong.get(name, 0.0) + _square(apart)
            self.right[name] = self.right.get(name, 0.0) + _square(dense[where])

    def error(self) -> float | None:
        """Return the relative mean square error, averaged over outputs; None of nothing."""
        if not self.wrong:
            return None
        errors = [self.wrong[name] / max(self.right[name], _TINY) for name in self.wrong]
        return float(np.mean([error if np.isfinite(error) else np.inf for error in errors]))


def _square(array: NDArray[np.float64]) -> float:
    with np.errstate(over="ignore"):
        return float(np.square(array).sum())
