"""A mean that can be started, fed in parts, merged and finished: the one statistic of this package.

Everything that the method measures is a mean over samples of something non-negative, so that the
state is a sum and a count, both independent of how the samples were grouped into batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mean:
    """Running mean of arrays of one shape, accumulated in float64; `add` and `merge` return anew.

    Attributes:
        total: Sum over the samples so far; the empty mean has the scalar 0.
        count: Number of samples so far.

    >>> Mean().add(np.array([1.0, 2.0]), 1).add(np.array([3.0, 4.0]), 1).finish()
    array([2., 3.])
    """

    total: FloatArray
    count: float

    def __init__(self, total: FloatArray | float = 0.0, count: float = 0) -> None:
        object.__setattr__(self, "total", np.asarray(total, dtype=np.float64))
        object.__setattr__(self, "count", count)

    def add(self, batch_sum: FloatArray, count: float) -> Mean:
        """Return this mean with `count` more samples whose sum is `batch_sum`."""
        return Mean(self.total + batch_sum, self.count + count)

    def merge(self, other: Mean) -> Mean:
        """Return the mean over the samples of both."""
        return self.add(other.total, other.count)

    def finish(self) -> FloatArray:
        """Return the mean; zeros if there were no samples (no signal was ever seen)."""
        return self.total / self.count if self.count else np.zeros_like(self.total)
