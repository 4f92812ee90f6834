"""Pruning to a budget on one screen: measure, find what each layer's loss costs, allocate, choose.

Every layer gets a ladder: what it loses when it keeps less (`fields`, beside this file). What a
loss is worth differs from layer to layer: each layer is pruned alone once, and the distance of the
model's outputs to the dense ones, divided by the layer's own loss, is its exchange rate. Then one
price for what the budget counts decides how much every layer keeps
(`onnx_relief.selection.allocate`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_relief.agreement import followers
from onnx_relief.analysis import Points
from onnx_relief.budgeting.fields import Choice, Field, Rung
from onnx_relief.budgeting.gather import gather_fields
from onnx_relief.budgeting.shared import shared_field
from onnx_relief.comparing.divergence import (
    FEW,
    TRIED_AT,
    Divergence,
    exchange_rate,
    noise_to_signal,
    open_probe,
)
from onnx_relief.data import Dataset
from onnx_relief.data.held_out import held_out
from onnx_relief.errors import SettingsError, UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.graph.follow import UnitFlow
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.mask import mask
from onnx_relief.graph.rows import write_rows
from onnx_relief.graph.sites import Site
from onnx_relief.graph.walk import TensorHome
from onnx_relief.measuring.measure import Measurement
from onnx_relief.measuring.second_moments import SecondMoments
from onnx_relief.plan import LayerPlan, PrunePlan
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.selection.allocate import Ladder, allocate, uniform
from onnx_relief.selection.coverage import keep_covering_set
from onnx_relief.settings import Scope, Settings
from onnx_relief.structures import Pattern

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Fields:
    """The layers that share a budget.

    Attributes:
        survey: The dense model.
        flows: Where the units of every layer go.
        fields: One per weight that several layers do not share otherwise.
        left_alone: Layers whose weights stay, and why.
        positions: By layer, how often its weights are applied per sample.
    """

    survey: Survey
    flows: Mapping[str, UnitFlow]
    fields: tuple[Field, ...]
    left_alone: Mapping[str, str]
    positions: Mapping[str, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Priced:
    """Fields with what their losses are worth.

    Attributes:
        fields: The layers.
        ladders: By field; prices are those of single weights.
    """

    fields: Fields
    ladders: tuple[Ladder, ...]

    @property
    def whole(self) -> float:
        """Weights that may go, those that are zero already included."""
        return sum(field.blocks * field.weights_per_block for field in self.fields.fields)


def survey_fields(
    survey: Survey,
    flows: Mapping[str, UnitFlow],
    sites: Sequence[Site],
    measured: Measurement,
    calibration: Dataset,
    settings: Settings,
    *,
    known: SecondMoments | None = None,
    progress: Progress | None = None,
) -> Fields:
    """Return what is known of the weights of `sites` for the criterion that the settings name.

    Second moments that are `known` are not measured again.

    Raises:
        UnsupportedError: No layer divides into the blocks that are asked for.
        DataError, ModelError: The model cannot be run on the data.
    """
    gathered = gather_fields(
        survey, sites, measured, calibration, settings, known=known, progress=progress
    )
    left: dict[str, str] = {}
    chosen = {site.layer.name for site in sites}
    chosen |= followers(survey, sites, measured.unobserved)
    taken = {
        part.view.home
        for site in survey.sites
        if site.layer.name not in chosen
        for part in site.parts
    }
    reading: dict[TensorHome, list[Field]] = defaultdict(list)
    for field in gathered:
        home = field.site.parts[field.part].view.home
        reading[home].append(field)
        odd = settings.structure.why_not(field.shape)
        if odd:
            left[field.site.layer.name] = odd
            taken.add(home)  # nor may a layer prune it that shares it, and reads it another way
    found = [shared_field(fields) for home, fields in reading.items() if home not in taken]
    if not found and not left:
        raise UnsupportedError(f"{survey.document.name} has no weight that may go")
    if not found:
        raise UnsupportedError(
            f"{survey.document.name} has no layer that divides into {settings.structure} "
            f"({next(iter(left.values()))}); choose another --granularity"
        )
    positions = {name: activity.positions for name, activity in measured.activities.items()}
    return Fields(
        survey=survey, flows=flows, fields=tuple(found), left_alone=left, positions=positions
    )


def priced(
    fields: Fields, calibration: Dataset, settings: Settings, *, progress: Progress | None = None
) -> Priced:
    """Return the ladders of all fields, in the model's own loss where the scope is global.

    Where every layer keeps the same share, losses decide nothing and are not looked at.
    """
    if settings.scope is Scope.LAYER or settings.has_exact_share:
        flat = [_ladder(field, np.ones(1), np.zeros(1)) for field in fields.fields]
        return Priced(fields=fields, ladders=tuple(flat))
    probe, table = None, dict(settings.sensitivity)
    if not table:
        # Where no output holds floats, all layers count the same.
        probe = open_probe(
            fields.survey.document,
            held_out(calibration, settings.samples).judge.take(FEW),
            batch_size=settings.batch_size,
            memory=settings.memory,
            provider=settings.provider,
        )
    tick = ticker(progress, "trying every layer alone", len(fields.fields))
    rates = dict[Field, float]()
    losses = dict[Field, tuple[Floats, Floats]]()
    for field in fields.fields:
        rungs = list(field.ladder())
        if probe is not None:
            rate = _tried(fields, field, rungs, probe)
            rates |= {} if rate is None else {field: rate}
        lost = noise_to_signal(np.array([rung.loss for rung in rungs]))
        losses[field] = np.array([rung.share for rung in rungs]), lost
        tick(1)
    usual = float(np.median(list(rates.values()) or [1.0]))
    ladders = []
    for field, (shares, lost) in losses.items():
        worth = np.full(1, rates.get(field, usual))
        if table:
            worth = _rates(fields, field, table, shares, lost)
        ladders.append(_ladder(field, shares, np.maximum.accumulate(lost * worth)))
    return Priced(fields=fields, ladders=tuple(ladders))


def _tried(fields: Fields, field: Field, rungs: Sequence[Rung], probe: Divergence) -> float | None:
    """Return what the loss of a layer is worth to the model, by cutting it alone.

    None where nothing shows that: it loses nothing, or it is in a body that is never entered on the
    samples of the probe.
    """
    losing = [rung for rung in rungs if rung.loss > 0 and rung.choice is not None]
    rung = min(losing, key=_farness, default=None)
    if rung is None or rung.choice is None:
        return None
    distance = probe.of(written(fields, {field: rung.choice}))
    if distance == 0 and field.site.scope.parent is not None:
        return None
    return exchange_rate(distance, float(noise_to_signal(np.array([rung.loss]))[0]))


def _ladder(field: Field, shares: Floats, losses: Floats) -> Ladder:
    """Return a field's ladder over the blocks that are not zero already: the others are free."""
    filled = field.filled / field.blocks
    if filled < 1:
        below = shares < filled
        shares = np.concatenate([np.ones(1), shares[below] / filled])
        losses = np.concatenate([np.zeros(1), losses[below]])
    return Ladder(
        shares=shares,
        losses=losses,
        blocks=field.filled,
        price=field.weights_per_block,
        least=field.least,
    )


