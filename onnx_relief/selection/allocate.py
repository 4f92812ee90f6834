"""How many of each layer's blocks stay, so that all layers together lose the least for a budget.

A ladder says what a layer loses at falling shares of what it keeps. The exchange between layers is
one price for what the budget counts: every layer keeps the share at which one more block would save
less than it costs (Everett 1963, generalised Lagrange multipliers). Between two rungs, the loss is
taken to fall in a straight line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RUNGS = (
    *(1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3),
    *(0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01),
)
"""Shares at which losses are looked at."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Ladder:
    """What one layer loses when it keeps less.

    Attributes:
        shares: Falling, from 1.
        losses: Rising, from 0, in the same unit for all layers.
        blocks: What there is to keep.
        price: What one block costs of the budget.
        least: Blocks that have to stay.
    """

    shares: Floats
    losses: Floats
    blocks: int
    price: float = 1.0
    least: int = 1


def allocate(ladders: Sequence[Ladder], budget: float) -> list[int]:
    """Return how many blocks every layer keeps, so that their prices sum to `budget` at most.

    As much of the budget as whole blocks allow is spent; what every layer has to keep stays, even
    where that is more.
    """
    hulls = [_lower_hull(ladder) for ladder in ladders]
    wholes = np.array([ladder.blocks * ladder.price for ladder in ladders])
    ends = np.array([hull[-1, 0] for hull in hulls])
    if (ends * wholes).sum() > budget:
        # Below the last rungs nothing is known of losses, so all fall alike.
        leasts = _leasts(ladders)
        step = ((ends - leasts) * wholes).sum()
        part = max((budget - (leasts * wholes).sum()) / step, 0.0) if step > 0 else 0.0
        return _whole_blocks(ladders, leasts + part * (ends - leasts), budget)

    def shares_at(worth: float) -> Floats:
        """Return the shares at which a further bit of the budget saves less than `worth`."""
        return np.array(
            [_share(hull, worth, whole) for hull, whole in zip(hulls, wholes, strict=True)]
        )

    steps = [_slopes(hull)[0] / whole for hull, whole in zip(hulls, wholes, strict=True)]
    worths = np.unique(np.concatenate([*steps, np.zeros(1)]))
    low, high = 0, len(worths) - 1
    while low < high:  # the smallest worth that fits
        middle = (low + high) // 2
        if (shares_at(worths[middle]) * wholes).sum() <= budget:
            high = middle
        else:
            low = middle + 1
    fits = shares_at(worths[low])
    # What can go for nothing stays, too, as far as the budget allows.
    more = shares_at(worths[low - 1]) if low else np.ones(len(ladders))
    spare, step = budget - (fits * wholes).sum(), ((more - fits) * wholes).sum()
    part = min(max(spare / step, 0.0), 1.0) if step > 0 else 0.0
    return _whole_blocks(ladders, fits + part * (more - fits), budget)


def uniform(ladders: Sequence[Ladder], budget: float) -> list[int]:
    """Return the same share of every layer's blocks, for a budget as in `allocate`.

    Where a layer has to keep more than that, the others keep less.
    """
    wholes = np.array([ladder.blocks * ladder.price for ladder in ladders])
    leasts = _leasts(ladders)
    shares = np.ones(len(ladders))
    free = np.ones(len(ladders), dtype=bool)
    while free.any():
        left = budget - float((wholes * leasts)[~free].sum())
        whole = float(wholes[free].sum())
        share = min(max(left / whole, 0.0), 1.0) if whole > 0 else 1.0
        shares = np.where(free, share, leasts)
        bound = free & (leasts > share)
        if not bound.any():
            break
        free &= ~bound
    return _whole_blocks(ladders, shares, budget)


def _leasts(ladders: Sequence[Ladder]) -> Floats:
    """Return the shares that have to stay."""
    return np.array([min(one.least, one.blocks) / max(one.blocks, 1) for one in ladders])


def _whole_blocks(ladders: Sequence[Ladder], shares: Floats, budget: float) -> list[int]:
    """Round shares to blocks, and give what is left of the budget to the largest remainders."""
    exact = np.array([share * one.blocks for share, one in zip(shares, ladders, strict=True)])
    least = np.array([min(one.least, one.blocks) for one in ladders])
    counts = np.maximum(np.floor(exact + 1e-9), least).astype(np.int64)
    prices = np.array([one.price for one in ladders])
    spare = budget - float((counts * prices).sum())
    for place in np.argsort(-(exact - counts), kind="stable"):
        if prices[place] <= spare + 1e-9 and counts[place] < ladders[place].blocks:
            counts[place] += 1
            spare -= prices[place]
    for place in np.argsort(-prices, kind="stable"):  # large blocks leave room for small ones
        more = min(int((spare + 1e-9) // prices[place]), ladders[place].blocks - counts[place])
        if more > 0:
            counts[place] += more
            spare -= more * prices[place]
    return [int(count) for count in counts]


def _lower_hull(ladder: Ladder) -> Floats:
    """Return the corners (share, loss) of the lower convex hull, from share 1 downwards.

    Shares are those of whole blocks, and none is less than what has to stay.
    """
    least = min(ladder.least, ladder.blocks)
    counts = np.maximum(np.rint(ladder.shares * ladder.blocks), least)
    shares, first = np.unique(-counts, return_index=True)
    points = [
        (float(-share / ladder.blocks), float(ladder.losses[place]))
        for share, place in zip(shares, first, strict=True)
    ]
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return np.array(hull)


def _turns_down(
    first: tuple[float, float], second: tuple[float, float], third: tuple[float, float]
) -> bool:
    """Whether the loss grows more slowly after `second` than before it, shares falling."""
    before = (second[1] - first[1]) * (second[0] - third[0])
    after = (third[1] - second[1]) * (first[0] - second[0])
    return after <= before


def _slopes(hull: Floats) -> tuple[Floats, Floats]:
    """Return the loss per share of every stretch, and the share at its end."""
    fall = -np.diff(hull[:, 0])
    return np.diff(hull[:, 1]) / np.where(fall > 0, fall, 1), hull[1:, 0]


def _share(hull: Floats, worth: float, whole: float) -> float:
    """Return the share at the end of the last stretch that costs no more than `worth`.

    What a stretch costs is divided by `whole` just as the worths are, so that both round alike.
    """
    slopes, ends = _slopes(hull)
    count = int(np.searchsorted(slopes / whole, worth, side="right"))
    return float(ends[count - 1]) if count else float(hull[0, 0])
