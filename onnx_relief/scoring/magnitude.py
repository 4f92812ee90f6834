"""The criterion `magnitude`: small weights go (Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def magnitude_scores(weights: NDArray[np.float64], *, power: int = 2) -> NDArray[np.float64]:
    """Return |w|**power of every weight: the l1 or l2 norm of a block is a sum of these.

    >>> magnitude_scores(np.array([-2.0, 1.0]))
    array([4., 1.])
    """
    return np.asarray(np.abs(weights) ** power)
