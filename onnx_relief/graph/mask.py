"""Apply a plan: exact zeros in place, in a copy of the user's document, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document
from onnx_relief.graph.follow import UnitFlow
from onnx_relief.graph.held import tensor_in
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.rewrite import write_out
from onnx_relief.graph.sites import Part, Site
from onnx_relief.graph.storage import drop_sparse_entries, write_entries
from onnx_relief.graph.walk import Holder, TensorHome, constants_by_home
from onnx_relief.plan import LayerPlan, PrunePlan


@dataclass(frozen=True, eq=False)
class _Zeros:
    """Stored elements that become zero: their places, and what reads as zero there."""

    places: NDArray[np.int64]
    values: NDArray[np.generic]


def mask(survey: Survey, plan: PrunePlan, flows: Mapping[str, UnitFlow]) -> Document:
    """Return a copy of the document whose dropped connections, biases and units are zero.

    A weight that several layers share keeps what any of them keeps.

    Raises:
        SettingsError: The plan was made for another model.
    """
    _check(survey, plan, flows)
    document = survey.document.copy()
    homes = constants_by_home(document.proto)
    for home, part, kept in _kept_places(survey, plan, flows):
        zeros = _zeros(part, kept)
        if zeros.places.size:
            document = _write(document, homes[home], part, zeros)
    return document


def kept_elements(
    survey: Survey, plan: PrunePlan, flows: Mapping[str, UnitFlow]
) -> dict[TensorHome, NDArray[np.bool_]]:
    """Return what `mask` leaves of stored tensors that lose elements: flat, True where it stays.

    Raises:
        SettingsError: The plan was made for another model.
    """
    _check(survey, plan, flows)
    found: dict[TensorHome, NDArray[np.bool_]] = {}
    for home, part, kept in _kept_places(survey, plan, flows):
        stays = np.ones(kept.size, dtype=bool)
        stays[_zeros(part, kept).places] = False
        found[home] = stays
    return found


def nonzero_elements(survey: Survey) -> dict[TensorHome, NDArray[np.bool_]]:
    """Return which stored elements of a masked model's weights and biases are not zero, flat.

    A bias of zeros alone is no result of pruning but a fresh one, so it may grow again, except at
    units whose weights are all zero.
    """
    found: dict[TensorHome, NDArray[np.bool_]] = {}
    for site in survey.sites:
        weights = [survey.rows(part) != 0 for part in site.parts]
        alive = np.logical_or.reduce([rows.any(axis=(1, 2)) for rows in weights])
        stays = list(zip(site.parts, weights, strict=True))
        if site.bias:
            rows = survey.rows(site.bias) != 0
            stays.append((site.bias, rows if rows.any() else alive[:, None]))
        for part, rows in stays:
            kept = part.view.as_stored(_as_seen(part, rows))
            found[part.view.home] = found.get(part.view.home, False) | kept
    apart = survey.constants.apart
    stored = {one: own for home, kept in found.items() for one, own in apart(home, kept)}
    return {home: own.reshape(-1) for home, own in stored.items() if not own.all()}


def _check(survey: Survey, plan: PrunePlan, flows: Mapping[str, UnitFlow]) -> None:
    for entry in plan:
        site = survey.by_name.get(entry.layer)
        if site is None:
            raise SettingsError(
                f"the plan names a layer {entry.layer!r} that this model does not have; "
                "use it with the model it was made for"
            )
        if not _fits(entry, site):
            raise SettingsError(
                f"the plan's masks do not fit layer {entry.layer!r} of this model; "
                "use it with the model it was made for"
            )
        flow = flows[entry.layer]
        names = flow.normalisation_names if entry.removed.any() else ()
        if entry.normalisation != names or (entry.removed.any() and flow.blocked):
            raise SettingsError(
                f"the plan removes units of layer {entry.layer!r} that lead elsewhere in this "
                "model; use it with the model it was made for"
            )


def _fits(entry: LayerPlan, site: Site) -> bool:
    biases = site.layer.bias.count if site.layer.bias else 0
    return (
        entry.removed.shape == (site.layer.units,)
        and entry.keep_bias.shape == (site.layer.units, biases)
        and len(entry.keep) == len(site.parts)
        and all(
            keep.shape[:2] == part.layout.rows[:2] and keep.shape[2] in (1, part.layout.rows[2])
            for keep, part in zip(entry.keep, site.parts, strict=True)
        )
    )


def _kept_places(
    survey: Survey, plan: PrunePlan, flows: Mapping[str, UnitFlow]
) -> Iterator[tuple[TensorHome, Part, NDArray[np.bool_]]]:
    """Yield stored tensors that lose elements, a part that shows each, and what stays, flat."""
    wishes: dict[TensorHome, list[tuple[Part, NDArray[np.bool_]]]] = defaultdict(list)
    for site in survey.sites:
        entry = plan.for_layer(site.layer.name)
        for part, rows in _wishes(site, entry, flows[site.layer.name]):
            wishes[part.view.home].append((part, rows))
    for home, entries in wishes.items():
        if any(not rows.all() for _, rows in entries):
            seen = [(part.view, _as_seen(part, rows)) for part, rows in entries]
            kept = np.logical_or.reduce([view.as_stored(mask) for view, mask in seen])
            for one, own in survey.constants.apart(home, kept):
                yield one, entries[0][0], own.reshape(-1)


def _as_seen(part: Part, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return part.layout.from_rows(np.broadcast_to(rows, part.layout.rows), part.view.shape)


def _wishes(
    site: Site, entry: LayerPlan | None, flow: UnitFlow
) -> list[tuple[Part, NDArray[np.bool_]]]:
    """Return what a layer wants to keep of each of its tensors; a layer without a plan, all."""
    if entry is None:
        everything = np.ones((), dtype=bool)
        return [(part, np.broadcast_to(everything, part.layout.rows)) for part in site.tensors]
    wishes = list(zip(site.parts, entry.keep, strict=True))
    if site.bias:
        wishes.append((site.bias, entry.keep_bias))
    if entry.removed.any():
        wishes += [(part, ~entry.removed[:, None]) for part in flow.normalisation]
    return wishes


def _zeros(part: Part, kept: NDArray[np.bool_]) -> _Zeros:
    if part.view.zero.ndim == 0:
        return _Zeros(np.flatnonzero(~kept), part.view.zero)
    places = part.view.places().reshape(-1)
    dropped = ~kept[places]
    return _Zeros(places[dropped], part.view.zero.reshape(-1)[dropped])


def _write(document: Document, holder: Holder, part: Part, zeros: _Zeros) -> Document:
    """Write the zeros where the constant keeps its data, in the field that it uses."""
    kept: Holder | None = holder
    if isinstance(holder, onnx.NodeProto):
        if holder.op_type == "ConstantOfShape":
            write_out(holder, part.view.stored_shape)
        kept = tensor_in(holder)
        if kept is None:
            _write_attribute(holder.attribute[0], zeros.places)
    if isinstance(kept, onnx.SparseTensorProto):
        drop_sparse_entries(kept, zeros.places)
    elif isinstance(kept, onnx.TensorProto):
        for value in np.unique(zeros.values):
            here = ... if zeros.values.ndim == 0 else zeros.values == value
            document = write_entries(document, kept, zeros.places[here], value.item())
    return document


def _write_attribute(attribute: onnx.AttributeProto, places: NDArray[np.int64]) -> None:
    """Write zeros into `value_float` or `value_floats` of a Constant."""
    if attribute.name == "value_float":
        attribute.f = 0.0
    for place in places.tolist() if attribute.name == "value_floats" else ():
        attribute.floats[place] = 0.0
