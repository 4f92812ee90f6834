"""What coupled channels are worth to the layers that read them, in an order and on a ladder.

All axes in which the same channels live are one kind. Of every kind a ladder says what its readers
lose when so many channels are left; each kind cut alone once tells what that loss is worth to the
model's own outputs, so that kinds compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_relief.budgeting.fields import Field
from onnx_relief.budgeting.gather import gather_fields
from onnx_relief.channels.consumers import Consumer, Kinds, sites_of
from onnx_relief.channels.meetings import said_to_weights, said_together
from onnx_relief.comparing.divergence import (
    FEW,
    TRIED_AT,
    exchange_rate,
    noise_to_signal,
    open_probe,
)
from onnx_relief.data import Dataset
from onnx_relief.data.held_out import held_out
from onnx_relief.graph.channels import Groups, Trace, cut
from onnx_relief.graph.channels.mean_signal import Correction, give_back, has_room
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.rows import write_rows
from onnx_relief.measuring.measure import Measurement
from onnx_relief.measuring.second_moments import SecondMoments
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.settings import Settings
from onnx_relief.solving.structured import Elimination, Reader, eliminate
from onnx_relief.solving.support import fit_on_support

Floats = NDArray[np.float64]

FREE = 1e-9
"""The price of a group of which a target counts nothing."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """One layer that reads channels through one of its weights.

    Attributes:
        field: The weight, and what is known of it.
        node: Index of its node.
        roots: Group of every input channel, (groups * inputs,).
    """

    field: Field
    node: int
    roots: NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Worth:
    """What all groups are worth.

    Attributes:
        scores: By root; the lowest of a kind goes first.
        losses: By kind, what is lost after so many of its groups have gone, (groups + 1,), in the
            same unit for all kinds.
        readings: Who reads channels.
    """

    scores: Floats
    losses: Mapping[object, Floats]
    readings: tuple[Reading, ...]


def worth_of(
    survey: Survey,
    trace: Trace,
    groups: Groups,
    kinds: Kinds,
    consumers: Sequence[Consumer],
    measured: Measurement,
    known: SecondMoments,
    calibration: Dataset,
    settings: Settings,
    *,
    compare: bool,
    progress: Progress | None = None,
) -> Worth:
    """Return what the groups of every kind are worth.

    Args:
        survey: The dense model.
        trace: Its channels.
        groups: Which live or die together.
        kinds: Roots of the groups of each kind.
        consumers: The layers that read them.
        measured: Activity of the layers.
        known: Second moments that were measured with it.
        calibration: Sample data.
        settings: The criterion, and how to run.
        compare: Whether kinds have to compare with each other.
        progress: Told how far the work has come.

    Raises:
        DataError, ModelError: The model cannot be run on the data.
    """
    seen = [one for one in consumers if one.site.layer.name in measured.activities]
    fields = gather_fields(
        survey, sites_of(seen), measured, calibration, settings, known=known, progress=progress
    )
    by_place = {(field.site.layer.name, field.part): field for field in fields}
    readings = [
        Reading(field=by_place[one.site.layer.name, one.part], node=one.node, roots=one.roots)
        for one in seen
    ]
    probe = None
    if compare:
        # Where no output holds floats, all kinds count the same.
        probe = open_probe(
            survey.document,
            held_out(calibration, settings.samples).judge.take(FEW),
            batch_size=settings.batch_size,
            memory=settings.memory,
            provider=settings.provider,
        )
    scores = np.zeros(trace.pool.size)
    losses: dict[object, Floats] = {}
    concern = {
        kind: [one for one in readings if np.isin(one.roots, roots).any()]
        for kind, roots in kinds.items()
    }
    met = said_together(survey, trace, groups, calibration, settings)
    met += said_to_weights(survey, trace, groups, calibration, settings)
    tick = ticker(progress, "trying every kind of channels alone", len(kinds))
    for kind, roots in kinds.items():
        concerned = concern[kind]
        said = met[roots] / (met[roots].sum() or 1.0)
        found = _eliminated(concerned, roots, said) if concerned else _in_line(said)
        scores[roots[found.order]] = np.arange(1, roots.size + 1)
        # Losses are sums over readers, of which none can lose more than all it says.
        several = max(len(concerned) + int(said.any()), 1)
        shares = np.maximum.accumulate(found.losses) / several
        rate, worse = 1.0, noise_to_signal(shares) * several
        lost = float(worse[found.probe])
        if probe is not None and found.probe and lost > 0:
            gone = np.zeros(trace.pool.size, dtype=bool)
            gone[roots[found.order[: found.probe]]] = True
            alone = _without(survey, trace, concerned, gone, found.probed)
            if said.any() or not concerned:
                alone = cut(alone, trace, groups, gone)
            rate = exchange_rate(probe.of(alone), lost)
        losses[kind] = worse * rate
        tick(1)
    return Worth(scores=scores, losses=losses, readings=tuple(readings))


def group_prices(
    survey: Survey,
    trace: Trace,
    groups: Groups,
    kinds: Kinds,
    positions: Mapping[str, float] | None,
) -> dict[object, float]:
    """Return by kind how many weights of layers one group takes part in, or how much work.

    Args:
        survey: The dense model.
        trace: Its channels.
        groups: Which live or die together.
        kinds: Roots of the groups of each kind.
        positions: How often each layer's weights are applied per sample; None for weights.

    Returns:
        By kind; `FREE` where no layer has its channels.
    """
    per_weight: dict[str, tuple[int, float]] = {}
    for site in survey.sites:
        times = 0.0 if positions is None else positions.get(site.layer.name, 0.0)
        for part in site.parts:  # a weight that several layers share works in each
            _, before = per_weight.get(part.view.home.name, (0, 0.0))
            per_weight[part.view.home.name] = (part.view.size, before + times)
    cost = np.zeros(trace.pool.size)
    axes = {}  # once, however many layers read it
    for member in trace.members:
        ids = groups.of(member.ids).reshape(-1)
        axes[member.constant, member.axis, ids.tobytes()] = ids
    for (constant, *_), ids in axes.items():
        size, times = per_weight.get(constant, (0, 0.0))
        work = size if positions is None else size * times
        np.add.at(cost, ids, work / max(ids.size, 1))
    return {kind: max(float(cost[roots].mean()), FREE) for kind, roots in kinds.items()}


def made_up(
    worth: Worth, groups_gone: NDArray[np.bool_], document: Document, survey: Survey
) -> tuple[Document, list[Correction]]:
    """Return the model whose readers make up for groups that go, and what their biases get.

    Args:
        worth: Who reads channels.
        groups_gone: Whether a group goes, by root.
        document: The dense model.
        survey: Its layers.
    """
    weights: dict[str, Floats] = {}
    changes = []
    for reading in worth.readings:
        field = reading.field
        lost = groups_gone[reading.roots]
        if not lost.any() or not field.updates or field.gram is None or field.reading is None:
            continue
        moment = field.moment(centred=has_room(field.site))
        split = field.split()
        keep = np.broadcast_to(_columns_kept(field, lost), split.shape) & (split != 0)
        fitted = fit_on_support(moment, np.matmul(split, moment), keep)
        name = field.site.layer.name
        weights[name] = np.asarray(field.joined(fitted), dtype=np.float64)
        shift = field.shift(split, fitted)
        if shift.any() and has_room(field.site):
            changes.append(Correction(field.site, reading.node, shift))
    return write_rows(document, survey, weights, {}), changes


def _in_line(shares: Floats) -> Elimination:
    """Return the order of groups that no layer reads, by what they say where they meet others.

    Where nothing tells them apart but the whole model's outputs, each is taken for one share of
    all, in the order of the file.
    """
    shares = shares if shares.any() else np.ones(shares.size)
    order = np.argsort(shares, kind="stable")
    losses = np.concatenate([[0.0], np.cumsum(shares[order])]) / shares.sum()
    return Elimination(order=order, losses=losses, probe=_nearest(losses), probed=())


def _nearest(losses: Floats) -> int:
    """Return how many groups have gone where about as much is lost as a part is tried at."""
    return 1 + int(np.argmin(np.abs(np.log(np.maximum(losses[1:], 1e-12) / TRIED_AT))))


def _eliminated(readings: Sequence[Reading], roots: NDArray[np.int64], said: Floats) -> Elimination:
    """Return in which order the groups of one kind go, by number in `roots`.

    Where they meet others besides, `said` is what share each has of it. Of weights, rows are
    returned: (units, inputs, taps).
    """
    if all(one.field.solves and one.field.updates for one in readings):
        readers = [_reader(one, roots) for one in readings]
        solved = eliminate(readers, roots.size, near=TRIED_AT, besides=said)
        joined = [
            np.asarray(one.field.joined(weights), dtype=np.float64)
            for one, weights in zip(readings, solved.probed, strict=True)
        ]
        return replace(solved, probed=tuple(joined))
    shares = said.copy()
    for one in readings:
        found = _channel_shares(one)
        shares += np.array([found[one.roots == root].sum() for root in roots])
    order = np.argsort(shares, kind="stable")
    losses = np.concatenate([[0.0], np.cumsum(shares[order])])
    probe = _nearest(losses)
    probed = []
    for one in readings:
        rows = one.field.rows()
        lost = np.isin(one.roots, roots[order[:probe]])
        weight = one.field.site.layer.weights[one.field.part]
        by_group = lost.reshape(weight.groups, 1, weight.inputs, 1)
        kept = np.where(by_group, 0.0, rows.reshape(weight.groups, -1, *rows.shape[1:]))
        probed.append(kept.reshape(rows.shape))
    return Elimination(order=order, losses=losses, probe=probe, probed=tuple(probed))


def _reader(reading: Reading, roots: NDArray[np.int64]) -> Reader:
    field = reading.field
    moment = field.moment(centred=has_room(field.site))
    columns = _column_numbers(field)
    places = [np.flatnonzero(reading.roots == root) for root in roots]
    return Reader(
        moment=moment,
        weights=field.split(),
        columns=[columns[place].reshape(-1) for place in places],
    )


def _column_numbers(field: Field) -> NDArray[np.int64]:
    """Return the columns that every input channel feeds, (channels, taps), through all blocks."""
    weight = field.site.layer.weights[field.part]
    # Blocks hold whole channels of a group, one after the other.
    return np.arange(weight.groups * field.shape[1] * field.shape[2]).reshape(-1, field.shape[2])


def _columns_kept(field: Field, lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which columns stay, (blocks, 1, entries)."""
    assert field.reading is not None
    kept = np.repeat(~lost, field.shape[2])
    return kept.reshape(field.reading.groups * field.reading.blocks, 1, -1)


