"""Label-free repair: give every unit the mean and the variance that it had in the dense model.

Layer by layer, in the order of the graph, each on what the repaired layers before it now give: the
weights of unit j are scaled by the ratio of its standard deviations and its bias is moved, so that
what it hands to its normalisation or activation has the moments of the dense model. With
BatchNormalization nodes this is their re-estimation; without them it is the same thing folded in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_relief.data import Dataset
from onnx_relief.graph.bias import with_bias
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.sites import Part, Site
from onnx_relief.graph.walk import TensorHome
from onnx_relief.moments import Channels, Moments, moments
from onnx_relief.plan import LayerKind
from onnx_relief.progress import ticker
from onnx_relief.results import Progress

_MOST = 3.0
"""Largest factor: units that have become nearly constant are not blown up."""
_TINY = 1e-12


def match_moments(
    pruned: Document,
    dense: Document,
    kept: Mapping[str, NDArray[np.int64]],
    data: Dataset,
    *,
    batch_size: int,
    provider: str,
    progress: Progress | None = None,
) -> Document:
    """Return `pruned` with weights and biases that restore the dense moments of every unit.

    Args:
        pruned: The smaller model.
        dense: The model it was made from, with layers of the same names.
        kept: By layer, the places of its units in the dense layer.
        data: Calibration samples.
        batch_size: Samples per run.
        provider: Execution provider of ONNX Runtime.
        progress: Told how far the work has come.

    Raises:
        ModelError, DataError: A model cannot be run on the data.
    """
    sites = [site for site in find_layers(dense).sites if _can_be_repaired(site)]
    wanted = {site.output: _channels(site) for site in sites}
    before = moments(dense, wanted, data, batch_size=batch_size, provider=provider)
    tick = ticker(progress, "repairing layers", len(sites))
    for dense_site in sites:
        tick(1)
        survey = find_layers(pruned)
        site = next((s for s in survey.sites if s.layer.name == dense_site.layer.name), None)
        if site is None or not _can_be_repaired(site) or site.output != dense_site.output:
            continue
        now = moments(
            pruned,
            {site.output: _channels(site)},
            data,
            batch_size=batch_size,
            provider=provider,
        )[site.output]
        target = before[site.output]
        chosen = kept.get(site.layer.name, np.arange(target.mean.size))
        wished = Moments(target.mean[chosen], target.variance[chosen])
        pruned = _repaired(pruned, survey, site, now, wished)
    return pruned


def _repaired(
    document: Document, survey: Survey, site: Site, now: Moments, wished: Moments
) -> Document:
    """Return the document with one layer rescaled and moved."""
    factor = np.sqrt((wished.variance + _TINY) / (now.variance + _TINY))
    factor = np.clip(factor, 1 / _MOST, _MOST)
    factor[now.variance < _TINY] = 1.0
    if np.allclose(factor, 1, atol=1e-4) and np.allclose(now.mean, wished.mean, atol=1e-5):
        return document
    values: dict[TensorHome, NDArray[np.generic]] = {}
    rows = survey.rows(site.parts[0]).astype(np.float64) * factor[:, None, None]
    values[site.parts[0].view.home] = _as_stored(site.parts[0], rows)
    old = np.zeros(factor.size)
    scale = site.layer.bias.scale if site.layer.bias else 1.0
    if site.bias:
        old = survey.rows(site.bias).astype(np.float64).reshape(-1) * scale
    bias = wished.mean - factor * (now.mean - old)
    if site.bias:
        spread = (bias / scale).reshape(site.bias.layout.rows)
        values[site.bias.view.home] = _as_stored(site.bias, spread)
        return write_constants(document, values)
    return with_bias(write_constants(document, values), site, bias)


def _as_stored(part: Part, rows: NDArray[np.float64]) -> NDArray[np.generic]:
    seen = part.layout.from_rows(rows, part.view.shape)
    stored = np.empty(part.view.size)
    stored[part.view.places().reshape(-1)] = seen.reshape(-1)
    return stored.reshape(part.view.stored_shape)


def _channels(site: Site) -> Channels:
    geometry = site.layer.geometry
    if geometry is not None:
        return Channels(geometry.rank + 2, 1)
    return Channels(2, 1)


def _can_be_repaired(site: Site) -> bool:
    """Whether the layer stands in the main graph, has float weights of its own, and one output."""
    layer = site.layer
    plain = layer.kind is not LayerKind.RECURRENT and len(site.parts) == 1
    floats = all(part.view.dtype.kind == "f" and part.view.zero.ndim == 0 for part in site.tensors)
    has_room = site.bias is not None or layer.op in ("Conv", "ConvTranspose", "Gemm")
    known = layer.geometry is not None or layer.op == "Gemm"
    return plain and floats and has_room and known and site.scope.parent is None
