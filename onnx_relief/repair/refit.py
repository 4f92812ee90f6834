"""The change of one layer's surviving weights that takes its outputs back to the dense model's.

With x what the pruned layer reads, r the dense layer's output less the pruned layer's, M = E[x x']
and C = E[r x'], the change D of the weights that survive and d of the bias minimise

    E |r - D x - d|^2 + ridge * level * |D - B|^2,    level the mean of M's diagonal,

or for inputs in units of their own, each by its own entry of the diagonal.

With B = 0 weights are pulled towards what they are, not towards zero, and where nothing is lost
nothing is changed. Where they have made up for others that went, as with `obs`, they were fitted to
few samples already; then B that takes them back to the dense model's is tried, too: MiniLM-L6
without 20, 30 and 50 % of its feed-forward units had errors of .228, .298 and .428 before, and has
.215, .275 and .390. With a bias, M and C are covariances and d = E[r] - D E[x].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.gram import Gram
from onnx_relief.solving.support import Floats, damped, fit_on_support

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, np.inf)
"""Strengths that are tried; the last one leaves the weights and moves the bias."""
CAUTIOUS = 1e-2
"""What is taken where there are too few samples to try."""
_CLEARLY = 0.01
"""Share of what held-out samples lack that going back has to be worth. Without it, four layers of
EfficientNet-lite0 went back for gains of up to .03 %, and its error rose from .520 to .528."""
_TRIED = 64
"""About so many units of a group are looked at to choose the strength, one for all of them."""


@dataclass(frozen=True, eq=False)
class Change:
    """What is added to a layer.

    Attributes:
        weights: (groups, units per group, entries); zero where nothing survives.
        offset: (groups, units per group).
        ridge: The strength that was chosen.
    """

    weights: Floats
    offset: Floats
    ridge: float


def refit(
    fit: Gram,
    tune: Gram | None,
    keep: NDArray[np.bool_],
    *,
    centred: bool,
    weigh: Floats | None = None,
    own_units: bool = False,
    back: Floats | None = None,
    lacking: float = 0.0,
) -> Change | None:
    """Return the change of a layer, or None where none of them helps on held-out samples.

    Args:
        fit: Sums of x x', and of r x' and r as its answers.
        tune: The same of held-out samples, to choose the ridge by; None to be cautious.
        keep: Weights that survive, (groups, units per group, entries).
        centred: Whether the layer has a bias that can be moved.
        weigh: What the square of a unit's error counts, (groups, units per group); 1 by default.
        own_units: As for `damped`.
        back: What takes weights back to those of the dense model, of the shape of `keep` and zero
            elsewhere; None where they are these.
        lacking: What all units lack of held-out samples, the mean of its square: going back has to
            make up for a hundredth of that more than staying does.
    """
    if tune is None:
        return solve(fit, keep, CAUTIOUS, centred=centred, own_units=own_units)
    some = slice(None, None, max(1, keep.shape[1] // _TRIED))
    here, there, kept = fit.of_units(some), tune.of_units(some), keep[:, some]
    counts = np.ones(kept.shape[:2]) if weigh is None else weigh[:, some]
    clearly = _CLEARLY * lacking * kept.shape[1] / keep.shape[1] * float(counts.mean())
    best, least, pulled = None, 0.0, None
    for towards in (None,) if back is None else (None, back):
        begin = None if towards is None else towards[:, some]
        asked = 0.0 if towards is None else clearly
        for ridge in RIDGES:
            change = solve(here, kept, ridge, centred=centred, own_units=own_units, towards=begin)
            added = float((added_error(there, change) * counts).sum()) + asked
            if added < least:
                best, least, pulled = change, added, towards
    if best is None or kept.shape == keep.shape:
        return best
    return solve(fit, keep, best.ridge, centred=centred, own_units=own_units, towards=pulled)


def solve(
    gram: Gram,
    keep: NDArray[np.bool_],
    ridge: float,
    *,
    centred: bool,
    own_units: bool = False,
    towards: Floats | None = None,
) -> Change:
    """Return the minimiser for one ridge; a unit without weights is left as it is.

    It is pulled towards B in `towards`, of the shape of `keep`; towards no change by default.
    """
    weights = np.zeros(keep.shape) if towards is None else towards
    if np.isfinite(ridge):
        moment, cross = gram.covariance(centred=centred), gram.cross_covariance(centred=centred)
        lacking = cross - np.matmul(weights, moment)
        weights = weights + fit_on_support(
            damped(moment, ridge, own_units=own_units), lacking, keep
        )
    offset = np.zeros(keep.shape[:2])
    if centred:
        offset = gram.mean_answer - np.einsum("gud,gd->gu", weights, gram.mean)
        offset = np.where(keep.any(axis=2), offset, 0.0)
    return Change(weights, offset, ridge)


def added_error(gram: Gram, change: Change) -> Floats:
    """Return E |r - D x - d|^2 - E |r|^2 on other samples, below zero where the change helps.

    For every unit by itself, (groups, units per group).
    """
    weights, offset = change.weights, change.offset
    moment = gram.covariance(centred=False)
    curved = (np.matmul(weights, moment) * weights).sum(axis=2)
    sloped = (weights * gram.cross_covariance(centred=False)).sum(axis=2)
    moved = np.einsum("gud,gd->gu", weights, gram.mean)
    return np.asarray(curved - 2 * sloped + offset * (offset + 2 * moved - 2 * gram.mean_answer))
