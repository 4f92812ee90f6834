"""Label-free repair: give every unit the mean and the variance that it had in the dense model.

Layer by layer, in the order of the graph, each on what the repaired layers before it now give: the
weights of unit j are scaled by the ratio of its standard deviations and its bias is moved, so that
what it hands to its normalisation or activation has the moments of the dense model. With
BatchNormalization nodes this is their re-estimation; without them it is the same thing folded in.
Layers without a bias or room for one are left: to scale them alone, to the mean square that they
had, made a decoder of transformer blocks worse (.0152 -> .0170). Weights of integers stay as they
are, since the largest have no room, and units keep the variance that they have.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.agreement import shared_homes
from onnx_relief.data import Dataset
from onnx_relief.graph.bias import beta_of, with_bias
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.rows import OTHER_FORM, as_stored, can_be_set
from onnx_relief.graph.sites import Site
from onnx_relief.graph.walk import TensorHome
from onnx_relief.measuring.moments import Channels, Moments, merged, moments, watched, watches
from onnx_relief.plan import LayerKind
from onnx_relief.progress import ticker
from onnx_relief.repair.account import Account, counted
from onnx_relief.repair.pairs import (
    BY_ZERO,
    NO_TWIN,
    SHARED,
    can_be_given_a_bias,
    main_outputs,
    outputs_of,
)
from onnx_relief.repair.relay import Relay
from onnx_relief.repair.stages import stages
from onnx_relief.repair.stays import UNKNOWN_UNITS, Stays, lost_positions, units_left
from onnx_relief.results import Progress
from onnx_relief.settings import DEFAULT_MEMORY

_LOST_POSITIONS: Final = "channels were cut that lie among its positions"
_MOST = 3.0
"""Largest factor: units that have become nearly constant are not blown up."""
_TINY = 1e-12
"""Share of a layer's largest variance below which a unit is constant."""
_UNMOVED = 1e-5
"""Share of a layer's usual output that a mean may be off by."""
_SAME = 1e-4
"""Largest distance of a factor from 1 that changes nothing to speak of."""


