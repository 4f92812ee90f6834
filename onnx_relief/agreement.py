"""What layers must agree on before a plan is final: shared weights, and who reads whose units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.follow import UnitFlow
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.sites import Part, Site
from onnx_relief.graph.walk import TensorHome
from onnx_relief.measuring.digest import LayerActivity
from onnx_relief.plan import BoolArray, LayerPlan, Weight
from onnx_relief.selection.units import Link, Outlook


def agree_on_shared_weights(survey: Survey, plans: Mapping[str, LayerPlan]) -> dict[str, LayerPlan]:
    """Return the plans with every shared weight kept where any of its layers keeps it."""
    shared = shared_homes(survey)
    kept: dict[TensorHome, NDArray[np.bool_]] = {}
    for site in survey.sites:
        plan = plans.get(site.layer.name)
        wishes = (*plan.keep, plan.keep_bias) if plan else (None,) * 3
        for part, wish in zip(site.tensors, wishes, strict=False):
            if part.view.home in shared:
                stored = kept.setdefault(part.view.home, np.zeros(part.view.size, dtype=bool))
                stored |= True if wish is None else part.view.as_stored(_as_seen(part, wish))
    agreed = dict(plans)
    for site in survey.sites:
        plan = plans.get(site.layer.name)
        if plan is None or not any(part.view.home in shared for part in site.tensors):
            continue
        weights = zip(site.parts, plan.keep, strict=True)
        keep = tuple(_agreed(part, wish, kept) for part, wish in weights)
        bias = _agreed(site.bias, plan.keep_bias, kept) if site.bias else plan.keep_bias
        agreed[plan.layer] = replace(plan, keep=keep, keep_bias=bias)
    return agreed


def outlooks(
    survey: Survey, flows: Mapping[str, UnitFlow], activities: Mapping[str, LayerActivity]
) -> dict[str, Outlook]:
    """Return, for every layer whose units can be followed to all their readers, who they are.

    A layer that shares a weight has none: its units are not its own to remove.
    """
    shared = shared_homes(survey)
    found: dict[str, Outlook] = {}
    for name, flow in flows.items():
        if flow.blocked or any(part.view.home in shared for part in survey.by_name[name].tensors):
            continue
        found[name] = Outlook(
            links=tuple(
                _link(survey.by_name[r.layer], r.block, activities, shared) for r in flow.readers
            ),
            keeps_zero=flow.keeps_zero,
            normalisation=flow.normalisation_names,
        )
    return found


def _link(
    reader: Site,
    block: int,
    activities: Mapping[str, LayerActivity],
    shared: set[TensorHome],
) -> Link:
    weight = reader.layer.weights[0]
    return Link(
        reader=reader.layer.name,
        block=block,
        groups=weight.groups,
        active=_active(weight, activities.get(reader.layer.name)),
        fixed=reader.parts[0].view.home in shared,
    )


def _active(weight: Weight, activity: LayerActivity | None) -> BoolArray:
    """Return which inputs were ever active; a reader that was not measured may read all."""
    if activity is None:
        return np.ones(weight.inputs * weight.groups, dtype=bool)
    return activity.signals[0].reads > 0


def shared_homes(survey: Survey) -> set[TensorHome]:
    """Return the constants that several layers read."""
    return {home for home, layers in readers_of(survey).items() if len(layers) > 1}


def readers_of(survey: Survey) -> dict[TensorHome, list[str]]:
    """Return by constant the names of the layers that read it, as often as they do."""
    found: dict[TensorHome, list[str]] = defaultdict(list)
    for site in survey.sites:
        for part in site.tensors:
            found[part.view.home].append(site.layer.name)
    return dict(found)


def followers(survey: Survey, seen: Iterable[Site], unseen: Iterable[str]) -> set[str]:
    """Return the layers that nothing is known of, all of whose weights ones read that were seen.

    They lose what these lose: a branch that the data never takes does not keep a weight for itself.
    """
    known = {part.view.home for site in seen for part in site.parts}
    return {
        name
        for name in unseen
        if all(part.view.home in known for part in survey.by_name[name].parts)
    }


def held_by_others(survey: Survey, left_alone: Set[str]) -> dict[str, str]:
    """Return the layers of which ones that are left alone read every weight, and why they stay."""
    held: dict[TensorHome, str] = {}
    for name in sorted(left_alone):
        held |= {part.view.home: name for part in survey.by_name[name].parts}
    found = {}
    for site in survey.sites:
        others = [held.get(part.view.home) for part in site.parts]
        if site.layer.name not in left_alone and all(others):
            found[site.layer.name] = f"{others[0]!r}, which is left alone, reads its weight, too"
    return found


def no_wish(site: Site, alpha: float) -> LayerPlan:
    """Return the plan of a layer that keeps what others keep that read the same weights."""
    layer = site.layer
    return LayerPlan(
        layer=layer.name,
        alpha=alpha,
        keep=tuple(np.zeros(part.layout.rows, dtype=bool) for part in site.parts),
        keep_bias=np.ones((layer.units, layer.bias.count if layer.bias else 0), dtype=bool),
        removed=np.zeros(layer.units, dtype=bool),
    )


def read_alike(survey: Survey, one: Site, other: Site, *, part: int = 0) -> bool:
    """Return whether two layers make the same of a weight that they share."""
    mine, theirs = one.parts[part], other.parts[part]
    here, there = (read.layout.to_rows(read.view.places()) for read in (mine, theirs))
    return (
        np.array_equal(here, there)
        and np.array_equal(survey.rows(mine), survey.rows(theirs))  # integers may have two scales
        and one.layer.weights[part].scale == other.layer.weights[part].scale
        and one.layer.weights[part].groups == other.layer.weights[part].groups
        and (one.layer.geometry is None) == (other.layer.geometry is None)
    )


def equal_say(energies: Sequence[float]) -> NDArray[np.float64]:
    """Return how often layers that share a weight count, one on average, from what each gives.

    What a layer loses counts relative to that, as in the end in the model's outputs: else the
    loudest would have the weight for itself. A layer that gives nothing has no say.
    """
    energy = np.asarray(energies, dtype=np.float64)
    inverse = np.divide(1.0, energy, out=np.zeros_like(energy), where=energy > 0)
    return np.asarray(inverse / (inverse.mean() or 1.0))


def as_read_by(part: Part, other: Part, rows: NDArray[Any]) -> NDArray[Any]:
    """Return what one number for each of a weight's rows is to another layer that shares it."""
    stored = other.view.as_stored(other.layout.from_rows(rows, other.view.shape))
    return part.layout.to_rows(part.view.as_seen(stored))


def _as_seen(part: Part, wish: BoolArray) -> BoolArray:
    return part.layout.from_rows(np.broadcast_to(wish, part.layout.rows), part.view.shape)


def _agreed(part: Part, wish: BoolArray, kept: Mapping[TensorHome, NDArray[np.bool_]]) -> BoolArray:
    if part.view.home not in kept:
        return wish
    rows = part.layout.to_rows(part.view.as_seen(kept[part.view.home]))
    whole_kernels = wish.ndim == 3 and wish.shape[2] == 1
    return np.asarray(rows.any(axis=2, keepdims=True) if whole_kernels else rows)
