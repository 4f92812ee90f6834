"""The criterion `taylor`: what the outputs would lose, to first order, without a weight.

With g the gradient of a sample's loss by weight w, setting w to zero changes that loss by -g w, as
far as the first term of its Taylor series tells (Molchanov et al., arXiv 1906.10771). Its square,
averaged over samples, is the score:

    s = mean (g w)^2 = w^2 mean g^2.

Without labels the loss is <r, y>: the outputs y along a random direction r of signs, another one
for each sample. The mean of (<r, dy/dw> w)^2 over r is the sum over outputs of (dy/dw w)^2: the
squared change of the outputs themselves, which is not zero where a task's loss is at its minimum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import DataError


def taylor_scores(
    weights: NDArray[np.floating], squared_gradients: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the score of every weight, same shape, in float64.

    Scores of weights that stand or fall together (a kernel, a block, a unit) add up.

    Args:
        weights: Shape (units, inputs, taps).
        squared_gradients: Mean square of the gradient, same shape, non-negative.

    Raises:
        DataError: A gradient is no number, or the shapes differ.

    >>> taylor_scores(np.array([[[2.0], [-1.0]]]), np.array([[[0.5], [3.0]]])).tolist()
    [[[2.0], [3.0]]]
    """
    if weights.shape != squared_gradients.shape:
        raise DataError(
            f"weights of shape {weights.shape} have gradients of shape {squared_gradients.shape}; "
            "measure them on the same model"
        )
    scores: NDArray[np.float64] = np.square(weights, dtype=np.float64) * squared_gradients
    if not np.isfinite(scores).all():
        raise DataError("a gradient is infinite or no number; give other samples")
    return scores
