"""Keep the fewest connections of each unit that carry a given share of its signal.

Selection is by rank, never by comparing with a threshold: equal scores keep their order, a row with
mass keeps at least one connection, a row of zeros keeps nothing (arXiv 2109.10795, algorithm 1,
without its loss of ties).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import SettingsError

BoolArray = NDArray[np.bool_]


def keep_covering_set(scores: NDArray[np.float64], alpha: float) -> BoolArray:
    """Keep, in each row, the fewest entries that hold the share `alpha` of the row's sum.

    `alpha` = 1 keeps every entry, those with score 0 included: it means "change nothing".

    Args:
        scores: Non-negative, shape (units, connections); the scale of a row does not matter.
        alpha: Share of each row's sum to keep, in (0, 1].

    Returns:
        True where an entry is kept, same shape. Equal scores keep their column order.

    Raises:
        SettingsError: `alpha` outside (0, 1], or a score that is negative, NaN or infinite.

    >>> keep_covering_set(np.array([[1.0, 1.0, 1.0, 1.0], [9.0, 0.5, 0.5, 0.0]]), 0.5)
    array([[ True,  True, False, False],
           [ True, False, False, False]])
    """
    if not 0.0 < alpha <= 1.0:
        raise SettingsError(f"alpha must lie in (0, 1], got {alpha!r}")
    if not np.all(np.isfinite(scores)) or np.any(scores < 0):
        raise SettingsError("scores must be finite and not negative")
    if alpha == 1.0 or scores.shape[-1] == 0:
        return np.ones(scores.shape, dtype=bool)

    # Powers of two change no digit, and keep sums from overflowing and shares from underflowing.
    _, exponents = np.frexp(scores.max(axis=-1, keepdims=True))
    scores = np.ldexp(scores, -exponents)
    order = np.argsort(-scores, axis=-1, kind="stable")
    running = np.cumsum(np.take_along_axis(scores, order, axis=-1), axis=-1)
    before = np.zeros_like(running)
    before[..., 1:] = running[..., :-1]
    keep = np.empty(scores.shape, dtype=bool)
    np.put_along_axis(keep, order, before < alpha * running[..., -1:], axis=-1)
    return keep
