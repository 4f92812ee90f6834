"""Score the connections of one layer and keep those that carry its signal, some units at a time.

A unit is decided by itself, so that of a large layer only a block of units is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.mean import FloatArray
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.digest import LayerActivity
from onnx_relief.plan import LayerPlan
from onnx_relief.scoring.relief import relief_scores
from onnx_relief.selection.coverage import keep_covering_set

_BLOCK_ENTRIES = 2_000_000  # about 100 MB of float64 and order numbers while selecting


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of some units: per weight (units, inputs, taps or 1), and (units, biases per unit)."""

    weights: tuple[FloatArray, ...]
    bias: FloatArray


def score(survey: Survey, site: Site, activity: LayerActivity) -> Scores:
    """Return the scores of all units of one layer."""
    blocks = [block for _, block in _scored_blocks(survey, site, activity)]
    weights = zip(*(block.weights for block in blocks), strict=True)
    return Scores(
        weights=tuple(np.concatenate(parts) for parts in weights),
        bias=np.concatenate([block.bias for block in blocks]),
    )


def select(survey: Survey, site: Site, activity: LayerActivity, alpha: float) -> LayerPlan:
    """Keep, per unit, the fewest connections and biases that hold the share `alpha`."""
    layer = site.layer
    taps = [signal.measured.shape[2] for signal in activity.signals]
    shapes = [(*part.layout.rows[:2], t) for part, t in zip(site.parts, taps, strict=True)]
    keep = tuple(np.empty(shape, dtype=bool) for shape in shapes)
    keep_bias = np.empty((layer.units, layer.bias.count if layer.bias else 0), bool)
    for units, block in _scored_blocks(survey, site, activity):
        chosen = keep_covering_set(_as_rows((*block.weights, block.bias)), alpha)
        *parts, bias = _split(chosen, (*block.weights, block.bias))
        for mask, part in zip(keep, parts, strict=True):
            mask[units] = part
        keep_bias[units] = bias
    removed = np.zeros(layer.units, dtype=bool)
    return LayerPlan(layer=layer.name, alpha=alpha, keep=keep, keep_bias=keep_bias, removed=removed)


def _scored_blocks(
    survey: Survey, site: Site, activity: LayerActivity
) -> Iterator[tuple[slice, Scores]]:
    """Yield the scores of some units at a time; connections and biases of a unit compete."""
    layer = site.layer
    rows = [survey.rows(part) for part in site.parts]
    bias = np.zeros((layer.units, 0))
    if site.bias and layer.bias:
        strength = np.abs(survey.rows(site.bias).astype(np.float64))
        bias = strength * abs(layer.bias.scale) * activity.bias_gain
    step = max(1, _BLOCK_ENTRIES // sum(part[0].size for part in rows))
    for first in range(0, layer.units, step):
        units = slice(first, min(first + step, layer.units))
        signals = [
            signal.of(part[units], first, layer.units) * abs(weight.scale)
            for weight, part, signal in zip(layer.weights, rows, activity.signals, strict=True)
        ]
        parts = (*signals, bias[units])
        *weights, biases = _split(relief_scores(_as_rows(parts)), parts)
        yield units, Scores(weights=tuple(weights), bias=biases)


def _as_rows(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join what belongs to the same units, (units, entries)."""
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _split(rows: NDArray[Any], like: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Undo `_as_rows`."""
    ends = np.cumsum([part[0].size for part in like])[:-1]
    parts = np.split(rows, ends, axis=1)
    return [part.reshape(one.shape) for part, one in zip(parts, like, strict=True)]
