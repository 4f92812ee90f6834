"""Everything that a criterion needs to know of some layers, measured in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_relief.agreement import shared_homes
from onnx_relief.budgeting.fields import Field
from onnx_relief.data import Dataset
from onnx_relief.data.held_out import held_out
from onnx_relief.graph.giving import giving_outputs
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.rows import why_not_updated
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.evidence import reading_of
from onnx_relief.measuring.measure import Measurement
from onnx_relief.measuring.second_moments import SecondMoments, moments_of
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.scoring.table import Need, criterion_named
from onnx_relief.settings import Settings


def gather_fields(
    survey: Survey,
    sites: Sequence[Site],
    measured: Measurement,
    calibration: Dataset,
    settings: Settings,
    *,
    known: SecondMoments | None = None,
    progress: Progress | None = None,
) -> list[Field]:
    """Return one field for every weight of `sites`, for the criterion that the settings name.

    Args:
        survey: The model.
        sites: The layers.
        measured: Their activity.
        calibration: Sample data. `taylor` follows the loss of its labels where there are any, and
            the outputs otherwise.
        settings: The criterion.
        known: Second moments that were measured together with the activity.
        progress: Told how far the work has come.

    Raises:
        DataError, ModelError: The model cannot be run on the data.
        UnsupportedError: The criterion needs gradients, and the bridge cannot carry the model.
    """
    criterion = criterion_named(settings.criterion)
    shared = shared_homes(survey)
    samples = held_out(calibration, settings.samples)
    readings = {site.layer.name: reading_of(site, memory=settings.memory) for site in sites}
    moments = moments_of(
        survey.runnable,
        [reading for reading in readings.values() if not isinstance(reading, str)],
        samples,
        settings,
        known=known or SecondMoments(),
        tick=ticker(progress, "measuring second moments", samples.work.size),
    )
    gradients: Mapping[str, Sequence[NDArray[np.float64]]] = {}
    if criterion.need is Need.GRADIENT:
        # It needs torch, which comes with an extra; everything else here does without.
        from onnx_relief.measuring.gradients import weight_gradients

        gradients = weight_gradients(
            survey.document,
            samples.work,
            by_labels=samples.work.has_labels,
            batch_size=settings.batch_size,
            seed=settings.seed,
            provider=settings.provider,
            progress=progress,
        )
    giving = giving_outputs(survey)
    fields = []
    for site in sites:
        if site.bias and site.bias.view.home in shared:
            # What moves it would move other layers.
            site = replace(site, bias=None, layer=replace(site.layer, bias=None))
        for part in range(len(site.parts)):
            reading = readings[site.layer.name] if part == 0 else ""
            at = None if isinstance(reading, str) else reading
            field = Field(
                survey=survey,
                site=site,
                part=part,
                criterion=criterion,
                structure=settings.structure,
                activity=measured.activities[site.layer.name],
                reading=at,
                gram=moments.work.get(at) if at else None,
                judge=moments.judge.get(at) if at else None,
                gradient=gradients[site.layer.name][part] if site.layer.name in gradients else None,
                updates=criterion.updates and why_not_updated(site, shared) is None,
                seed=settings.seed,
                whole=site.layer.name in giving or _is_depthwise(site),
            )
            fields.append(field)
    return fields


def _is_depthwise(site: Site) -> bool:
    weight = site.layer.weights[0]
    return weight.groups > 1 and weight.inputs == 1
