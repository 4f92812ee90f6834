"""In which order whole channels should go, when the layers that read them make up for the loss.

"Optimal Brain Surgeon" for groups of columns (Kurtic et al., "ZipLM", arXiv 2302.04089): with
H = E[x x'] and columns P of the weight W that one channel feeds, taking them away and updating the
other columns costs

    tr(W_P ([H^-1]_PP)^-1 W_P'),

the cheapest channels go, W and H^-1 are updated, and so on until none is left. Costs add up to what
the layer's output has lost. A channel that several layers read costs the sum of their losses, each
relative to the mean square of the layer's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_relief.solving.support import Floats, output_error

Places = NDArray[np.int64]
_CHUNK = 32
"""Channels that go at a time: one in so many of those that are left."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reader:
    """One layer that reads channels.

    Attributes:
        moment: E[x x'], positive definite, (blocks, entries, entries).
        weights: (blocks, units, entries).
        columns: By channel the columns that it feeds, counted through all blocks; they may be none.
    """

    moment: Floats
    weights: Floats
    columns: Sequence[Places]

    @property
    def energy(self) -> float:
        """Mean square of the output."""
        return float(output_error(self.moment, self.weights).sum()) or 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Elimination:
    """What goes when, and what has been lost by then.

    Attributes:
        order: The channels, first to go first.
        losses: (channels + 1,): loss after so many have gone.
        probe: How many have gone at the point that is closest to `near`.
        probed: By reader, its weights at that point, (blocks, units, entries).
    """

    order: Places
    losses: Floats
    probe: int
    probed: tuple[Floats, ...]


def eliminate(
    readers: Sequence[Reader], channels: int, *, near: float = 0.03, besides: Floats | None = None
) -> Elimination:
    """Return the order in which channels should go.

    Args:
        readers: The layers that read them.
        channels: How many there are.
        near: The loss at which the weights are wanted.
        besides: What is lost with each where nothing can make up for it, (channels,).
    """
    aside = np.zeros(channels) if besides is None else besides
    states = [_State(reader) for reader in readers]
    alive = np.arange(channels)
    order: list[int] = []
    losses = [0.0]
    probe, probed, distance = 0, tuple(reader.weights for reader in readers), np.inf
    while alive.size:
        costs = np.sum([state.costs(alive) for state in states], axis=0) + aside[alive]
        count = max(1, alive.size // _CHUNK)
        chosen = np.sort(np.argsort(costs, kind="stable")[:count])
        chosen = chosen[np.argsort(costs[chosen], kind="stable")]
        together = sum(state.remove(alive[chosen]) for state in states)
        together += float(aside[alive[chosen]].sum())
        # Within a chunk, the joint cost is shared out in proportion to the single ones.
        single = np.cumsum(costs[chosen])
        parts = single / single[-1] if single[-1] > 0 else np.arange(1, count + 1) / count
        losses += (losses[-1] + together * parts).tolist()
        order += alive[chosen].tolist()
        alive = np.delete(alive, chosen)
        gap = abs(np.log(max(losses[-1], 1e-12) / near))
        if gap < distance and alive.size:
            distance, probe = gap, len(order)
            probed = tuple(state.weights.copy() for state in states)
    return Elimination(
        order=np.array(order, dtype=np.int64),
        losses=np.array(losses),
        probe=probe,
        probed=probed,
    )


class _State:
    """A reader's weights and inverse as its columns go."""

    def __init__(self, reader: Reader) -> None:
        self.weights = reader.weights.copy()
        self._inverse = np.linalg.inv(reader.moment)
        self._energy = reader.energy
        self._columns = reader.columns

    def costs(self, channels: Places) -> Floats:
        """Return what each channel would cost now, relative to the energy."""
        entries = self.weights.shape[2]
        sizes = np.array([self._columns[channel].size for channel in channels])
        found = np.zeros(channels.size)
        for size in np.unique(sizes[sizes > 0]).tolist():
            which = np.flatnonzero(sizes == size)
            columns = np.stack([self._columns[channel] for channel in channels[which]])
            block, place = columns // entries, columns % entries
            if (block == block[:, :1]).all():
                inner = self._inverse[block[:, :1, None], place[:, :, None], place[:, None, :]]
                outer = self.weights[block[:, :1], :, place]  # (channels, columns, units)
                solved = np.linalg.solve(inner, outer)
                found[which] = np.maximum((solved * outer).sum(axis=(1, 2)), 0.0)
            else:
                found[which] = [self._joint(channel) for channel in channels[which]]
        return found / self._energy

    def remove(self, channels: Places) -> float:
        """Take channels away, let the others make up for them, and return the joint cost."""
        entries = self.weights.shape[2]
        columns = np.concatenate([self._columns[channel] for channel in channels])
        cost = 0.0
        for block in np.unique(columns // entries).tolist():
            gone = columns[columns // entries == block] % entries
            inverse, weights = self._inverse[block], self.weights[block]
            solved = np.linalg.solve(inverse[np.ix_(gone, gone)], inverse[gone])
            cost += float(
                (
                    weights[:, gone].T
                    * np.linalg.solve(inverse[np.ix_(gone, gone)], weights[:, gone].T)
                ).sum()
            )
            weights -= weights[:, gone] @ solved
            inverse -= inverse[:, gone] @ solved
            weights[:, gone] = 0.0
            # What is gone costs nothing more, and stays invertible.
            inverse[gone], inverse[:, gone] = 0.0, 0.0
            inverse[gone, gone] = 1.0
        return max(cost, 0.0) / self._energy

    def _joint(self, channel: int) -> float:
        entries = self.weights.shape[2]
        columns, cost = self._columns[channel], 0.0
        for block in np.unique(columns // entries).tolist():
            here = columns[columns // entries == block] % entries
            outer = self.weights[block][:, here].T
            inner = self._inverse[block][np.ix_(here, here)]
            cost += float((np.linalg.solve(inner, outer) * outer).sum())
        return max(cost, 0.0)
