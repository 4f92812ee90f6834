"""How far one output of two models lies apart, summed up batch by batch."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.results import OutputDifference

Array = NDArray[Any]

_ROUNDING: Final = 1e-12


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
        rows = rows_of(first, samples)
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


def rows_of(output: Array, samples: int) -> int:
    """Return how many rows an output has, one for each sample; 1 where it mixes them."""
    return samples if output.ndim and len(output) == samples else 1
