"""`onnx-relief iterate`: prune and retrain in turns, in a folder that can be gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from onnx_relief.api.iterate import iterate as run_iterations
from onnx_relief.bridge.extra import require_extra
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import DATA, WRITING, JudgingData, Model, Restart, TrainingData
from onnx_relief.commands.options import (
    CHOOSING,
    ChooseOptions,
    JudgeOptions,
    PrepareOptions,
    SpeakOptions,
    parse_samples,
    preprocess_of,
)
from onnx_relief.commands.outputs import check_outputs
from onnx_relief.commands.signals import Stopped
from onnx_relief.commands.train_options import TrainOptions, parse_shares
from onnx_relief.compaction.compact import compact_on
from onnx_relief.data import open_data
from onnx_relief.errors import TargetError
from onnx_relief.files import check_distinct
from onnx_relief.graph.document import input_specs
from onnx_relief.graph.save import save
from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.iterated import iteration_line, iterations_table
from onnx_relief.report.retrained import epoch_line
from onnx_relief.report.table import sentences
from onnx_relief.report.text import plain
from onnx_relief.retraining.iteration import Iterated
from onnx_relief.retraining.run_folder import RunFolder
from onnx_relief.structures import KERNEL

_STOPPING = "When to stop"


@dataclass(frozen=True, kw_only=True)
class IterateOptions(ChooseOptions, TrainOptions, PrepareOptions, JudgeOptions, SpeakOptions):
    """Everything that `iterate` can be told."""

    model: Model
    data: TrainingData
    eval_data: JudgingData = None
    calibration_samples: Annotated[
        str,
        typer.Option(
            help="Samples of --data that activity is measured on, evenly spread; or all.",
            rich_help_panel=DATA,
        ),
    ] = "1000"
    samples: Annotated[
        str,
        typer.Option(
            help="At most so many samples of --data to train on, evenly spread; or all.",
            rich_help_panel=DATA,
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
            rich_help_panel=CHOOSING,
        ),
    ] = "0.95"
    alpha_conv: Annotated[
        str, typer.Option(help="The same for convolutions.", rich_help_panel=CHOOSING)
    ] = ""
    alpha_fc: Annotated[
        str, typer.Option(help="The same for everything else.", rich_help_panel=CHOOSING)
    ] = ""
    granularity: Annotated[
        str,
        typer.Option(help="What convolutions lose: kernel or weight.", rich_help_panel=CHOOSING),
    ] = str(KERNEL)
    rewind_to: Annotated[
        Path | None,
        typer.Option(
            metavar="INIT.onnx",
            help="Set surviving weights back to those of this model before each retraining.",
            rich_help_panel=CHOOSING,
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The model that is kept; by default RUN/best.onnx.",
            rich_help_panel=WRITING,
        ),
    ] = None
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder for every iteration, history.csv and curve.svg; a stopped run goes on "
            "there. By default MODEL.iterate in the current folder.",
            rich_help_panel=WRITING,
        ),
    ] = None
    restart: Restart = False
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="Cut out of the model that is kept what is dead, as compact does.",
            rich_help_panel=WRITING,
        ),
    ] = False
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace a file that -o names.", rich_help_panel=WRITING),
    ] = False

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.run or Path(f"{self.model.stem}.iterate")

    @property
    def target(self) -> Path:
        """Where the model goes that is kept."""
        return self.out or self.folder / ("best.compact.onnx" if self.compact else "best.onnx")


def iterate(options: IterateOptions) -> None:
    """Prune and retrain in turns until next to nothing can go any more.

    Example: onnx-relief iterate model.onnx --data train/ --max-drop 0.5

    Learns from labels, or from the model itself where there are none.

    Started again after an interruption, it goes on where it was.
    """
    require_extra()
    speaker = Speaker(options)
    training = options.train_settings(output=options.output)
    _check(options)
    with _told_how_to_go_on(speaker, options.folder), speaker.progress() as progress:
        found = run_iterations(
            options.model,
            options.data,
            options.folder,
            **_choices(options),
            progress=progress,
            on_epoch=lambda row: speaker.line(f"  {epoch_line(row, options.epochs)}"),
            on_iteration=lambda row: speaker.line(iteration_line(row)),
            **{k: v for k, v in vars(training).items() if k not in ("label_output", "distill")},
        )
        document = found.document
        if options.compact:
            inputs, prepare = input_specs(document.proto), preprocess_of(options)
            data = open_data(options.data, inputs, preprocess=prepare, strict=options.strict)
            document = compact_on(document, data, provider=options.provider).document
        if options.compact or options.out is not None:
            save(document, options.target, force=options.force or options.out is None)
    _tell(speaker, options, found)
    if not found.met:
        raise TargetError(
            f"the target was not reached ({found.reason}); {options.target} holds the model of "
            f"iteration {found.best.iteration}, which comes nearest; {found.advice}"
        )


@contextmanager
def _told_how_to_go_on(speaker: Speaker, folder: Path) -> Iterator[None]:
    """Say of an interrupted run what it is good for."""
    try:
        yield
    except Stopped:
        if RunFolder(folder).holds_work:
            speaker.line(f"{folder} holds what is done; start again in the same way to go on")
        raise


def _tell(speaker: Speaker, options: IterateOptions, found: Iterated) -> None:
    table = Group(
        iterations_table(found.rows, found.best, found.unit),
        *sentences(_remarks(options, found)),
        Text(f"model of iteration {found.best.iteration}: {plain(str(options.target))}"),
        Text(f"all iterations, history.csv and curve.svg: {plain(str(options.folder))}"),
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
        "run": str(options.folder),
    }
    speaker.result(table, to_json(told))


def _remarks(options: IterateOptions, found: Iterated) -> Iterator[str]:
    yield f"Stopped because {found.reason}"
    yield f"{found.metric}, judged on {found.data}"
    if options.eval_data is None:
        part = "chose the best epochs, too" if options.validation else "were trained on, too"
        yield f"These samples {part}; --eval-data gives honest scores"


def _choices(options: IterateOptions) -> dict[str, Any]:
    """Return what `iterate` takes besides data and training."""
    same = (
        *("iterations", "until_sparsity", "until_params", "max_drop", "estimator", "granularity"),
        *("rewind_to", "teacher", "distill", "eval_data", "metric", "output", "provider"),
        *("strict", "restart"),
    )
    return {
        **{name: getattr(options, name) for name in same},
        "alpha": parse_shares(options.alpha, "--alpha"),
        "alpha_conv": parse_shares(options.alpha_conv, "--alpha-conv"),
        "alpha_fc": parse_shares(options.alpha_fc, "--alpha-fc"),
        "only": tuple(options.only or ()),
        "skip": tuple(options.skip or ()),
        "samples": parse_samples(options.samples),
        "calibration_samples": parse_samples(options.calibration_samples, "--calibration-samples"),
        "freeze": tuple(options.freeze or ()),
        "preprocess": preprocess_of(options),
    }


def _check(options: IterateOptions) -> None:
    models = [("--rewind-to", options.rewind_to), ("--teacher", options.teacher)]
    check_distinct([("MODEL", options.model), ("-o", options.target)])
    check_outputs(
        [] if options.out is None else [("-o", options.out)],
        models=models,
        data=[("--data", options.data), ("--eval-data", options.eval_data)],
        force=options.force,
    )
