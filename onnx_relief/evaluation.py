"""Compare two models, or judge one, on data: streamed, so that the number of samples is free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.data import Batch, Dataset
from onnx_relief.errors import DataError, ModelError, ReliefError, SettingsError, working_on
from onnx_relief.graph.document import Document, input_specs, output_specs
from onnx_relief.measure import Tick
from onnx_relief.metrics import METRICS, Array, Gap, choices, decisions, metric_named
from onnx_relief.results import Evaluation, Score
from onnx_relief.runtime import open_session

Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """Which metric looks at which output."""

    metric: str
    output: str


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
        metric: Name in `METRICS`; by default accuracy with labels and agreement without.
        output: The output that the metric looks at; by default the first that suits it.
        batch_size: Samples per run, where the models leave that open.
        provider: Execution provider of ONNX Runtime.
        tick: Called with the number of samples after every batch.

    Raises:
        SettingsError: Metric or output do not exist, or do not suit the data or each other.
        DataError: A label has no class.
        ModelError: A model cannot be run on the data, or the two give different outputs.
    """
    _check_alike(dense, pruned)
    sessions = [open_session(model, provider=provider) for model in (dense, pruned)]
    tally: _Tally | None = None
    for batch in data.batches(batch_size):
        first, second = (_real_rows(s.run(batch.feed), batch, data) for s in sessions)
        if tally is None:
            tally = _Tally(choose(first, batch, metric, output))
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
    tick: Tick | None = None,
) -> Score:
    """Run one model on labelled data and return how well it does; arguments as `compare_models`.

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
    choice, hits, samples, highest = None, 0, 0, -1
    for batch in data.batches(batch_size):
        results = _real_rows(session.run(batch.feed), batch, data)
        choice = choice or choose(results, batch, metric, output)
        hits += int(_hits(choice, results[choice.output], batch).sum())
        highest = max(highest, _highest_label(batch))
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
            *_odd_outputs(results),
            *_doubtful_classes(data, _class_count(results[choice.output]), highest),
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
    choose(_real_rows(session.run(batch.feed), batch, data), batch, metric, output)


def first_sample(data: Dataset) -> Batch:
    """Return a batch of the first sample that can be read.

    Raises:
        DataError: None can.
    """
    return next(iter(data.batches(1)))


def choose(results: Outputs, batch: Batch, metric: str | None, output: str | None) -> Choice:
    """Return metric and output for what a model gives on a first batch.

    Raises:
        SettingsError: As `compare_models`.
    """
    if output is not None and output not in results:
        names = ", ".join(map(repr, results))
        raise SettingsError(f"--output {output!r} does not exist; the model gives {names}")
    name = metric or ("accuracy" if batch.labels is not None else "agreement")
    chosen = metric_named(name)
    if chosen.hits is not None and batch.labels is None:
        raise SettingsError(
            f"--metric {name} needs labels, and the data has none; add 'labels' or class folders, "
            "or use --metric agreement"
        )
    reasons = {}
    for key in results if output is None else [output]:
        reason = _unfit(results[key], name, batch)
        if reason is None:
            return Choice(name, key)
        reasons[key] = reason
    if name == "agreement" and metric is None and any(map(_is_array, results.values())):
        return choose(results, batch, "cosine", output)
    listed = "; ".join(f"{key!r} {reason}" for key, reason in list(reasons.items())[:3])
    others = [other for other in METRICS if other != name]
    raise SettingsError(
        f"--metric {name} suits no output of the model ({listed}); choose another one with "
        f"--output, or another metric with --metric ({', '.join(others)})"
    )


def _unfit(value: object, metric: str, batch: Batch) -> str | None:
    """Return why an output cannot be judged by a metric, or None if it can."""
    if not _is_array(value):
        return "is no array of numbers"
    assert isinstance(value, np.ndarray)
    shape = f"has shape {value.shape}"
    if metric == "agreement":
        return None if decisions(value) is not None else f"{shape} and decides nothing"
    hits = METRICS[metric].hits
    if hits is None:
        return None
    try:
        if metric == "accuracy" and len(choices(value)) != batch.count:
            return f"{shape}, not one row for each of {batch.count} samples"
        hits(value, np.zeros(len(value), dtype=np.int64))
    except (ValueError, TypeError, ReliefError) as reason:
        return f"{shape}: {reason}" if isinstance(reason, ValueError) else shape
    return None


@dataclass(eq=False)
class _Tally:
    """What has been counted so far."""

    choice: Choice
    hits: list[int] = field(default_factory=lambda: [0, 0])
    judged: int = 0
    apart: int = 0
    highest: int = -1
    classes: int = 0
    samples: int = 0
    gaps: dict[str, Gap] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, dense: Outputs, pruned: Outputs, batch: Batch) -> None:
        """Take in the outputs of both models for one batch."""
        self.samples += batch.count
        self.notes |= dict.fromkeys(_odd_outputs(dense))
        for name, first in dense.items():
            second = pruned[name]
            if not (_is_array(first) and _is_array(second)):
                continue
            if first.shape != second.shape:
                note = f"output {name!r} changes its shape with the pruning, so it is not compared"
                self.notes[note] = None
                continue
            self.gaps.setdefault(name, Gap(name)).add(first, second, batch.count)
        self._judge(dense[self.choice.output], pruned[self.choice.output], batch)

    def _judge(self, dense: Array, pruned: Array, batch: Batch) -> None:
        if METRICS[self.choice.metric].hits is not None:
            first, second = (_hits(self.choice, output, batch) for output in (dense, pruned))
            self.hits[0] += int(first.sum())
            self.hits[1] += int(second.sum())
            self.apart += int((first != second).sum())
            self.judged += batch.count
            self.highest = max(self.highest, _highest_label(batch))
            self.classes = _class_count(dense)
        elif self.choice.metric == "agreement":
            one, other = decisions(dense), decisions(pruned)
            if one is None or other is None or one.shape != other.shape:
                self.choice = Choice("cosine", self.choice.output)
                note = f"output {self.choice.output!r} is not always a decision; cosine is used"
                self.notes[note] = None
                return
            self.hits[1] += int((one == other).sum())
            self.apart += int((one != other).sum())
            self.judged += one.size

    def finish(self, data: Dataset) -> Evaluation:
        """Return the comparison over all batches."""
        gaps = {name: gap.finish() for name, gap in self.gaps.items()}
        for name, gap in gaps.items():
            if gap.nan_dense:
                note = f"output {name!r} of the dense model holds {gap.nan_dense} NaN on this data"
                self.notes[note] = None
        self.notes |= dict.fromkeys(_doubtful_classes(data, self.classes, self.highest))
        metric, chosen = self.choice.metric, gaps.get(self.choice.output)
        scores: list[float | None] = [None, None]
        if self.judged and metric in ("accuracy", "top5", "agreement"):
            scores = [100 * hits / self.judged for hits in self.hits]
        elif chosen is not None:
            scores[1] = chosen.cosine if metric == "cosine" else chosen.relative_error
        return Evaluation(
            metric=metric,
            unit=METRICS[metric].unit,
            output=self.choice.output,
            dense=scores[0] if METRICS[metric].hits else None,
            pruned=scores[1],
            samples=self.samples,
            data=data.description,
            margin=margin(self.apart, self.judged)
            if scores[1] is not None and self.judged
            else None,
            differences=tuple(gaps.values()),
            notes=tuple(self.notes),
        )


def margin(apart: int, samples: int) -> float:
    """Return half of the 95 % confidence interval of the difference of two shares, in points.

    Both shares are of the same samples, `apart` of which count for one of the models only: the
    variance of the difference of paired proportions, with two of either kind added so that it is
    not zero where no sample is apart (Agresti and Min 2005).

    >>> round(margin(0, 100), 1), round(margin(9, 1000), 2)
    (2.7, 0.65)
    """
    share = (apart + 2) / (samples + 4)
    return float(196 * np.sqrt(share / (samples + 4)))


def _hits(choice: Choice, output: object, batch: Batch) -> NDArray[np.bool_]:
    """Return for which samples an output hits the label.

    Raises:
        DataError: Labels and output do not belong together.
        SettingsError: The output is not what it was for the first samples.
    """
    judge = METRICS[choice.metric].hits
    assert judge is not None
    assert batch.labels is not None
    try:
        return np.asarray(judge(np.asarray(output), batch.labels), dtype=bool)
    except ValueError as reason:
        raise SettingsError(
            f"--metric {choice.metric} does not suit output {choice.output!r} on all samples: "
            f"{reason}; choose another one with --output or --metric"
        ) from reason


def _highest_label(batch: Batch) -> int:
    return -1 if batch.labels is None else int(batch.labels.max(initial=-1))


def _class_count(output: Array) -> int:
    """Return how many scores an output gives for each sample."""
    return int(output.size // max(1, len(output)))


def _doubtful_classes(data: Dataset, classes: int, highest: int) -> Iterator[str]:
    """Say so where labels 0, 1, ... were counted off, but stop before the model's classes do.

    Folders of three of a model's ten classes are 0, 1 and 2, whatever the model calls them.
    """
    known = data.source.class_count
    if highest < known < classes:
        yield (
            f"{data.name} has {known} class{'' if known == 1 else 'es'}, but the output tells "
            f"{classes} apart: label 0 has to be its first class, and so on (folders are counted "
            "by name, so add an empty folder for every class that is missing)"
        )


def _real_rows(results: Outputs, batch: Batch, data: Dataset) -> dict[str, Any]:
    """Cut off the rows that only fill up a batch of fixed size."""
    rows = max((len(array) for array in batch.feed.values() if array.ndim), default=0)
    if data.whole_feeds or batch.count == rows:
        return dict(results)
    return {
        name: value[: batch.count]
        if _is_array(value) and value.ndim and len(value) == rows
        else value
        for name, value in results.items()
    }


def _odd_outputs(results: Outputs) -> Iterator[str]:
    for name, value in results.items():
        if not _is_array(value):
            kind = "text" if isinstance(value, np.ndarray) else "a sequence or map"
            yield f"output {name!r} is {kind}, so it is not compared"


def _is_array(value: object) -> bool:
    """Whether an output is an array of real numbers."""
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OUSc":
        return False
    return value.dtype.kind in "biuf" or value.dtype.name == "bfloat16"


def _check_alike(dense: Document, pruned: Document) -> None:
    for verb, specs in (("takes", input_specs), ("gives", output_specs)):
        ours, theirs = ([spec.name for spec in specs(model.proto)] for model in (dense, pruned))
        if set(ours) != set(theirs):
            raise ModelError(
                f"{dense.name} {verb} {', '.join(map(repr, ours))} and {pruned.name} {verb} "
                f"{', '.join(map(repr, theirs))}, so they cannot be compared on data; "
                "give two versions of the same model"
            )
