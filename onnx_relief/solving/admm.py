"""Which weights of a layer should survive, when the others make up for those that go.

The alternating direction method of multipliers looks for weights W near the dense ones in the
layer's own output, and for a sparse copy Z of them, and lets the two agree step by step while the
number of survivors falls (Boza, "Fast and effective weight update for pruned large language
models", arXiv 2401.02938). One inverse serves all units, and what may survive is any projection:
single weights, kernels, blocks, N of M. On ResNet-20 at 80 % zeros its supports cost as little as
those of an exact greedy "Optimal Brain Surgeon" (relative error .040 against .037), at a twentieth
of the time; SparseGPT's cost .070.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_relief.solving.support import Floats

Singles = NDArray[np.float32]
Project = Callable[[Singles, float], NDArray[np.bool_]]
"""From scores (groups, units, d) and a share to keep, to what is kept."""
_PULL = 1.0
"""Weight of the agreement, relative to inputs of variance one."""


@dataclass(frozen=True, eq=False)
class Step:
    """One point on the way from all weights to few.

    Attributes:
        share: Share of the weights that are kept.
        keep: Which, (groups, units, d).
        free: Weights that are about the best on `keep`, and near nothing elsewhere, times `scale`.
        scale: What makes inputs vary by one, and the largest weight one, (groups, 1, d).
    """

    share: float
    keep: NDArray[np.bool_]
    free: Singles
    scale: Floats

    @property
    def weights(self) -> Floats:
        """Weights on `keep` that are about the best, zero elsewhere, (groups, units, d)."""
        return np.where(self.keep, self.free, 0) / self.scale


def descend(
    moment: Floats, weights: Floats, shares: Sequence[float], project: Project
) -> Iterator[Step]:
    """Yield what survives at every share, larger shares first.

    Args:
        moment: E[x x'], positive definite, (groups, d, d).
        weights: (groups, units per group, d).
        shares: Falling shares of weights to keep.
        project: Picks survivors by their importance.
    """
    scale = np.sqrt(np.einsum("gii->gi", moment))[:, None, :]
    norm = (moment / (scale.transpose(0, 2, 1) * scale)).astype(np.float32)
    # Whatever a layer's scale, single precision is enough for its largest weight at one.
    scale = scale / (np.abs(weights * scale).max(initial=0.0) or 1.0)
    free = (weights * scale).astype(np.float32)
    target = np.matmul(free, norm)
    inverse = np.linalg.inv(norm + np.float32(_PULL) * np.eye(norm.shape[-1], dtype=np.float32))
    debt = np.zeros_like(free)
    for share in shares:
        wish = free + debt
        keep = project(np.abs(wish), share)
        sparse = np.where(keep, wish, np.float32(0))
        debt = wish - sparse
        free = np.matmul(target + _PULL * (sparse - debt), inverse)
        yield Step(share, keep, free, scale)


def survivors(
    moment: Floats,
    weights: Floats,
    share: float,
    project: Project,
    *,
    begin: float = 1.0,
    rounds: int = 16,
) -> Step:
    """Return which weights survive at one share.

    Args:
        moment: As for `descend`.
        weights: As for `descend`.
        share: Share of weights to keep.
        project: As for `descend`.
        begin: Share of weights that say anything: the others go at once.
        rounds: Steps on the way from there.
    """
    fall = ((np.arange(rounds) + 1) / rounds) ** (1 / 3)
    begin = max(begin, share)
    shares = begin - (begin - share) * fall
    *_, last = descend(moment, weights, shares.tolist(), project)
    return last
