"""The method on one screen: measure, score, keep what carries the signal, mask.

Source: "Neural network relief", arXiv 2109.10795, algorithm 1, with selection by rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_relief.agreement import agree_on_shared_weights, outlooks
from onnx_relief.budgeted import survey_fields
from onnx_relief.data import Dataset
from onnx_relief.decide import Scores, score, select
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.graph.follow import UnitFlow, follow_units
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.graph.sites import Site
from onnx_relief.measure import Measurement, full_batches, measure
from onnx_relief.plan import LayerPlan, PrunePlan
from onnx_relief.progress import ticker
from onnx_relief.results import Progress, RepairRow
from onnx_relief.selection.units import remove_units
from onnx_relief.settings import Settings
from onnx_relief.targets import AS_IT_IS, Judged, prune_to


@dataclass(frozen=True, eq=False, kw_only=True)
class Pruned:
    """What `prune` found, decided and made.

    Attributes:
        survey: The dense model and its layers.
        document: The masked model.
        plan: What was kept.
        flows: Where the units of every layer go.
        scores: By layer; empty where they were not wanted or a plan was replayed.
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
        calibration: Sample data; labels are not looked at.
        settings: What to prune, and how much.
        progress: Told how far the work has come.
        dump: Folder that raw layer inputs are written to.
        keep_scores: Whether to return the scores, which take twice the memory of the weights.
        judged: How the masked model is repaired, and judged where the budget is a drop.

    Raises:
        UnsupportedError: The model has no layer that can be pruned, or none was asked for.
        DataError, ModelError, SettingsError: The data, the model or a pattern is no good.
    """
    survey = find_layers(document)
    sites, left_alone = _choose(survey, settings)
    samples = calibration.take(settings.samples)
    tick = ticker(progress, "measuring activity", samples.size)
    batches = full_batches(samples, settings.batch_size)
    measured = measure(survey, sites, batches, settings, tick=tick, dump=dump)
    activity = measured.activities
    sites = [site for site in sites if site.layer.name in activity]
    flows = follow_units(survey)
    missed = None
    if settings.covers:
        plan = _cover(survey, sites, measured, flows, settings, progress)
        masked = judged.finish(mask(survey, plan, flows), plan)
    else:
        fields = survey_fields(
            survey, flows, sites, measured, calibration, settings, progress=progress
        )
        left_alone |= fields.left_alone
        chosen = prune_to(fields, calibration, settings, judged=judged, progress=progress)
        plan, masked, missed = chosen.plan, chosen.document, chosen.missed
    scored = sites if keep_scores else []
    return Pruned(
        survey=survey,
        document=masked,
        plan=plan,
        flows=flows,
        scores={s.layer.name: score(survey, s, activity[s.layer.name]) for s in scored},
        measurement=measured,
        left_alone=left_alone | dict(measured.unobserved),
        missed=missed,
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


def _cover(
    survey: Survey,
    sites: list[Site],
    measured: Measurement,
    flows: Mapping[str, UnitFlow],
    settings: Settings,
    progress: Progress | None,
) -> PrunePlan:
    """Keep, per unit, the share alpha of its signal, and no unit that is dead or unread."""
    activity = measured.activities
    kept: dict[str, LayerPlan] = {}
    tick = ticker(progress, "choosing connections", sum(s.layer.connections for s in sites))
    for site in sites:
        layer = site.layer
        kept[layer.name] = select(survey, site, activity[layer.name], settings.alpha_for(layer))
        tick(layer.connections)
    kept = agree_on_shared_weights(survey, kept)
    kept = remove_units(kept, outlooks(survey, flows, activity))
    return PrunePlan(layers=tuple(kept.values()))


def _choose(survey: Survey, settings: Settings) -> tuple[list[Site], dict[str, str]]:
    """Return the layers to prune, and those that the user wants left alone."""
    if not survey.sites:
        reasons = "; ".join(f"{r.op} {r.node!r}: {r.reason}" for r in survey.refusals[:3])
        raise UnsupportedError(
            f"{survey.document.name} has no layer that can be pruned"
            + (f" ({reasons})" if reasons else "")
        )
    settings.check_patterns(survey.layers)
    reasons_by_name = {layer.name: settings.leaves_out(layer) for layer in survey.layers}
    left_alone = {name: reason for name, reason in reasons_by_name.items() if reason}
    sites = [site for site in survey.sites if site.layer.name not in left_alone]
    if not sites:
        raise UnsupportedError("--only and --skip leave no layer to prune")
    return sites, left_alone
