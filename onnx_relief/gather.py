"""Everything that a criterion needs to know of some layers, measured in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.gram import Gram
from onnx_relief.agreement import shared_homes
from onnx_relief.data import Dataset
from onnx_relief.data.held_out import Split, held_out
from onnx_relief.fields import Field
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.rows import why_not_updated
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.evidence import Reading, gram_matrices, reading_of
from onnx_relief.measuring.measure import Measurement
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
    progress: Progress | None = None,
) -> list[Field]:
    """Return one field for every weight of `sites`, for the criterion that the settings name.

    Raises:
        DataError, ModelError: The model cannot be run on the data.
        UnsupportedError: The criterion needs gradients, and the bridge cannot carry the model.
    """
    criterion = criterion_named(settings.criterion)
    shared = shared_homes(survey)
    samples = held_out(calibration, settings.samples)
    readings = {site.layer.name: reading_of(site, memory=settings.memory) for site in sites}
    grams, judges = _moments(survey, readings.values(), samples, settings, progress)
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
    fields = []
    for site in sites:
        for part in range(len(site.parts)):
            reading = readings[site.layer.name] if part == 0 else ""
            known = None if isinstance(reading, str) else reading
            field = Field(
                survey=survey,
                site=site,
                part=part,
                criterion=criterion,
                structure=settings.structure,
                activity=measured.activities[site.layer.name],
                reading=known,
                gram=grams.get(known) if known else None,
                judge=judges.get(known) if known else None,
                gradient=gradients[site.layer.name][part] if site.layer.name in gradients else None,
                updates=criterion.updates and why_not_updated(survey, site, shared) is None,
                seed=settings.seed,
            )
            fields.append(field)
    return fields


def _moments(
    survey: Survey,
    readings: Iterable[Reading | str],
    samples: Split,
    settings: Settings,
    progress: Progress | None,
) -> tuple[dict[Reading, Gram], dict[Reading, Gram]]:
    """Return the second moments that the criterion needs, and those of held-out samples."""
    need = criterion_named(settings.criterion).need
    if need not in (Need.SQUARES, Need.MATRIX):
        return {}, {}
    whole = need is Need.MATRIX
    measure = partial(
        gram_matrices,
        survey.document,
        [reading for reading in readings if not isinstance(reading, str)],
        batch_size=settings.batch_size,
        provider=settings.provider,
        diagonal=not whole,
        memory=settings.memory // 2 if whole else settings.memory,
    )
    tick = ticker(progress, "measuring second moments", samples.work.size)
    found = measure(samples.work, tick=tick)
    return found, measure(samples.judge) if whole and not samples.same else {}
