"""Find out which channels of a model live or die together, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.channels import RULES, trace_channels
from onnx_relief.graph.channels.coupled import Coupled, coupled, stays
from onnx_relief.graph.document import Document
from onnx_relief.graph.folded import ready_to_cut
from onnx_relief.graph.layers import find_layers, uniquely_named
from onnx_relief.measuring.observe import observe
from onnx_relief.report.groups import CoupledRow, GroupMember, StaysRow


def coupled_units(
    document: Document, feed: Mapping[str, NDArray[Any]], macs: Mapping[str, float | None]
) -> tuple[tuple[CoupledRow, ...], tuple[StaysRow, ...]]:
    """Return the groups of channels that can go, and those that stay, with the reason.

    Args:
        document: The model.
        feed: Inputs of the right shapes, by name.
        macs: Multiply-accumulates per sample of each layer, by the layer's name.

    Raises:
        ModelError: The model cannot be run.
    """
    survey = uniquely_named(find_layers(ready_to_cut(document)))[0]
    observed = observe(survey, feed)
    trace, groups = trace_channels(survey.model, observed, RULES)
    work = {
        part.view.home.name: macs.get(site.layer.name)
        for site in survey.sites
        for part in site.parts
    }
    rows = [_row(one, observed.shapes, work) for one in coupled(trace, groups)]
    rows.sort(key=lambda row: -row.parameters)
    kept = tuple(StaysRow(reason=why, groups=count) for why, count in stays(groups).items())
    return tuple(rows), kept


def _row(
    one: Coupled, shapes: Mapping[str, tuple[int, ...]], work: Mapping[str, float | None]
) -> CoupledRow:
    parameters, macs, known = 0, 0.0, False
    for name in {name for name, _ in one.places}:
        shape = shapes[name]
        lost = 1.0 - float(
            np.prod([1 - one.entries[p] / shape[p[1]] for p in one.places if p[0] == name])
        )
        parameters += round(lost * int(np.prod(shape, dtype=np.int64)))
        layer = work.get(name)
        if layer is not None:
            macs, known = macs + lost * layer, True
    members = [
        GroupMember(
            constant=name, axis=axis, entries=one.entries[name, axis], size=shapes[name][axis]
        )
        for name, axis in one.places
    ]
    members.sort(key=lambda member: -int(np.prod(shapes[member.constant], dtype=np.int64)))
    return CoupledRow(
        groups=len(one.roots),
        members=tuple(members),
        parameters=parameters,
        macs=macs if known else None,
    )