def choose(
    prices: Priced,
    budget: float,
    settings: Settings,
    *,
    weigh: Callable[[Field], float] | None = None,
    progress: Progress | None = None,
) -> dict[Field, Choice]:
    """Return what every field keeps, so that what is kept costs `budget` at most.

    Args:
        prices: The fields and their ladders.
        budget: What all kept weights may cost together.
        settings: Whether one share serves all layers.
        weigh: What one weight of a field costs; 1 by default.
        progress: Told how far the work has come.
    """
    fields = prices.fields.fields
    ladders = [
        replace(ladder, price=ladder.price * (weigh(field) if weigh else 1.0))
        for ladder, field in zip(prices.ladders, fields, strict=True)
    ]
    spread = uniform if settings.scope is Scope.LAYER else allocate
    counts = spread(ladders, budget)
    tick = ticker(progress, "choosing connections", len(fields))
    choices = {}
    for field, count, ladder in zip(fields, counts, ladders, strict=True):
        choices[field] = field.choose(count if count < ladder.blocks else field.blocks)
        tick(1)
    return choices


def cover(fields: Fields, settings: Settings) -> dict[Field, Choice]:
    """Return what every field keeps to hold the share alpha of each band of units."""
    choices = {}
    for field in fields.fields:
        scores = field.scores()
        structure = field.structure
        pooled = structure.pooled(scores)
        rows = pooled.T if structure.pattern is Pattern.ROW else pooled
        kept = keep_covering_set(rows, settings.alpha_for(field.site.layer))
        kept = np.asarray(kept.T if structure.pattern is Pattern.ROW else kept)
        if structure.pattern is Pattern.ROW and field.whole:
            kept = np.ones_like(kept)
        choices[field] = field.choose_covering(structure.spread(kept, scores.shape))
    return choices


