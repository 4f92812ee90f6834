"""Which groups of channels go: scores and a share in, a choice out; the best of each kind stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_relief.selection.allocate import Ladder, allocate


def keep_counts(
    sizes: Sequence[int], wanted: Sequence[int], steps: Sequence[int], least: int
) -> list[int]:
    """Return how many groups of each kind stay.

    Args:
        sizes: How many there are of each kind.
        wanted: How many are to stay.
        steps: By kind, keep a multiple of so many, or all.
        least: Keep at least so many of each kind.

    >>> keep_counts([64, 20], [30, 9], [8, 1], least=1)
    [32, 9]
    """
    counts = []
    for size, number, step in zip(sizes, wanted, steps, strict=True):
        rounded = -(-max(number, least, 1) // step) * step
        counts.append(min(size, rounded))
    return counts


def drop_by_layer(
    kinds: Mapping[object, NDArray[np.float64]],
    ratio: float,
    *,
    steps: Mapping[object, int] | None = None,
    least: int = 1,
) -> dict[object, NDArray[np.bool_]]:
    """Drop the share `ratio` of the groups of every kind, those with the lowest scores.

    Equal scores keep their order: of two, the later one goes.

    Args:
        kinds: Scores of the groups of each kind.
        ratio: Share that goes, in [0, 1).
        steps: By kind, keep a multiple of so many, or all; 1 where nothing is said.
        least: Keep at least so many of each kind.

    Returns:
        Which groups go, by kind.
    """
    sizes = [len(scores) for scores in kinds.values()]
    wanted = [size - int(ratio * size + 1e-9) for size in sizes]
    counts = keep_counts(sizes, wanted, _listed(kinds, steps), least)
    return {
        kind: _all_but_best(scores, count)
        for (kind, scores), count in zip(kinds.items(), counts, strict=True)
    }


def drop_globally(
    kinds: Mapping[object, NDArray[np.float64]],
    losses: Mapping[object, NDArray[np.float64]],
    prices: Mapping[object, float],
    ratio: float,
    *,
    steps: Mapping[object, int] | None = None,
    least: int = 1,
) -> dict[object, NDArray[np.bool_]]:
    """Drop the share `ratio` of what all groups cost together, wherever least is lost.

    Args:
        kinds: Scores of the groups of each kind.
        losses: By kind, what is lost after so many groups have gone, (groups + 1,).
        prices: By kind, what one group costs.
        ratio: Share that goes, in [0, 1).
        steps: By kind, keep a multiple of so many, or all; 1 where nothing is said.
        least: Keep at least so many of each kind.

    Returns:
        Which groups go, by kind.
    """
    ladders = [_ladder(losses[kind], prices[kind], least) for kind in kinds]
    whole = sum(ladder.blocks * ladder.price for ladder in ladders)
    wanted = allocate(ladders, (1 - ratio) * whole)
    sizes = [len(scores) for scores in kinds.values()]
    counts = keep_counts(sizes, wanted, _listed(kinds, steps), least)
    return {
        kind: _all_but_best(scores, count)
        for (kind, scores), count in zip(kinds.items(), counts, strict=True)
    }


def _ladder(losses: NDArray[np.float64], price: float, least: int) -> Ladder:
    groups = len(losses) - 1
    return Ladder(
        shares=1 - np.arange(groups + 1) / groups,
        losses=losses,
        blocks=groups,
        price=price,
        least=least,
    )


def _listed(kinds: Mapping[object, object], steps: Mapping[object, int] | None) -> list[int]:
    return [(steps or {}).get(kind, 1) for kind in kinds]


def _all_but_best(scores: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    gone = np.ones(len(scores), dtype=bool)
    gone[np.argsort(-scores, kind="stable")[:count]] = False
    return gone
