"""The Python API of `analyze`: which parts of a model bear pruning, and which do not."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from onnx_relief.analysis import Analysis, TrialRow
from onnx_relief.data import Preprocess, open_data
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.inspection import Model
from onnx_relief.job import choose_member
from onnx_relief.results import Progress
from onnx_relief.settings import Estimator, Settings
from onnx_relief.structures import KERNEL, Structure, parse_structure
from onnx_relief.trials.cluster import on_cluster
from onnx_relief.trials.log import TrialLog
from onnx_relief.trials.sensitivity import SPARSITIES, AnalyzeSettings, analyze_model
from onnx_relief.trials.workers import in_processes

CHANNEL = "channel"


def analyze(
    model: Model,
    data: object,
    *,
    eval_data: object | None = None,
    criterion: str = "obs",
    granularity: str = "kernel,channel",
    sparsities: Sequence[float] = SPARSITIES,
    metric: str | None = None,
    output: str | None = None,
    estimator: str = "paper",
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    samples: int | None = 1000,
    batch_size: int = 16,
    memory: int = 2 << 30,
    seed: int = 0,
    provider: str = "auto",
    preprocess: Preprocess | None = None,
    strict: bool = False,
    jobs: int = 1,
    ray: str | None = None,
    run: str | os.PathLike[str] | None = None,
    restart: bool = False,
    progress: Progress | None = None,
    on_trial: Callable[[TrialRow], None] | None = None,
) -> Analysis:
    """Return how much a model loses when one layer, or one kind of channels, alone is pruned.

    Args:
        model: Path of an ONNX file, or a model in memory; it is not changed.
        data: Calibration data of any form that `prune` takes.
        eval_data: What pruned models are judged on; by default the calibration data.
        criterion: As `prune` takes it.
        granularity: What goes of a layer, as `prune` takes it, or ``channel``, or both after each
            other: ``weight,channel``.
        sparsities: Shares that go, in [0, 1); layers that lose N of M have one of their own.
        metric: As `prune` takes it, or ``divergence`` (mean square error of the outputs relative to
            their variance) or ``kl`` (Kullback-Leibler, in nats); by default accuracy with labels
            and divergence without.
        output: The output that the metric looks at.
        estimator: As `prune` takes it.
        only: Patterns; layers that match none of them are left out.
        skip: Patterns; layers that match one of them are left out.
        samples: At most so many samples of `data`, evenly spread; None for all.
        batch_size: Samples per run, where the model leaves that open.
        memory: Bytes that statistics may take, about.
        seed: For what is drawn.
        provider: Execution provider of ONNX Runtime, or ``auto``.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.
        jobs: Processes, each with one thread; with more than one, a script has to call this below
            ``if __name__ == "__main__":``.
        ray: Instead, a Ray cluster: ``host:port``, ``auto``, or ``local`` for one of `jobs` tasks.
        run: Folder where finished trials are kept; started again there, the analysis goes on.
        restart: Whether to begin anew instead.
        progress: Called with (stage, done, total or None).
        on_trial: Called with a `TrialRow` after each trial.

    Raises:
        ReliefError: One sentence that says what, where, and what to do.
    """
    structure, layers, channels = parse_granularity(granularity)
    settings = AnalyzeSettings(
        prune=Settings(
            estimator=choose_member("--estimator", Estimator, estimator),
            structure=structure,
            criterion=criterion,
            memory=memory,
            seed=seed,
            only=tuple(only),
            skip=tuple(skip),
            samples=samples,
            batch_size=batch_size,
            provider=provider,
        ),
        sparsities=tuple(sparsities),
        layers=layers,
        channels=channels,
        metric=metric,
        output=output,
    )
    runner = in_processes(jobs) if ray is None else on_cluster(ray, jobs if jobs > 1 else None)
    document = load(model)
    inputs = input_specs(document.proto)
    prepare = preprocess or Preprocess()
    calibration = open_data(data, inputs, preprocess=prepare, strict=strict)
    evaluation = calibration.take(samples)
    if eval_data is not None:
        evaluation = open_data(eval_data, inputs, preprocess=prepare, strict=strict)
    log = None if run is None else TrialLog(Path(run))
    if log is not None and restart:
        log.restart()
    return analyze_model(
        document,
        calibration,
        evaluation,
        settings,
        run=runner,
        log=log,
        progress=progress,
        on_trial=on_trial,
    )


def parse_granularity(text: str) -> tuple[Structure, bool, bool]:
    """Return what goes of layers, whether layers are tried, and whether channels are.

    >>> [str(part) for part in parse_granularity("weight,channel")]
    ['weight', 'True', 'True']

    Raises:
        SettingsError: It is no granularity, or several for layers.
    """
    names = [name.strip() for name in text.split(",")]
    layers = [name for name in names if name != CHANNEL]
    if len(layers) > 1:
        raise SettingsError(
            f"--granularity {text!r} names several ways to prune a layer; give one of them, and "
            "channel if you like"
        )
    structure = parse_structure(layers[0]) if layers else KERNEL
    return structure, bool(layers), CHANNEL in names
