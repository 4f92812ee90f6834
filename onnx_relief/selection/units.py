"""Remove whole units: those that are dead on the data, and those that nothing reads any more.

Both follow from what is kept of connections, and each removal may cause others, so they are
repeated to a fixed point. Removing an unread unit, or a connection to a unit that is zero, changes
no output; removing a dead unit changes none on the calibration data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_relief.plan import BoolArray, LayerPlan


@dataclass(frozen=True, eq=False, kw_only=True)
class Link:
    """One layer that reads the units of another.

    Attributes:
        reader: Name of the layer that reads.
        block: Inputs that one unit becomes.
        groups: Groups of the reader's weight.
        active: (inputs,): whether an input was ever other than zero on the data.
        fixed: Whether another layer reads through the same weight, so that no connection of it
            can be dropped for this one alone.
    """

    reader: str
    block: int
    groups: int
    active: BoolArray
    fixed: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Outlook:
    """Where the units of one layer go, all of it: a layer whose units get lost has no outlook.

    Attributes:
        links: Every layer that reads the units.
        keeps_zero: Whether a unit that is zero is read as zero.
        normalisation: Names of normalisation parameters between, which move zero unless they go
            with the unit.
    """

    links: tuple[Link, ...]
    keeps_zero: bool
    normalisation: tuple[str, ...] = ()


def remove_units(
    plans: Mapping[str, LayerPlan], outlooks: Mapping[str, Outlook]
) -> dict[str, LayerPlan]:
    """Return the plans with dead and unread units removed, and the connections that read them.

    Args:
        plans: What selection kept, by layer; layers without a plan are left alone and read all.
        outlooks: By layer, for the layers whose units can be followed to every reader. Layers
            whose alpha is 1 asked for no change and lose nothing.
    """
    state = dict(plans)
    changed = True
    while changed:
        changed = False
        for name, outlook in outlooks.items():
            plan = state.get(name)
            if plan is None or plan.alpha == 1.0 or not outlook.links:
                continue
            gone = _unread(outlook, state, len(plan.removed)) | _dead(outlook, len(plan.removed))
            if np.any(gone & ~plan.removed):
                state[name] = _without_units(plan, gone | plan.removed, outlook)
                changed = True
            changed |= _cut_readers(outlook, state, _silent(outlook, state[name]))
    return state


def _unread(outlook: Outlook, state: Mapping[str, LayerPlan], units: int) -> BoolArray:
    read = np.zeros(units, dtype=bool)
    for link in outlook.links:
        plan = state.get(link.reader)
        if plan is None:
            return np.zeros(units, dtype=bool)
        kept = plan.keep[0].any(axis=2)
        by_group = kept.reshape(link.groups, -1, kept.shape[1]).any(axis=1)
        read |= by_group.reshape(units, link.block).any(axis=1)
    return ~read


def _dead(outlook: Outlook, units: int) -> BoolArray:
    """Units whose readers all saw nothing but zero on the data."""
    if not outlook.keeps_zero:
        return np.zeros(units, dtype=bool)
    seen = [link.active.reshape(units, link.block).any(axis=1) for link in outlook.links]
    return np.asarray(~np.any(seen, axis=0))


def _silent(outlook: Outlook, plan: LayerPlan) -> BoolArray:
    """Units that are exactly zero wherever they are read."""
    if not outlook.keeps_zero:
        return np.zeros(len(plan.removed), dtype=bool)
    if outlook.normalisation:
        return plan.removed
    return ~(plan.alive | plan.keep_bias.any(axis=1))


def _without_units(plan: LayerPlan, gone: BoolArray, outlook: Outlook) -> LayerPlan:
    return replace(
        plan,
        keep=tuple(keep & ~gone[:, None, None] for keep in plan.keep),
        keep_bias=plan.keep_bias & ~gone[:, None],
        removed=gone,
        normalisation=outlook.normalisation,
    )


def _cut_readers(outlook: Outlook, state: dict[str, LayerPlan], silent: BoolArray) -> bool:
    """Drop the connections that read `silent` units; return whether there were any."""
    changed = False
    for link in outlook.links:
        plan = state.get(link.reader)
        if plan is None or plan.alpha == 1.0 or link.fixed or not silent.any():
            continue
        keep = plan.keep[0]
        per_group = np.repeat(silent, link.block).reshape(link.groups, 1, keep.shape[1], 1)
        cut = keep.reshape(link.groups, -1, *keep.shape[1:]) & ~per_group
        cut = cut.reshape(keep.shape)
        if np.any(cut != keep):
            state[link.reader] = replace(plan, keep=(cut, *plan.keep[1:]))
            changed = True
    return changed
