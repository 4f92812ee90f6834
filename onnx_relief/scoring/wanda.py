"""The criterion `wanda`: weights times the norm of their input (Sun et al., arXiv 2306.11695)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def wanda_scores(
    weights: NDArray[np.float64], mean_square: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (w_ij ||x_i||)**2, the energy that a connection brings by itself.

    Squares keep the paper's order, and add up over the weights of a block.

    Args:
        weights: (units, inputs, taps).
        mean_square: Mean x**2 of what every weight of a group reads, (groups, inputs, taps); unit j
            belongs to group j // (units / groups).
    """
    per_unit = np.repeat(mean_square, len(weights) // len(mean_square), axis=0)
    return np.asarray(weights**2 * per_unit)
