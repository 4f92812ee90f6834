"""The second moments that a criterion needs, measured together with activity.

One walk through the data takes as many of them as there is memory for, further ones the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from onnx_relief.activity.gram import Gram
from onnx_relief.data import Dataset, first_sample
from onnx_relief.data.held_out import Split, held_out
from onnx_relief.data.shuffle import fixed_batch
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.evidence import (
    Grams,
    Reading,
    gram_matrices,
    passes,
    reading_of,
    samples_at_once,
)
from onnx_relief.measuring.measure import Measurement, Observer, full_batches, measure
from onnx_relief.runtime import open_at
from onnx_relief.scoring.table import Need, criterion_named
from onnx_relief.settings import Settings

Tick = Callable[[int], None]
_TENSORS = 16
"""Tensors that are looked at may take such a part of the memory. With twice as much, EfficientNet
takes no less time and half as much memory again: the runtime holds statistics of them besides."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SecondMoments:
    """Second moments of what layers read.

    Attributes:
        work: Over the samples that things are fitted to.
        judge: Over held-out ones; none where the criterion does not ask for whole matrices, or
            where there are too few samples to hold any out.
    """

    work: Mapping[Reading, Gram] = field(default_factory=dict)
    judge: Mapping[Reading, Gram] = field(default_factory=dict)


def measure_at_once(
    survey: Survey,
    sites: Sequence[Site],
    calibration: Dataset,
    settings: Settings,
    *,
    read: Sequence[Site] | None = None,
    signals: bool = True,
    tick: Tick | None = None,
) -> tuple[Measurement, SecondMoments]:
    """Return the activity of `sites`, and the second moments that the same walk had memory for.

    Args:
        survey: The model.
        sites: The layers.
        calibration: Sample data.
        settings: The criterion, and the memory that there is.
        read: The layers whose second moments are wanted; those of all by default.
        signals: Whether the paper's signals are wanted where the criterion does not need them.
        tick: Told of every sample.

    Raises:
        UnsupportedError: No layer's input can be observed.
        DataError: There is no data, or it (or a weight) makes NaN or infinity, named by layer.
        ModelError: The model itself cannot be run on the data.
    """
    brief = [] if signals else _without_signals(sites, settings)
    samples = held_out(calibration, settings.samples)
    first = _first_pass(sites if read is None else read, calibration, settings)
    if not first:
        batches = full_batches(calibration.take(settings.samples), settings.batch_size)
        return measure(survey, sites, batches, settings, brief=brief, tick=tick), SecondMoments()
    observer = Observer(survey, sites, settings, raw=list(first.values()), brief=brief)
    names = {r.tensor: s.layer.name for r, s in first.items() if s.layer.name in observer.raw}
    readings = [reading for reading in first if reading.tensor in names]
    few = _few(survey.runnable, list(names), samples.work, settings)
    whole = _whole(settings)
    moments = SecondMoments(
        work=_walk(observer, Grams(readings, diagonal=not whole), names, samples.work, few, tick)
    )
    if samples.same:
        return observer.finish(), moments
    grams = Grams(readings if whole else [], diagonal=False)
    judged = _walk(observer, grams, names, samples.judge, few, tick)
    return observer.finish(), replace(moments, judge=judged)


def _wanted(settings: Settings) -> bool:
    """Whether the criterion needs second moments at all."""
    return criterion_named(settings.criterion).need in (Need.SQUARES, Need.MATRIX)


def _whole(settings: Settings) -> bool:
    """Whether it needs whole matrices, not only their diagonals."""
    return criterion_named(settings.criterion).need is Need.MATRIX


def _walk(
    observer: Observer,
    grams: Grams,
    names: Mapping[str, str],
    data: Dataset,
    few: int,
    tick: Tick | None,
) -> Mapping[Reading, Gram]:
    """Let an observer see all samples, and return the matrices of what it shows of them.

    Args:
        observer: Runs the model.
        grams: The matrices.
        names: By tensor, a layer that reads it.
        data: Samples.
        few: Samples at a time.
        tick: Told of every sample.
    """
    for batch in full_batches(data, few):
        raw = observer.see(batch)
        grams.add({tensor: raw[layer] for tensor, layer in names.items()})
        if tick is not None:
            tick(batch.count)
    return grams.found


def moments_of(
    document: Document,
    readings: Sequence[Reading],
    samples: Split,
    settings: Settings,
    *,
    known: SecondMoments,
    tick: Tick | None = None,
) -> SecondMoments:
    """Return the second moments of all readings that the criterion needs.

    Args:
        document: The model.
        readings: What its layers read.
        samples: What things are fitted to, and what judges them.
        settings: The criterion, and the memory that there is.
        known: What is not measured again.
        tick: Told of every sample.

    Raises:
        DataError: There is no data, or a layer reads NaN or infinity.
        ModelError: The model cannot be run.
    """
    missing = [reading for reading in readings if reading not in known.work]
    if not _wanted(settings) or not missing:
        return known
    whole = _whole(settings)
    more = partial(
        gram_matrices,
        document,
        missing,
        batch_size=settings.batch_size,
        provider=settings.provider,
        diagonal=not whole,
        memory=settings.memory // 2 if whole else settings.memory,
    )
    work = {**known.work, **more(samples.work, tick=tick)}
    judged = more(samples.judge) if whole and not samples.same else {}
    return SecondMoments(work=work, judge={**known.judge, **judged})


def _first_pass(sites: Sequence[Site], data: Dataset, settings: Settings) -> dict[Reading, Site]:
    """Return the readings of the first walk, each with a layer that has it.

    There are none for a model that fixes its batch: where samples are held out, one batch of the
    two parts is filled up, and what fills it up would count in activities.
    """
    if not _wanted(settings) or (fixed_batch(data) or 1) > 1:
        return {}
    readings: dict[Reading, Site] = {}
    for site in sites:
        reading = reading_of(site, memory=settings.memory)
        if not isinstance(reading, str):
            readings.setdefault(reading, site)
    some = passes(list(readings), settings.memory // 4, diagonal=not _whole(settings))
    return {reading: readings[reading] for reading in some[0]} if some else {}


def _without_signals(sites: Sequence[Site], settings: Settings) -> list[Site]:
    """Return the layers whose signals the criterion does not look at."""
    criterion = criterion_named(settings.criterion)
    if criterion.signals:
        return []
    if criterion.need is Need.NOTHING:
        return list(sites)
    readings = [reading_of(site, memory=settings.memory) for site in sites]
    return [site for site, one in zip(sites, readings, strict=True) if not isinstance(one, str)]


def _few(document: Document, tensors: Sequence[str], data: Dataset, settings: Settings) -> int:
    """Return how many samples' tensors there is memory for at a time."""
    if not tensors:
        return settings.batch_size
    session = open_at(document, tensors, provider=settings.provider)
    found = session.run(first_sample(data).feed, list(tensors))
    return samples_at_once(found, settings.batch_size, settings.memory // _TENSORS)
