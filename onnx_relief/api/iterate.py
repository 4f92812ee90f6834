"""`iterate` for Python and for the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnx_relief.bridge.extra import require_extra
from onnx_relief.contents import digest_of_data, digest_of_model
from onnx_relief.data import Preprocess
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document, load
from onnx_relief.history import IterateSettings, IterationRow
from onnx_relief.inspection import Model
from onnx_relief.job import choose_member
from onnx_relief.results import Progress
from onnx_relief.retraining.iteration import Iterated
from onnx_relief.retraining.iteration import iterate as run_iterations
from onnx_relief.retraining.opening import TrainingJob, TrainingSources, open_training
from onnx_relief.retraining.run_folder import RunFolder
from onnx_relief.settings import Estimator, Settings
from onnx_relief.structures import KERNEL, WEIGHT, Structure, parse_structure
from onnx_relief.training import OnEpoch, plain_train_settings, train_settings

Alpha = float | Sequence[float]


def iterate(
    model: Model,
    data: object,
    folder: str | os.PathLike[str],
    *,
    iterations: int = 10,
    alpha: Alpha = 0.95,
    alpha_conv: Alpha = (),
    alpha_fc: Alpha = (),
    estimator: str = Estimator.PAPER.value,
    granularity: str = str(KERNEL),
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    rewind_to: Model | None = None,
    until_sparsity: float | None = None,
    until_params: int | None = None,
    max_drop: float | None = None,
    teacher: Model | None = None,
    distill: float | None = None,
    eval_data: object | None = None,
    samples: int | None = None,
    calibration_samples: int | None = 1000,
    metric: str | None = None,
    output: str | None = None,
    freeze: Sequence[str] = (),
    provider: str = "auto",
    preprocess: Preprocess | None = None,
    strict: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
    on_iteration: Callable[[IterationRow], None] | None = None,
    **training: Any,  # noqa: ANN401 - the fields of TrainSettings
) -> Iterated:
    """Prune and retrain in turns; masks only grow.

    Args:
        model: Path of an ONNX file, or a model in memory: the dense model. It is not changed.
        data: Training data of any form that `prune` takes; activity is measured on it, too.
        folder: Where every iteration is kept; started again there, the run goes on.
        iterations: At most so many.
        alpha: Share of each unit's signal to keep: one number, or one for each iteration.
        alpha_conv: The same for convolutions; empty for `alpha`.
        alpha_fc: The same for everything else; empty for `alpha`.
        estimator: As `prune` takes it.
        granularity: As `prune` takes it.
        only: As `prune` takes it.
        skip: As `prune` takes it.
        rewind_to: A model whose weights the surviving ones go back to before each retraining.
        until_sparsity: Stop once so many percent of the layers' weights are zero.
        until_params: Stop once so few parameters are not zero.
        max_drop: Stop once the metric is so much worse than the dense model's.
        teacher: A model whose outputs to follow; without labels by default the dense model.
        distill: Share of the teacher in the loss beside labels, 0 to 1.
        eval_data: What the models are judged on; by default the part that is split off `data`.
        samples: At most so many samples of `data` to train on; None for all.
        calibration_samples: Samples that activity is measured on; None for all.
        metric: As `prune` takes it.
        output: The output that labels and metric belong to.
        freeze: Patterns of weights that stay as they are: neither trained nor pruned.
        provider: Execution provider of ONNX Runtime.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.
        restart: Whether to begin anew instead of going on.
        progress: Called with (stage, done, total or None).
        on_epoch: Called with an `EpochRow` after each epoch.
        on_iteration: Called with an `IterationRow` after each iteration.
        training: Fields of `TrainSettings`, for each iteration.

    Raises:
        ReliefError: One sentence that says what, where, and what to do. A target that was not
            reached is no error here: see `Iterated.met`.
    """
    require_extra()
    settings = IterateSettings(
        prune=Settings(
            estimator=choose_member("--estimator", Estimator, estimator),
            structure=_structure(granularity),
            only=tuple(only),
            skip=tuple(skip),
            samples=calibration_samples,
            provider=provider,
        ),
        train=train_settings(training, output=output, distill=distill),
        iterations=iterations,
        alphas=_each(alpha),
        alphas_conv=_each(alpha_conv),
        alphas_fc=_each(alpha_fc),
        until_sparsity=until_sparsity,
        until_params=until_params,
        max_drop=max_drop,
    )
    _refuse_processes(settings)
    dense = load(model)
    job = open_training(
        dense,
        TrainingSources(
            data=data,
            eval_data=eval_data,
            samples=samples,
            preprocess=preprocess or Preprocess(),
            strict=strict,
        ),
        settings.train,
        teacher=None if teacher is None else load(teacher),
        dense=dense,
        distil=bool(distill),
        metric=metric,
        output=output,
        freeze=tuple(freeze),
        provider=provider,
    )
    initial = None if rewind_to is None else load(rewind_to)
    with _begun(Path(folder), _said(job, settings, initial), restart=restart) as place:
        return run_iterations(
            job,
            settings,
            place,
            rewind_to=initial,
            progress=progress,
            on_epoch=on_epoch,
            on_iteration=on_iteration,
        )


@contextmanager
def _begun(folder: Path, said: Mapping[str, Any], *, restart: bool) -> Iterator[RunFolder]:
    """Begin a run or go on with it; one that fails before any work was done leaves nothing."""
    place = RunFolder(folder)
    if restart:
        place.restart()
    place.begin(said)
    try:
        yield place
    except BaseException:
        place.discard()
        raise


def _refuse_processes(settings: IterateSettings) -> None:
    if settings.train.devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "iterate trains in one process; leave --devices out, or take turns with `prune` and "
            "`retrain --devices` yourself"
        )


def _each(alpha: Alpha) -> tuple[float, ...]:
    return (float(alpha),) if isinstance(alpha, float | int) else tuple(map(float, alpha))


def _said(
    job: TrainingJob, settings: IterateSettings, initial: Document | None
) -> dict[str, dict[str, Any]]:
    """Return what makes a run what it is; where to stop may change from start to start."""
    models = {"MODEL": job.document, "--teacher": job.teacher, "--rewind-to": initial}
    data = {"--data": job.training, "--eval-data": job.judge.data}
    prune = settings.prune
    return {
        "names": {
            **{key: model.name for key, model in models.items() if model is not None},
            **{key: samples.description for key, samples in data.items()},
        },
        "digests": {
            **{key: model and digest_of_model(model) for key, model in models.items()},
            **{key: digest_of_data(samples) for key, samples in data.items()},
        },
        "choices": {
            "--metric": job.judge.metric,
            "--freeze": job.freeze,
            "--alpha": settings.alphas,
            "--alpha-conv": settings.alphas_conv,
            "--alpha-fc": settings.alphas_fc,
            "--estimator": prune.estimator.value,
            "--granularity": str(prune.structure),
            "--only": prune.only,
            "--skip": prune.skip,
            "--calibration-samples": prune.samples,
            **{
                _FLAGS.get(key, f"--{key.replace('_', '-')}"): value
                for key, value in plain_train_settings(settings.train).items()
                if key not in ("device", "devices")  # these change nothing but the rounding
            },
        },
    }


_FLAGS = {"label_output": "--output", "distill_outputs": "--distill-output"}


def _structure(granularity: str) -> Structure:
    """Return what the paper's method drops: kernels or single weights.

    Raises:
        SettingsError: It is something else.
    """
    structure = parse_structure(granularity)
    if structure not in (KERNEL, WEIGHT):
        raise SettingsError(
            f"--granularity {granularity!r} does not go with iterate; choose kernel or weight"
        )
    return structure
