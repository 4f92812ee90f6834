"""Sensitivity on one screen: prune every part of a model alone, by several shares, and judge it.

What the data shows is measured once. Every trial then stands for itself, so they run in any order,
on several processes or machines, and what is finished need not be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from onnx_relief.analysis import CHANNELS, DENSE, LAYER, Analysis, TrialRow
from onnx_relief.budgeting.spending import Fields
from onnx_relief.channels.trials import ChannelTrials, open_channels
from onnx_relief.comparing.metrics import METRICS
from onnx_relief.contents import digest_of_data, digest_of_model
from onnx_relief.data import Dataset
from onnx_relief.errors import SettingsError, UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.pipeline import fields_of, look
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.settings import Settings
from onnx_relief.trials.log import Key, TrialLog
from onnx_relief.trials.trial import DIVERGENCE, OWN_METRICS, PROBED, Bench, Runner, Task

SPARSITIES = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, kw_only=True)
class AnalyzeSettings:
    """What is tried.

    Attributes:
        prune: Criterion, structure and layers.
        sparsities: Shares that go, except of layers whose structure says it.
        layers: Whether layers are tried.
        channels: Whether channels that live or die together are tried.
        metric: How models are judged; None for accuracy with labels, `DIVERGENCE` without.
        output: The output that the metric looks at.
    """

    prune: Settings
    sparsities: tuple[float, ...] = SPARSITIES
    layers: bool = True
    channels: bool = True
    metric: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if not self.sparsities or not all(0 <= share < 1 for share in self.sparsities):
            listed = ", ".join(f"{share:g}" for share in self.sparsities)
            raise SettingsError(
                f"--sparsities are shares from 0 to below 1, got {listed or 'none'}"
            )
        known = (*METRICS, *OWN_METRICS)
        if self.metric is not None and self.metric not in known:
            raise SettingsError(
                f"--metric {self.metric!r} does not exist; choose one of {', '.join(known)}"
            )

    def shares(self, kind: str) -> tuple[float, ...]:
        """Return the shares that are tried of layers, or of channels, rising."""
        exact = self.prune.structure.exact_share
        if kind == LAYER and exact is not None:
            return (exact,)
        return tuple(sorted(set(self.sparsities)))

    def metric_on(self, data: Dataset) -> str:
        """Return how models are judged on some data."""
        return self.metric or ("accuracy" if data.has_labels else DIVERGENCE)


def analyze_model(
    document: Document,
    calibration: Dataset,
    evaluation: Dataset,
    settings: AnalyzeSettings,
    *,
    run: Runner,
    log: TrialLog | None = None,
    progress: Progress | None = None,
    on_trial: Callable[[TrialRow], None] | None = None,
) -> Analysis:
    """Return how much the model loses when one part of it alone is pruned.

    Args:
        document: The dense model; it is not changed.
        calibration: What activity is measured on; only the criterion `taylor` looks at labels,
            where there are any.
        evaluation: What pruned models are judged on.
        settings: What is tried.
        run: What tries it.
        log: Where finished trials are kept, and what was finished before.
        progress: Told how far the work has come.
        on_trial: Told of every trial.

    Raises:
        UnsupportedError: There is nothing to prune.
        SettingsError, DataError, ModelError: The model cannot be judged, or not be run on the data.
    """
    metric = settings.metric_on(evaluation)
    done = log.begin(said_of(document, calibration, evaluation, settings)) if log else {}
    try:
        bench = Bench(
            dense=document,
            fields=None,
            data=evaluation,
            metric=metric,
            output=settings.output,
            batch_size=settings.prune.batch_size,
            memory=settings.prune.memory,
            provider=settings.prune.provider,
        )
        bench.check()
        parts = _opened(document, calibration, settings, progress)
        # Under the same name, so that the answers which the check has kept can go.
        bench = replace(bench, fields=parts.fields)
        rows = _tried(bench, parts, settings, done, run, log, progress, on_trial)
    except BaseException:
        if log is not None:
            log.discard()
        raise
    return Analysis(
        model=document.name,
        digest=digest_of_model(document),
        metric=metric,
        unit=METRICS[metric].unit if metric in METRICS else "",
        data=(evaluation.take(PROBED) if metric in OWN_METRICS else evaluation).description,
        criterion=settings.prune.criterion,
        granularity=_granularity(settings),
        sparsities=_shares(settings),
        trials=rows,
        notes=parts.notes,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Parts:
    """What of a model can be tried.

    Attributes:
        fields: Its layers.
        channels: Its kinds of channels.
        notes: What cannot be tried, in sentences.
    """

    fields: Fields | None
    channels: ChannelTrials | None
    notes: tuple[str, ...]

    def keys(self, settings: AnalyzeSettings) -> list[Key]:
        """Return what is tried, in the order of the model."""
        layers = [] if self.fields is None else [f.site.layer.name for f in self.fields.fields]
        channels = [] if self.channels is None else list(self.channels.kinds)
        names = [(LAYER, name) for name in dict.fromkeys(layers)]
        names += [(CHANNELS, name) for name in channels]
        keys = [(kind, name, share) for kind, name in names for share in settings.shares(kind)]
        return [(DENSE, "", 0.0), *keys]

    def task(self, key: Key) -> Task:
        """Return what a process needs to try one of them."""
        kind, name, share = key
        if kind == CHANNELS:
            assert self.channels is not None
            document, kept = self.channels.without(name, share)
            return Task(kind=kind, name=name, sparsity=share, document=document, kept=kept)
        found = self.fields.fields if self.fields is not None else ()
        numbers = (n for n, field in enumerate(found) if field.site.layer.name == name)
        return Task(kind=kind, name=name, sparsity=share, fields=tuple(numbers))


def _opened(
    document: Document,
    calibration: Dataset,
    settings: AnalyzeSettings,
    progress: Progress | None,
) -> _Parts:
    fields, channels, notes = None, None, list[str]()
    if settings.layers:
        seen = look(document, calibration, settings.prune, signals=False, progress=progress)
        fields = fields_of(seen, calibration, settings.prune, progress=progress)
        left = {**seen.left_alone, **fields.left_alone}
        notes += [f"layer {name!r} is not tried: {reason}" for name, reason in left.items()]
        structure = settings.prune.structure
        if structure.exact_share is not None:
            gone = structure.inputs - structure.units
            notes.append(
                f"layers lose {gone} of every {structure.inputs} inputs, whatever --sparsities says"
            )
    if settings.channels:
        try:
            channels = open_channels(document, calibration, settings.prune, progress=progress)
        except UnsupportedError as error:
            if not settings.layers:
                raise
            notes.append(f"no channels are tried: {error}")
    return _Parts(fields=fields, channels=channels, notes=tuple(notes))


def _tried(
    bench: Bench,
    parts: _Parts,
    settings: AnalyzeSettings,
    done: dict[Key, TrialRow],
    run: Runner,
    log: TrialLog | None,
    progress: Progress | None,
    on_trial: Callable[[TrialRow], None] | None,
) -> tuple[TrialRow, ...]:
    keys = parts.keys(settings)
    tick = ticker(progress, "trying parts of the model alone", len(keys))
    tick(sum(key in done for key in keys))

    def missing() -> Iterator[Task]:
        return (parts.task(key) for key in keys if key not in done)

    rows = dict(done)

    for row in run(bench, missing()):
        rows[row.key] = row
        if log is not None:
            log.add(row)
        if on_trial is not None:
            on_trial(row)
        tick(1)
    return tuple(rows[key] for key in keys)


def said_of(
    document: Document, calibration: Dataset, evaluation: Dataset, settings: AnalyzeSettings
) -> dict[str, dict[str, object]]:
    """Return what makes an analysis what it is; more shares can be tried at any time."""
    prune = settings.prune
    data = {"--data": calibration.take(prune.samples), "--eval-data": evaluation}
    return {
        "names": {"MODEL": document.name, **{key: one.description for key, one in data.items()}},
        "digests": {
            "MODEL": digest_of_model(document),
            **{key: digest_of_data(one) for key, one in data.items()},
        },
        "choices": {
            "--metric": settings.metric_on(evaluation),
            "--output": settings.output,
            "--criterion": prune.criterion,
            "--granularity": str(prune.structure),
            "--estimator": prune.estimator.value,
            "--only": list(prune.only),
            "--skip": list(prune.skip),
            "--batch-size": prune.batch_size,
            "--memory": prune.memory,
            "--provider": prune.provider,
            "--seed": prune.seed,
        },
    }


def _shares(settings: AnalyzeSettings) -> tuple[float, ...]:
    """Return all shares that are tried."""
    if not (settings.layers and settings.prune.has_exact_share):
        return settings.sparsities
    kinds = [LAYER] + [CHANNELS] * settings.channels
    return tuple(sorted({share for kind in kinds for share in settings.shares(kind)}))


def _granularity(settings: AnalyzeSettings) -> str:
    kinds = [str(settings.prune.structure)] * settings.layers + ["channel"] * settings.channels
    return ",".join(kinds)
