"""The criterion `obs`: what a layer's output loses without a weight that the others make up for.

"Optimal Brain Surgeon" (Hassibi and Stork 1993): with H = E[x x'] the Hessian of the squared error
of the output, taking w_q away and updating the other weights of the unit costs

    w_q**2 / [H^-1]_qq.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def obs_scores(weights: NDArray[np.float64], moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return w_q**2 / [H^-1]_qq of every weight.

    Args:
        weights: (groups, units per group, entries).
        moment: H, positive definite, (groups, entries, entries).
    """
    spare = np.einsum("gii->gi", np.linalg.inv(moment))
    return np.asarray(weights**2 / spare[:, None, :])