def plan_of(fields: Fields, choices: Mapping[Field, Choice]) -> PrunePlan:
    """Return the choices as a plan; a layer that shares a weight keeps what was chosen for it."""
    stored = {}
    for field, choice in choices.items():
        part = field.site.parts[field.part]
        rows = np.broadcast_to(choice.keep, part.layout.rows)
        stored[part.view.home] = part.view.as_stored(part.layout.from_rows(rows, part.view.shape))
    whole = {
        field.site.parts[field.part].view.home: c.keep.shape[2] for field, c in choices.items()
    }
    plans = []
    for site in fields.survey.sites:
        if not any(part.view.home in stored for part in site.parts):
            continue
        keeps = []
        for part in site.parts:
            kept = np.ones(part.layout.rows, dtype=bool)
            if part.view.home in stored:
                kept = part.layout.to_rows(part.view.as_seen(stored[part.view.home]))
                if whole[part.view.home] == 1:
                    kept = np.asarray(kept.any(axis=2, keepdims=True))
            keeps.append(kept)
        share = sum(int(k.sum()) for k in keeps) / sum(k.size for k in keeps)
        layer = site.layer
        plans.append(
            LayerPlan(
                layer=layer.name,
                alpha=max(share, 1e-9),
                keep=tuple(keeps),
                keep_bias=np.ones((layer.units, layer.bias.count if layer.bias else 0), dtype=bool),
                removed=np.zeros(layer.units, dtype=bool),
            )
        )
    return PrunePlan(layers=tuple(plans))


def written(fields: Fields, choices: Mapping[Field, Choice]) -> Document:
    """Return the model with the choices applied: zeros, and new weights where there are some."""
    document = mask(fields.survey, plan_of(fields, choices), fields.flows)
    weights = {f.site.layer.name: c.weights for f, c in choices.items() if c.weights is not None}
    shifts = {f.site.layer.name: c.shift for f, c in choices.items() if c.shift is not None}
    return write_rows(document, fields.survey, weights, shifts) if weights else document


def _rates(
    fields: Fields, field: Field, table: Mapping[str, Points], shares: Floats, losses: Floats
) -> Floats:
    """Return what losses at some shares are worth, from what was measured at a few of them.

    Args:
        fields: All layers that share the budget.
        field: One of them.
        table: By layer, (share that goes, what the model loses).
        shares: Shares that stay, falling.
        losses: What the field itself loses there.

    Raises:
        SettingsError: Nothing was measured of the layer.
    """
    name = field.site.layer.name
    if name not in table:
        raise SettingsError(
            f"--sensitivity does not know layer {name!r}; analyze it, too, or leave it alone with "
            "--skip"
        )
    parts = [one.blocks * one.weights_per_block for one in fields.fields if one.site is field.site]
    part = field.blocks * field.weights_per_block / sum(parts)
    kept, rates = list[float](), list[float]()
    for gone, lost in table[name]:
        own = float(np.interp(1 - gone, shares[::-1], losses[::-1]))
        if own > 0:
            kept.append(1 - gone)
            rates.append(exchange_rate(lost * part, own))
    if not rates:
        return np.ones(1)
    order = np.argsort(kept)
    return np.asarray(np.interp(shares, np.array(kept)[order], np.array(rates)[order]))


def _farness(rung: Rung) -> float:
    return abs(float(np.log(rung.loss / TRIED_AT)))