def match_moments(
    pruned: Document,
    dense: Document,
    stays: Stays,
    data: Dataset,
    *,
    batch_size: int,
    provider: str,
    memory: int = DEFAULT_MEMORY,
    progress: Progress | None = None,
) -> Account:
    """Return `pruned` with weights and biases that restore the dense moments of every unit.

    Args:
        pruned: The smaller model.
        dense: The model it was made from, with layers of the same names.
        stays: What is left of the dense model's tensors.
        data: Calibration samples.
        batch_size: Samples per run.
        provider: Execution provider of ONNX Runtime.
        memory: Bytes that tensors may take, about.
        progress: Told how far the work has come.

    Raises:
        ModelError, DataError: A model cannot be run on the data.
    """
    twins = _repairable(find_layers(dense))[0]
    wanted = {name: _channels(site) for site in twins.values() for name in outputs_of(site)}
    before = moments(dense, wanted, data, batch_size=batch_size, provider=provider)
    survey = find_layers(pruned)
    sites, left = _repairable(survey)
    chosen: dict[str, NDArray[np.int64]] = {}
    for name, site in sites.items():
        if name not in twins or site.output not in outputs_of(twins[name]):
            left[name] = NO_TWIN
            continue
        chosen[name] = units_left(stays, twins[name])
        if lost_positions(stays, twins[name]):
            left[name] = _LOST_POSITIONS
        elif chosen[name].size != site.layer.units:
            left[name] = UNKNOWN_UNITS
    names = [name for name in sites if name not in left]
    groups = stages(survey, names)
    relay = Relay(data, batch_size=batch_size, budget=memory // 4, provider=provider, models=1)
    tick = ticker(progress, "repairing layers", len(names))
    short = 0
    for number, group in enumerate(groups):
        survey = find_layers(pruned)
        sites = _repairable(survey)[0]
        coming = [sites[name] for group in groups[number:] for name in group]
        relay.go_on([pruned], [{made for site in coming for made in outputs_of(site)}])
        here = [sites[name] for name in group]
        for site, now in zip(here, _moments_of(here, pruned, relay), strict=True):
            places, target = chosen[site.layer.name], before[site.output]
            wished = Moments(target.mean[places], target.variance[places])
            factor, clipped = _factor(site, now, wished)
            pruned = _repaired(pruned, survey, site, now, wished, factor)
            short += clipped
            tick(1)
    integers = any(sites[name].parts[0].view.quantised for name in names)
    restored = (
        "mean (and where weights are no integers, variance)" if integers else "mean and variance"
    )
    but = f"; {counted(short, 'unit')} that changed too much only in part" if short else ""
    return Account(
        document=pruned,
        layers=tuple(names),
        left=left,
        told=f"the units of {{}} have their {restored} again{but}",
        undone="repaired",
    )


def _moments_of(sites: Sequence[Site], document: Document, relay: Relay) -> list[Moments]:
    """Return the moments of what some layers make now, over all samples."""
    channels = {site.output: _channels(site) for site in sites}
    walk = relay.walk([watched(document, channels)], [watches(channels)])
    found = merged(channels, (made for (made,) in walk))
    return [found[site.output] for site in sites]


def _factor(site: Site, now: Moments, wished: Moments) -> tuple[NDArray[np.float64], int]:
    """Return what to scale the weights of each unit by, and for how many that is not enough."""
    if site.parts[0].view.quantised:
        return np.ones(now.variance.size), 0
    least = _TINY * max(wished.variance.max(initial=0), now.variance.max(initial=0))
    if least == 0:
        return np.ones(now.variance.size), 0
    wanted = np.sqrt((wished.variance + least) / (now.variance + least))
    factor = np.clip(wanted, 1 / _MOST, _MOST)
    factor[now.variance < least] = 1.0
    return factor, int(((factor != wanted) & (np.abs(wanted - 1) > _SAME)).sum())


def _repaired(
    document: Document,
    survey: Survey,
    site: Site,
    now: Moments,
    wished: Moments,
    factor: NDArray[np.float64],
) -> Document:
    """Return the document with one layer rescaled and moved."""
    size = float(np.sqrt(np.mean(wished.variance + wished.mean**2)))
    moved = np.abs(now.mean - wished.mean).max(initial=0)
    if np.abs(factor - 1).max(initial=0) <= _SAME and moved <= _UNMOVED * size:
        return document
    values: dict[TensorHome, NDArray[np.generic]] = {}
    rows = survey.rows(site.parts[0]).astype(np.float64)
    scaled = rows * factor[:, None, None]
    values[site.parts[0].view.home] = as_stored(survey.constants, site.parts[0], scaled)
    old = np.zeros(factor.size)
    scale = site.layer.bias.scale if site.layer.bias else beta_of(site)
    if site.bias:
        old = survey.rows(site.bias).astype(np.float64).reshape(-1) * scale
    # A unit without weights is dead, and may be cut out as long as it stays so.
    bias = np.where(rows.any(axis=(1, 2)), wished.mean - factor * (now.mean - old), old) / scale
    if site.bias:
        spread = bias.reshape(site.bias.layout.rows)
        values[site.bias.view.home] = as_stored(survey.constants, site.bias, spread)
        return write_constants(document, values)
    return with_bias(write_constants(document, values), site, bias)


def _channels(site: Site) -> Channels:
    geometry, wide = site.layer.geometry, site.parts[0].view.dtype == np.float64
    if geometry is not None:
        return Channels(geometry.rank + 2, 1, wide=wide)
    return Channels(2, 1, None if site.layer.op == "Gemm" else site.layer.units, wide=wide)


def _repairable(survey: Survey) -> tuple[dict[str, Site], dict[str, str]]:
    """Return the layers that can be repaired, and why the others cannot, by name."""
    shared = shared_homes(survey)
    own = main_outputs(survey)
    found, left = {}, {}
    for site in survey.sites:
        reason = _why_not(site, shared, own)
        if reason is None:
            found[site.layer.name] = site
        else:
            left[site.layer.name] = reason
    return found, left


def _why_not(site: Site, shared: Set[TensorHome], own: set[str]) -> str | None:
    """Return why a layer cannot be repaired, in words; None where it can."""
    layer = site.layer
    if layer.kind is LayerKind.RECURRENT:
        return "it is recurrent"
    if site.scope.parent is not None or site.output not in own:
        return "it is inside a body or a function"
    if layer.geometry is None and (layer.weights[0].groups > 1 or site.makes.place != -1):
        return "its units are not on the last axis"
    if any(part.view.home in shared for part in site.tensors):
        return SHARED
    if not all(can_be_set(part) for part in site.tensors):
        return OTHER_FORM
    if site.bias is None and not can_be_given_a_bias(site, own):
        return "it has no bias of its own, and no room for one"
    if 0 in (layer.weights[0].scale, layer.bias.scale if layer.bias else 1):
        return BY_ZERO
    return None
