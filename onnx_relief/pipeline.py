"""The method on one screen: measure, score, keep what carries the signal, mask.

Source: "Neural network relief", arXiv 2109.10795, algorithm 1, with selection by rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnx_relief.agreement import (
    agree_on_shared_weights,
    followers,
    held_by_others,
    no_wish,
    outlooks,
)
from onnx_relief.budget import Budget
from onnx_relief.budgeting.spending import Fields, priced, survey_fields
from onnx_relief.budgeting.targets import AS_IT_IS, Judged, prune_to
from onnx_relief.data import Dataset
from onnx_relief.decide import Scores, score, select
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.graph.follow import UnitFlow, follow_units
from onnx_relief.graph.layers import Survey, find_layers, require_layers
from onnx_relief.graph.mask import mask
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.measure import Measurement, full_batches, measure
from onnx_relief.measuring.second_moments import SecondMoments, measure_at_once
from onnx_relief.plan import LayerPlan, PrunePlan
from onnx_relief.progress import ticker
from onnx_relief.results import Progress, RepairRow
from onnx_relief.selection.units import remove_units
from onnx_relief.settings import Settings


@dataclass(frozen=True, eq=False, kw_only=True)
class Pruned:
    """What `prune` found, decided and made.

    Attributes:
        survey: The dense model and its layers.
        document: The masked model.
        plan: What was kept.
        flows: Where the units of every layer go.
        scores: By layer, those that decided; empty where they were not wanted or a plan was
            replayed.
        measurement: What the data showed; None where a plan was replayed.
        left_alone: Layers without a plan, and why, in words.
        missed: What was asked and not reached, in words; None where all is well.
        repair: How the repair turned out; None where none was asked for.
    """

    survey: Survey
    document: Document
    plan: PrunePlan
    flows: Mapping[str, UnitFlow]
    scores: Mapping[str, Scores]
    measurement: Measurement | None
    left_alone: Mapping[str, str]
    missed: str | None = None
    repair: RepairRow | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Seen:
    """What is known of a model before anything of it is chosen.

    Attributes:
        survey: The dense model and its layers.
        sites: The layers to prune.
        measured: What the data showed of them.
        moments: Second moments of what they read, as far as they were measured on the way.
        flows: Where the units of every layer go.
        left_alone: The other layers, and why, in words.
    """

    survey: Survey
    sites: Sequence[Site]
    measured: Measurement
    moments: SecondMoments
    flows: Mapping[str, UnitFlow]
    left_alone: Mapping[str, str]


def prune(
    document: Document,
    calibration: Dataset,
    settings: Settings,
    *,
    progress: Progress | None = None,
    dump: Path | None = None,
    keep_scores: bool = True,
    judged: Judged = AS_IT_IS,
) -> Pruned:
    """Return a masked copy of `document` that keeps, per unit, the share alpha of its signal.

    With another criterion, another structure or a budget, it keeps what these say instead.

    Args:
        document: The dense model; it is not changed.
        calibration: Sample data; only the criterion `taylor` looks at labels, where there are any.
        settings: What to prune, and how much.
        progress: Told how far the work has come.
        dump: Folder that raw layer inputs are written to.
        keep_scores: Whether to return the scores, which take twice the memory of the weights; `obs`
            inverts one matrix more for those of each layer.
        judged: How the masked model is repaired, and judged where the budget is a drop.

    Raises:
        UnsupportedError: The model has no layer that can be pruned, or none was asked for.
        DataError, ModelError, SettingsError: The data, the model or a pattern is no good.
    """
    seen = look(document, calibration, settings, signals=False, progress=progress, dump=dump)
    missed, scores = None, dict[str, Scores]()
    if settings.covers:
        plan = _cover(seen, settings, progress)
        masked = judged.finish(mask(seen.survey, plan, seen.flows), plan)
        if keep_scores:
            activity = seen.measured.activities
            scores = {
                s.layer.name: score(seen.survey, s, activity[s.layer.name]) for s in seen.sites
            }
    else:
        fields = fields_of(seen, calibration, settings, progress=progress)
        seen = replace(seen, left_alone={**seen.left_alone, **fields.left_alone})
        chosen = prune_to(fields, calibration, settings, judged=judged, progress=progress)
        plan, masked, missed = chosen.plan, chosen.document, chosen.missed
        if keep_scores:
            scores = _scores_of(fields)
    return _pruned(seen, masked, plan, missed, scores)


def prune_each(
    document: Document,
    calibration: Dataset,
    settings: Settings,
    budgets: Sequence[Budget],
    *,
    progress: Progress | None = None,
    judged: Judged = AS_IT_IS,
) -> Iterator[Pruned]:
    """Yield the model pruned to one budget after the other; measured and priced once for all.

    Arguments and errors as `prune`; the settings' own budget does not count.
    """
    seen = look(document, calibration, settings, signals=False, progress=progress)
    fields = fields_of(seen, calibration, settings, progress=progress)
    seen = replace(seen, left_alone={**seen.left_alone, **fields.left_alone})
    prices = priced(fields, calibration, settings, progress=progress)
    for budget in budgets:
        chosen = prune_to(
            fields,
            calibration,
            replace(settings, budget=budget),
            judged=judged,
            prices=prices,
            progress=progress,
        )
        yield _pruned(seen, chosen.document, chosen.plan, chosen.missed, {})


def look(
    document: Document,
    calibration: Dataset,
    settings: Settings,
    *,
    signals: bool = True,
    progress: Progress | None = None,
    dump: Path | None = None,
) -> Seen:
    """Return the layers to prune and what the data shows of them.

    Without `signals`, those of the paper are not measured where the criterion does not look at
    them; the other arguments as `prune`.
    """
    survey = find_layers(document)
    sites, left_alone = _choose(survey, settings)
    samples = calibration.take(settings.samples)
    tick = ticker(progress, "measuring activity", samples.size)
    if dump is None:
        measured, moments = measure_at_once(
            survey, sites, calibration, settings, signals=signals, tick=tick
        )
    else:
        batches = full_batches(samples, settings.batch_size)
        measured = measure(survey, sites, batches, settings, tick=tick, dump=dump)
        moments = SecondMoments()
    sites = [site for site in sites if site.layer.name in measured.activities]
    following = followers(survey, sites, measured.unobserved)
    left_alone |= {n: why for n, why in measured.unobserved.items() if n not in following}
    left_alone |= held_by_others(survey, left_alone.keys())
    sites = [site for site in sites if site.layer.name not in left_alone]
    if not sites:
        name, reason = next(iter(left_alone.items()))
        raise UnsupportedError(
            f"{document.name} has no weight that may go: layers that are left alone read those of "
            f"the others, too ({name}: {reason})"
        )
    return Seen(
        survey=survey,
        sites=sites,
        measured=measured,
        moments=moments,
        flows=follow_units(survey),
        left_alone=left_alone,
    )


def fields_of(
    seen: Seen, calibration: Dataset, settings: Settings, *, progress: Progress | None = None
) -> Fields:
    """Return what the criterion needs to know of the layers, as `survey_fields`."""
    return survey_fields(
        seen.survey,
        seen.flows,
        seen.sites,
        seen.measured,
        calibration,
        settings,
        known=seen.moments,
        progress=progress,
    )


def replay(document: Document, plan: PrunePlan) -> Pruned:
    """Return `document` masked with a plan that was made before, to the same bytes.

    Raises:
        SettingsError: The plan was made for another model.
    """
    survey = find_layers(document)
    flows = follow_units(survey)
    return Pruned(
        survey=survey,
        document=mask(survey, plan, flows),
        plan=plan,
        flows=flows,
        scores={},
        measurement=None,
        left_alone={
            layer.name: "the plan does not name it"
            for layer in survey.layers
            if plan.for_layer(layer.name) is None
        },
    )


def _pruned(
    seen: Seen,
    masked: Document,
    plan: PrunePlan,
    missed: str | None,
    scores: Mapping[str, Scores],
) -> Pruned:
    return Pruned(
        survey=seen.survey,
        document=masked,
        plan=plan,
        flows=seen.flows,
        scores=scores,
        measurement=seen.measured,
        left_alone=seen.left_alone,
        missed=missed,
    )


def _scores_of(fields: Fields) -> dict[str, Scores]:
    """Return by layer what its criterion makes of it; biases are not scored."""
    found: dict[str, Scores] = {}
    for site in dict.fromkeys(field.site for field in fields.fields):
        own = {field.part: field.scores() for field in fields.fields if field.site is site}
        units = site.layer.units
        # A weight that is decided with another layer has no scores here.
        parts = (own.get(part, np.zeros((units, 0, 1))) for part in range(len(site.parts)))
        found[site.layer.name] = Scores(weights=tuple(parts), bias=np.zeros((units, 0)))
    return found


def _cover(seen: Seen, settings: Settings, progress: Progress | None) -> PrunePlan:
    """Keep, per unit, the share alpha of its signal, and no unit that is dead or unread."""
    survey, sites, activity = seen.survey, seen.sites, seen.measured.activities
    kept: dict[str, LayerPlan] = {}
    tick = ticker(progress, "choosing connections", sum(s.layer.connections for s in sites))
    for site in sites:
        layer = site.layer
        kept[layer.name] = select(survey, site, activity[layer.name], settings.alpha_for(layer))
        tick(layer.connections)
    for name in followers(survey, sites, seen.measured.unobserved):
        site = survey.by_name[name]
        kept[name] = no_wish(site, settings.alpha_for(site.layer))
    kept = agree_on_shared_weights(survey, kept)
    kept = remove_units(kept, outlooks(survey, seen.flows, activity))
    return PrunePlan(layers=tuple(kept.values()))


def _choose(survey: Survey, settings: Settings) -> tuple[list[Site], dict[str, str]]:
    """Return the layers to prune, and those that the user wants left alone."""
    require_layers(survey)
    settings.check_patterns(survey.layers)
    reasons_by_name = {layer.name: settings.leaves_out(layer) for layer in survey.layers}
    left_alone = {name: reason for name, reason in reasons_by_name.items() if reason}
    sites = [site for site in survey.sites if site.layer.name not in left_alone]
    if not sites:
        raise UnsupportedError("--only and --skip leave no layer to prune")
    return sites, left_alone
