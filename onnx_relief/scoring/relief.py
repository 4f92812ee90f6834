"""The criterion `relief` of "Neural network relief" (arXiv 2109.10795, equations 1 to 4).

A unit j sums the signals of its connections and its bias. What one of them contributes, measured
on real data, divided by what all of them contribute together, is its score:

    s_ij = signal_ij / S_j,    S_j = sum_i signal_ij + |b_j| gain,

with signal_ij = |w_ij| mean|x_i| for a fully connected layer, the mean norm of the map
|K_ij| * |x_i| for a convolution, and gain = 1 or sqrt(height * width) of the output map.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def relief_scores(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each entry's share of its row, same shape (units, entries).

    Args:
        signals: Signal of every connection and bias of each unit, non-negative.

    A row without any signal has scores of zero: it carries nothing, so nothing of it is needed.

    >>> relief_scores(np.array([[3.0, 1.0], [0.0, 0.0]]))
    array([[0.75, 0.25],
           [0.  , 0.  ]])
    """
    totals = signals.sum(axis=-1, keepdims=True)
    shares: NDArray[np.float64] = np.zeros_like(signals)
    np.divide(signals, totals, out=shares, where=totals > 0)
    return shares
