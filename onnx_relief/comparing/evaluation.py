"""Compare two models, or judge one, on data: streamed, so that the number of samples is free."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from onnx_relief.comparing.choosing import about_decisions, choose
from onnx_relief.comparing.metrics import (
    METRICS,
    is_number,
    metric_named,
)
from onnx_relief.comparing.tally import (
    Outputs,
    Tally,
    about_nan,
    class_count,
    count_nan,
    doubtful_classes,
    highest_label,
    hits_of,
    is_array,
    odd_outputs,
)
from onnx_relief.data import Batch, Dataset, first_sample
from onnx_relief.data.labels import classes_of
from onnx_relief.data.shuffle import labels_of
from onnx_relief.errors import DataError, ModelError, SettingsError, working_on
from onnx_relief.graph.document import Document, input_specs, output_specs
from onnx_relief.graph.endings import joined_parts, sigmoid_outputs, stepwise_outputs
from onnx_relief.graph.taps import with_outputs
from onnx_relief.measuring.measure import Tick
from onnx_relief.results import Evaluation, Score
from onnx_relief.runtime import Session, open_session


def compare_models(
    dense: Document,
    pruned: Document,
    data: Dataset,
    *,
    metric: str | None = None,
    output: str | None = None,
    batch_size: int = 16,
    provider: str = "auto",
    tick: Tick | None = None,
) -> Evaluation:
    """Run two models on all of `data` and return how far apart they are.

    Args:
        dense: What the other model is measured against.
        pruned: The other model, with the same inputs and outputs.
        data: Samples, with or without labels.
        metric: Name in `METRICS`; by default accuracy with labels, and without any agreement
            where an output decides something, cosine where rows have length 1 or decide nothing,
            and error where a sample gives one number that decides nothing. Of an output that joins
            several tensors, the one that is farthest off counts for cosine and error.
        output: The output that the metric looks at; by default the first that suits it, of several
            that suit labels the only one with as many classes as they name.
        batch_size: Samples per run, where the models leave that open.
        provider: Execution provider of ONNX Runtime.
        tick: Called with the number of samples after every batch.

    Raises:
        SettingsError: Metric or output do not exist, or do not suit the data or each other.
        DataError: A label has no class.
        ModelError: A model cannot be run on the data, or the two give different outputs.
    """
    _check_alike(dense, pruned)
    models = (dense, pruned)
    parts = joined_parts(dense.proto)
    if parts != joined_parts(pruned.proto):
        parts = {}
    more = {name: 0 for names in parts.values() for name in names}
    sessions = [
        open_session(with_outputs(model, more) if more else model, provider=provider)
        for model in models
    ]
    outputs = _output_names(dense)
    tally: Tally | None = None
    for batch in data.batches(batch_size):
        first, second = (
            _real_rows(_run(session, model, batch), batch, data)
            for session, model in zip(sessions, models, strict=True)
        )
        if tally is None:
            choice = choose(
                {name: first[name] for name in outputs},
                batch,
                metric,
                output,
                steps=stepwise_outputs(dense),
                classes=classes_of(data),
            )
            each = choice.output in sigmoid_outputs(dense.proto)
            joined = [first[name] for name in parts.get(choice.output, ())]
            singles = any(is_array(one) and is_number(one, batch.count) for one in joined)
            if metric is None and choice.metric == "cosine" and singles:
                choice = replace(choice, metric="error")  # a single number has no angle
            tally = Tally(replace(choice, each=each), parts)
            if metric is None and choice.metric == "agreement" and not each:
                tally.notes |= dict.fromkeys(about_decisions(first[choice.output], choice))
        with working_on(f"comparing outputs on {data.name}"):
            tally.add(first, second, batch)
        if tick is not None:
            tick(batch.count)
    assert tally is not None  # a dataset that yields nothing raises
    return tally.finish(data)


def evaluate_model(
    model: Document,
    data: Dataset,
    *,
    metric: str | None = None,
    output: str | None = None,
    batch_size: int = 16,
    provider: str = "auto",
    like: Document | None = None,
    tick: Tick | None = None,
) -> Score:
    """Run one model on labelled data and return how well it does; arguments as `compare_models`.

    With `like`, if it has the same outputs, what an output is shows in what that one gives.

    Raises:
        SettingsError: The metric compares two models, or there are no labels.
        DataError, ModelError: As `compare_models`.
    """
    chosen = metric_named(metric or "accuracy")
    if not data.has_labels:
        raise DataError(
            f"{data.name} has no labels, so one model alone cannot be judged; add 'labels', or "
            "compare with another model by --against DENSE.onnx"
        )
    if chosen.hits is None:
        raise SettingsError(
            f"--metric {metric} compares two models; add --against DENSE.onnx, or use "
            "--metric accuracy"
        )
    session = open_session(model, provider=provider)
    choice, hits, nan, samples, highest = None, 0, 0, 0, -1
    if like is not None and _output_names(like) == _output_names(model):
        first = first_sample(data)
        given = _real_rows(open_session(like, provider=provider).run(first.feed), first, data)
        choice = choose(given, first, metric, output, classes=classes_of(data))
    for batch in data.batches(batch_size):
        results = _real_rows(session.run(batch.feed), batch, data)
        choice = choice or choose(results, batch, metric, output, classes=classes_of(data))
        hits += int(hits_of(choice, results[choice.output], batch).sum())
        nan += count_nan(results[choice.output])
        highest = max(highest, highest_label(batch))
        samples += batch.count
        if tick is not None:
            tick(batch.count)
    assert choice is not None
    return Score(
        metric=choice.metric,
        unit=chosen.unit,
        output=choice.output,
        value=100 * hits / samples,
        samples=samples,
        data=data.description,
        notes=(
            *odd_outputs(results, judged=choice.output),
            *about_nan(choice.output, "model", nan),
            *doubtful_classes(data, class_count(results[choice.output]), highest),
        ),
    )


def try_out(
    model: Document, data: Dataset, *, metric: str | None, output: str | None, provider: str
) -> None:
    """Run the model on one sample, to learn before any long work that it can be judged.

    Raises:
        SettingsError, DataError, ModelError: As `compare_models`.
    """
    session = open_session(model, provider=provider)
    batch = first_sample(data)
    results = _real_rows(session.run(batch.feed), batch, data)
    steps = stepwise_outputs(model)
    choice = choose(results, batch, metric, output, steps=steps, classes=classes_of(data))
    labels = labels_of(data)
    if METRICS[choice.metric].hits is not None and labels is not None:
        highest = np.full(batch.count, labels.max())  # any other one has a class if this one has
        hits_of(choice, results[choice.output], replace(batch, labels=highest))


def _output_names(model: Document) -> list[str]:
    return [output.name for output in model.proto.graph.output]


def _run(session: Session, model: Document, batch: Batch) -> Outputs:
    """Return what one of two models gives, and name it if it cannot be run."""
    try:
        return session.run(batch.feed)
    except ModelError as error:
        raise ModelError(f"{model.name}: {error}") from error


def _real_rows(results: Outputs, batch: Batch, data: Dataset) -> dict[str, Any]:
    """Cut off the rows that only fill up a batch of fixed size."""
    rows = max((len(array) for array in batch.feed.values() if array.ndim), default=0)
    if data.whole_feeds or batch.count == rows:
        return dict(results)
    return {
        name: value[: batch.count]
        if isinstance(value, np.ndarray) and value.ndim and len(value) == rows
        else value
        for name, value in results.items()
    }


def _check_alike(dense: Document, pruned: Document) -> None:
    """Refuse two models that do not take and give the same tensors.

    Raises:
        ModelError: Naming both models, and what each takes or gives.
    """
    for verb, specs in (("takes", input_specs), ("gives", output_specs)):
        ours, theirs = ([spec.name for spec in specs(model.proto)] for model in (dense, pruned))
        if set(ours) != set(theirs):
            raise ModelError(
                f"{dense.name} {verb} {', '.join(map(repr, ours))} and {pruned.name} {verb} "
                f"{', '.join(map(repr, theirs))}, so they cannot be compared on data; "
                "give two versions of the same model"
            )
    others = {spec.name: spec for spec in input_specs(pruned.proto)}
    for spec in input_specs(dense.proto):
        if not spec.may_be(others[spec.name]):
            raise ModelError(
                f"{dense.name} takes {spec.name!r} as {spec.describe()} and {pruned.name} as "
                f"{others[spec.name].describe()}, so they cannot be compared on data; give two "
                "versions of the same model"
            )
