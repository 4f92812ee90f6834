"""What a run of `prune` comes to: both models side by side, as a report."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import fields, replace
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

from onnx_relief import __version__
from onnx_relief.comparing.evaluation import compare_models
from onnx_relief.comparing.latency import measure_latency
from onnx_relief.data import Dataset, first_sample
from onnx_relief.graph.cost import cost_of, total_bytes
from onnx_relief.graph.document import Document, check, input_specs, parse_file
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.job import Job, about_plan
from onnx_relief.measuring.positions import positions_on_data, positions_on_shapes
from onnx_relief.measuring.shortage import about_few_samples
from onnx_relief.pipeline import Pruned
from onnx_relief.progress import ticker
from onnx_relief.report.advice import advise
from onnx_relief.report.build import DataRow, Report, layer_rows, refusal_rows
from onnx_relief.results import Evaluation, Latency, ModelCost, Progress
from onnx_relief.runtime import open_session


def account(
    job: Job, pruned: Pruned, written: Path, *, name: str, progress: Progress | None = None
) -> Report:
    """Check the written model, run it beside the dense one, and return the report.

    Args:
        job: What was asked for.
        pruned: What came of it.
        written: The pruned model as it lies on disk.
        name: What to call it in the report.
        progress: Told how far the work has come.

    Raises:
        ModelError: The checker or the runtime refuses the written model.
        SettingsError, DataError: As `compare_models`.
    """
    document = replace(parse_file(written), name=name)
    check(document)
    evaluation, latency = _compared(job, document, progress)
    positions = _positions(job, pruned)
    dense = _cost(pruned.survey, positions, progress, "reading the model")
    after = _cost(find_layers(document), positions, progress, "reading the pruned model")
    measured = pruned.measurement
    report = Report(
        versions=versions(),
        settings=plain_settings(job),
        dense=dense,
        pruned=after,
        layers=layer_rows(pruned.survey, pruned.plan, pruned.flows, pruned.left_alone, after),
        refusals=refusal_rows(pruned.survey),
        data=_data_row(job, measured.samples if measured else None),
        evaluation=evaluation,
        latency=latency,
        repair=pruned.repair,
        missed=pruned.missed,
    )
    few = about_few_samples(
        dense,
        measured.samples if measured else 0,
        criterion=job.settings.criterion,
        repair=job.settings.repair,
    )
    advice = (*about_plan(job), *_about_followers(pruned), *advise(report), *few)
    return replace(report, advice=advice)


def _about_followers(pruned: Pruned) -> Iterator[str]:
    """Say which layers lose what others lose, because they read the same weights."""
    unseen = pruned.measurement.unobserved if pruned.measurement else {}
    for name, reason in unseen.items():
        if pruned.plan.for_layer(name) is not None:
            yield f"{name} loses what layers lose that read the same weights: {reason}"


def try_written(job: Job, written: Path) -> None:
    """Check the written model and run it once, where nobody reads a report.

    Args:
        job: What was asked for.
        written: The pruned model as it lies on disk.

    Raises:
        ModelError: The checker or the runtime refuses the written model.
    """
    document = parse_file(written)
    check(document)
    session = open_session(document, provider=job.settings.provider)
    if job.evaluation is not None:
        session.run(first_sample(job.evaluation).feed)


def compared(
    dense: Document,
    pruned: Document,
    data: Dataset,
    *,
    batch_size: int,
    provider: str,
    metric: str | None = None,
    output: str | None = None,
    progress: Progress | None = None,
) -> tuple[Evaluation, Latency]:
    """Return how two models differ on data, and how long each takes for one sample of it.

    Raises:
        SettingsError, DataError, ModelError: As `compare_models`.
    """
    evaluation = compare_models(
        dense,
        pruned,
        data,
        metric=metric,
        output=output,
        batch_size=batch_size,
        provider=provider,
        tick=ticker(progress, "comparing outputs", data.size),
    )
    batch = first_sample(data)
    latency = measure_latency(
        (dense, pruned),
        batch.feed,
        samples=batch.count,
        provider=provider,
        threads=1,  # as `bench` and --round-to: other work on the machine disturbs that least
        tick=ticker(progress, "measuring latency", None),
    )
    return evaluation, latency


def versions(*more: str) -> dict[str, str]:
    """Return the versions of this package and of what its numbers depend on, and of `more`."""
    names = ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy", *more)
    found = {"onnx-relief": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def plain_settings(job: Job) -> dict[str, Any]:
    """Return what the user chose as plain data."""
    values = {field.name: getattr(job.settings, field.name) for field in fields(job.settings)}
    said = {key: v.value if isinstance(v, Enum) else v for key, v in values.items()}
    said |= {"structure": str(job.settings.structure), "budget": str(job.settings.budget)}
    return {
        **said,
        "alpha_layers": dict(job.settings.alpha_layers),
        "metric": job.metric,
        "output": job.output,
        "replayed_plan": job.plan is not None,
    }


def _compared(
    job: Job, document: Document, progress: Progress | None
) -> tuple[Evaluation | None, Latency | None]:
    if job.evaluation is None:
        open_session(document, provider=job.settings.provider)  # at least it can be loaded
        return None, None
    return compared(
        job.document,
        document,
        job.evaluation,
        batch_size=job.settings.batch_size,
        provider=job.settings.provider,
        metric=job.metric,
        output=job.output,
        progress=progress,
    )


def _positions(job: Job, pruned: Pruned) -> dict[str, float]:
    """Return the positions that were measured, and for layers left alone those of one sample."""
    measured = pruned.measurement.activities if pruned.measurement else {}
    positions = {name: activity.positions for name, activity in measured.items()}
    if len(positions) == len(pruned.survey.layers):
        return positions
    provider, data = job.settings.provider, job.calibration or job.evaluation
    if data is not None:
        others = positions_on_data(pruned.survey, data, provider)
    else:
        others = positions_on_shapes(pruned.survey, input_specs(job.document.proto), {}, provider)
    return {**others.by_layer, **positions}


def _cost(
    survey: Survey, positions: dict[str, float], progress: Progress | None, stage: str
) -> ModelCost:
    tick = ticker(progress, stage, total_bytes(survey.document))
    return cost_of(survey, positions, tick=tick)


def _data_row(job: Job, samples: int | None) -> DataRow:
    calibration, evaluation = job.calibration, job.evaluation
    skipped = {**(calibration.skipped if calibration else {})}
    skipped |= evaluation.skipped if evaluation else {}
    return DataRow(
        calibration=calibration.take(job.settings.samples).description if calibration else None,
        evaluation=evaluation.description if evaluation else None,
        same=job.same_data,
        samples=samples,
        skipped=skipped,
    )