def _without(
    survey: Survey,
    trace: Trace,
    readings: Sequence[Reading],
    gone: NDArray[np.bool_],
    probed: Sequence[Floats],
) -> Document:
    """Return the model whose readers no longer read some groups, and make up for them as later."""
    weights: dict[str, Floats] = {}
    changes = []
    for reading, rows in zip(readings, probed, strict=True):
        field = reading.field
        if field.part or not gone[reading.roots].any():
            continue
        weights[field.site.layer.name] = rows
        if field.solves and field.updates and has_room(field.site):
            assert field.reading is not None
            left = field.reading.split(rows.reshape(len(rows), -1))
            changes.append(Correction(field.site, reading.node, field.shift(field.split(), left)))
    document = write_rows(survey.document, survey, weights, {})
    # A bias that is new here is none of the model's.
    aside = replace(trace, members=list(trace.members), taken=list(trace.taken))
    return give_back(document, aside, changes)


def _channel_shares(reading: Reading) -> Floats:
    """Return for every input channel the mean share of the units that read it."""
    scores = reading.field.scores().sum(axis=2)
    weight = reading.field.site.layer.weights[reading.field.part]
    by_input = scores.reshape(weight.groups, -1, weight.inputs)
    return np.asarray(by_input.mean(axis=1).reshape(-1) / weight.groups)
