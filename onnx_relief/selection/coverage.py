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


def keep_covering_set(scores: NDArray[np.floating], alpha: float) -> BoolArray:
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
    descending = -np.sort(-scores, axis=-1)
    running = np.cumsum(descending, axis=-1)
    before = np.zeros_like(running)
    before[..., 1:] = running[..., :-1]
    count = (before < alpha * running[..., -1:]).sum(axis=-1, keepdims=True)
    return _largest(scores, descending, count)


def _largest(
    scores: NDArray[np.floating], descending: NDArray[np.floating], count: NDArray[np.int64]
) -> BoolArray:
    """Keep the `count` largest of each row; of equal scores at the edge, the first columns.

    Sorting values and then looking for the edge is several times faster than sorting places.
    """
    edge = np.take_along_axis(descending, np.maximum(count - 1, 0), axis=-1)
    keep: BoolArray = scores > edge
    tied = scores == edge
    places = count - keep.sum(axis=-1, keepdims=True)
    undecided = np.flatnonzero(tied.sum(axis=-1, keepdims=True) > places)
    rows = tied.reshape(-1, tied.shape[-1])
    spare = places.reshape(-1)[undecided, None]
    rows[undecided] &= np.cumsum(rows[undecided], axis=-1) <= spare
    keep |= rows.reshape(tied.shape)
    return keep
