"""`onnx-relief iterate`: prune and retrain in turns, in a folder that can be gone on with."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from onnx_relief.commands.console import Speaker
from onnx_relief.commands.options import (
    JudgeOptions,
    Model,
    PrepareOptions,
    SpeakOptions,
    parse_samples,
    preprocess_of,
)
from onnx_relief.commands.train_options import TrainOptions, parse_shares
from onnx_relief.errors import SettingsError, TargetError
from onnx_relief.files import check_distinct, check_output
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.save import save
from onnx_relief.history import IterateSettings
from onnx_relief.iteration import Iterated
from onnx_relief.iteration import iterate as run_iterations
from onnx_relief.job import choose_member
from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.iterated import iteration_line, iterations_table
from onnx_relief.report.retrained import epoch_line
from onnx_relief.report.table import sentences
from onnx_relief.report.text import plain
from onnx_relief.retrain_job import plain_train_settings
from onnx_relief.retraining import require_extra
from onnx_relief.run_folder import RunFolder
from onnx_relief.settings import Estimator, Granularity, Settings
from onnx_relief.training_job import TrainingJob, TrainingSources, open_training

_DATA = "Data"
_CHOOSING = "What is pruned, and how much"
_STOPPING = "When to stop"
_WRITING = "What is written"


@dataclass(frozen=True, kw_only=True)
class IterateOptions(TrainOptions, PrepareOptions, JudgeOptions, SpeakOptions):
    """Everything that `iterate` can be told."""

    model: Model
    data: Annotated[
        str,
        typer.Option(help="Training data, as `prune` takes it.", rich_help_panel=_DATA),
    ]
    eval_data: Annotated[
        str | None,
        typer.Option(
            help="Data to judge the models on; by default the part split off --data.",
            rich_help_panel=_DATA,
        ),
    ] = None
    calibration_samples: Annotated[
        str,
        typer.Option(
            help="Samples of --data that activity is measured on, evenly spread; or all.",
            rich_help_panel=_DATA,
        ),
    ] = "1000"
    samples: Annotated[
        str,
        typer.Option(
            help="At most so many samples of --data to train on, evenly spread; or all.",
            rich_help_panel=_DATA,
        ),
    ] = "all"
    iterations: Annotated[
        int, typer.Option(help="At most so many rounds.", rich_help_panel=_STOPPING)
    ] = 10
    until_sparsity: Annotated[
        float | None,
        typer.Option(
            help="Stop once so many percent of the layers' weights are zero.",
            rich_help_panel=_STOPPING,
        ),
    ] = None
    until_params: Annotated[
        int | None,
        typer.Option(help="Stop once so few parameters are not zero.", rich_help_panel=_STOPPING),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Stop once the metric is so many points worse than the dense model's, and keep "
            "the smallest model before that.",
            rich_help_panel=_STOPPING,
        ),
    ] = None
    alpha: Annotated[
        str,
        typer.Option(
            help="Share of each unit's signal to keep; a list like .95,.9,.8 is one for each "
            "iteration, the last one repeats.",
            rich_help_panel=_CHOOSING,
        ),
    ] = "0.95"
    alpha_conv: Annotated[
        str, typer.Option(help="The same for convolutions.", rich_help_panel=_CHOOSING)
    ] = ""
    alpha_fc: Annotated[
        str, typer.Option(help="The same for everything else.", rich_help_panel=_CHOOSING)
    ] = ""
    estimator: Annotated[
        str,
        typer.Option(
            help="How the signal of kernels is estimated: paper or mean-map (cheaper).",
            rich_help_panel=_CHOOSING,
        ),
    ] = Estimator.PAPER.value
    granularity: Annotated[
        str,
        typer.Option(help="What convolutions lose: kernel or weight.", rich_help_panel=_CHOOSING),
    ] = Granularity.KERNEL.value
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Prune only layers of such names; repeatable.",
            rich_help_panel=_CHOOSING,
        ),
    ] = None
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave layers of such names alone; repeatable.",
            rich_help_panel=_CHOOSING,
        ),
    ] = None
    rewind_to: Annotated[
        Path | None,
        typer.Option(
            metavar="INIT.onnx",
            help="Set surviving weights back to those of this model before each retraining.",
            rich_help_panel=_CHOOSING,
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The model that is kept; by default RUN/best.onnx.",
            rich_help_panel=_WRITING,
        ),
    ] = None
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder for every iteration, history.csv and curve.svg; a stopped run goes on "
            "there. By default MODEL.iterate in the current folder.",
            rich_help_panel=_WRITING,
        ),
    ] = None
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin anew instead of going on.", rich_help_panel=_WRITING),
    ] = False
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace a file that -o names.", rich_help_panel=_WRITING),
    ] = False

    @property
    def folder(self) -> RunFolder:
        """Where everything goes."""
        return RunFolder(self.run or Path(f"{self.model.stem}.iterate"))

    @property
    def target(self) -> Path:
        """Where the model goes that is kept."""
        return self.out or self.folder.path / "best.onnx"

    @property
    def settings(self) -> IterateSettings:
        """The choices as the method knows them."""
        return IterateSettings(
            prune=Settings(
                estimator=choose_member("--estimator", Estimator, self.estimator),
                granularity=choose_member("--granularity", Granularity, self.granularity),
                only=tuple(self.only or ()),
                skip=tuple(self.skip or ()),
                samples=parse_samples(self.calibration_samples),
                provider=self.provider,
            ),
            train=self.train_settings(output=self.output),
            iterations=self.iterations,
            alphas=parse_shares(self.alpha, "--alpha"),
            alphas_conv=parse_shares(self.alpha_conv, "--alpha-conv"),
            alphas_fc=parse_shares(self.alpha_fc, "--alpha-fc"),
            until_sparsity=self.until_sparsity,
            until_params=self.until_params,
            max_drop=self.max_drop,
        )


def iterate(options: IterateOptions) -> None:
    """Prune and retrain in turns until next to nothing can go any more.

    Example: onnx-relief iterate model.onnx --data train/ --eval-data test/ --max-drop 0.5

    Learns from labels, or from the model itself where there are none. Interrupted and started
    again with the same words, it goes on where it was.
    """
    require_extra()
    speaker = Speaker(options)
    settings = options.settings
    _check(options, settings)
    with speaker.progress() as progress:
        job = _open(options, settings)
        folder = options.folder
        if options.restart:
            folder.restart()
        folder.begin(_said(options, settings, job))
        found = run_iterations(
            job,
            settings,
            folder,
            calibration=job.training,
            rewind_to=None if options.rewind_to is None else load(options.rewind_to),
            progress=progress,
            on_epoch=lambda row: speaker.line(f"  {epoch_line(row, settings.train.epochs)}"),
            on_iteration=lambda row: speaker.line(iteration_line(row)),
        )
        save(found.document, options.target, force=options.force or options.out is None)
    _tell(speaker, options, found)
    if not found.met:
        raise TargetError(
            f"the target was not reached ({found.reason}); {options.target} holds the model of "
            f"iteration {found.best.iteration}, which comes nearest; give it more --iterations, a "
            "lower --alpha or more --epochs"
        )


def _tell(speaker: Speaker, options: IterateOptions, found: Iterated) -> None:
    table = Group(
        iterations_table(found.rows, found.best, found.unit),
        *sentences((f"Stopped because {found.reason}", f"{found.metric}, judged on {found.data}")),
        Text(f"model of iteration {found.best.iteration}: {plain(str(options.target))}"),
        Text(f"all iterations, history.csv and curve.svg: {plain(str(options.folder.path))}"),
    )
    told = {
        "format": "onnx-relief iterations 1",
        "rows": as_plain(found.rows),
        "best": found.best.iteration,
        "metric": found.metric,
        "data": found.data,
        "met": found.met,
        "reason": found.reason,
        "written": str(options.target),
        "run": str(options.folder.path),
    }
    speaker.result(table, to_json(told))


def _check(options: IterateOptions, settings: IterateSettings) -> None:
    if settings.train.devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "iterate trains in one process; leave --devices out, or alternate `prune` and "
            "`retrain --devices` yourself"
        )
    inputs = [("MODEL", options.model), ("--data", Path(options.data))]
    inputs += [("--rewind-to", options.rewind_to)] if options.rewind_to else []
    inputs += [("--teacher", options.teacher)] if options.teacher else []
    for named in inputs:
        check_distinct([named, ("-o", options.target)])
    if options.out is not None:
        check_output(options.out, "-o", force=options.force)


def _open(options: IterateOptions, settings: IterateSettings) -> TrainingJob:
    document = load(options.model)
    return open_training(
        document,
        TrainingSources(
            data=options.data,
            eval_data=options.eval_data,
            samples=parse_samples(options.samples),
            preprocess=preprocess_of(options),
            strict=options.strict,
        ),
        settings.train,
        teacher=None if options.teacher is None else load(options.teacher),
        dense=document,
        distil=bool(options.distill),
        metric=options.metric,
        output=options.output,
        freeze=tuple(options.freeze or ()),
        provider=options.provider,
    )


def _said(options: IterateOptions, settings: IterateSettings, job: TrainingJob) -> dict[str, Any]:
    """Return what makes this run what it is; where to stop may change from start to start."""
    prune = {key: str(value) for key, value in asdict(settings.prune).items()}
    train = plain_train_settings(settings.train)
    return {
        "model": str(options.model),
        "data": job.training.description,
        "eval_data": job.judge.data.description,
        "inputs": [spec.name for spec in input_specs(job.document.proto)],
        "teacher": None if job.teacher is None else job.teacher.name,
        "rewind_to": None if options.rewind_to is None else str(options.rewind_to),
        "metric": options.metric,
        "alpha": [options.alpha, options.alpha_conv, options.alpha_fc],
        **{f"prune {key}": value for key, value in prune.items()},
        **{f"train {key}": value for key, value in train.items()},
    }
