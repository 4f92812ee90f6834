"""`onnx-relief retrain`: train what pruning left, hold the zeros, and write the same file back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from onnx_relief.bridge.extra import require_extra
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import (
    DATA,
    WRITING,
    Force,
    JudgingData,
    Model,
    ReportFile,
    Restart,
    Samples,
    TrainingData,
)
from onnx_relief.commands.options import (
    JudgeOptions,
    PrepareOptions,
    SpeakOptions,
    parse_samples,
    preprocess_of,
)
from onnx_relief.commands.outputs import check_outputs
from onnx_relief.commands.signals import Stopped, check_stopped, undisturbed
from onnx_relief.commands.train_options import TrainOptions
from onnx_relief.compaction.compact import compact_on
from onnx_relief.errors import SettingsError
from onnx_relief.files import remove_asides, staged_files
from onnx_relief.graph.document import Document, load
from onnx_relief.graph.save import staged
from onnx_relief.job import read_plan
from onnx_relief.report.build import to_json
from onnx_relief.report.retrained import RetrainReport, epoch_line, retrain_table
from onnx_relief.report.text import plain
from onnx_relief.retraining.folder import check_folder, clear, holds_checkpoint
from onnx_relief.retraining.job import account, judge_start, run
from onnx_relief.retraining.opening import TrainingJob, TrainingSources, open_training


@dataclass(frozen=True, kw_only=True)
class RetrainOptions(TrainOptions, PrepareOptions, JudgeOptions, SpeakOptions):
    """Everything that `retrain` can be told."""

    model: Model
    data: TrainingData
    eval_data: JudgingData = None
    samples: Samples = "all"
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Hold what this plan of `prune --save-plan` dropped; by default the zeros of the "
            "file.",
            rich_help_panel=DATA,
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The retrained model; by default MODEL.retrained.onnx in the current folder.",
            rich_help_panel=WRITING,
        ),
    ] = None
    report: ReportFile = None
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints, which a stopped run goes on from; by default OUT.run, "
            "removed at the end.",
            rich_help_panel=WRITING,
        ),
    ] = None
    restart: Restart = False
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="Cut out what is dead, as the command compact does.",
            rich_help_panel=WRITING,
        ),
    ] = False
    force: Force = False

    @property
    def target(self) -> Path:
        """Where the retrained model goes."""
        return self.out or Path(f"{self.model.stem.removesuffix('.pruned')}.retrained.onnx")

    @property
    def folder(self) -> Path:
        """Where checkpoints go."""
        return self.run or self.target.with_name(f"{self.target.name}.run")

    @property
    def outputs(self) -> list[tuple[str, Path]]:
        """Flag and path of every file that is written."""
        wanted = (("-o", self.target), ("--report", self.report))
        return [(flag, path) for flag, path in wanted if path is not None]


def retrain(options: RetrainOptions) -> None:
    """Train the weights that pruning left; what is zero stays exactly zero.

    Example: onnx-relief retrain model.pruned.onnx --data train/ --epochs 10

    Learns from labels, or from the dense model where there are none.

    Started again after an interruption, it goes on where it was.
    """
    require_extra()
    main = is_main_process()
    speaker = Speaker(options, silent=not main)
    if main:
        _check_outputs(options)
    plan = None if options.plan is None else read_plan(options.plan)
    with _told_how_to_go_on(speaker, options.folder), speaker.progress() as progress:
        job = _open(options)
        if options.restart and main:
            clear(options.folder)
        before = judge_start(job, plan, progress=progress) if main else None
        retrained = run(
            job,
            folder=options.folder,
            plan=plan,
            progress=progress,
            on_epoch=lambda row: speaker.line(epoch_line(row, options.epochs)),
        )
        if before is None:
            return
        report = account(job, retrained, before, progress=progress)
        document = retrained.document
        if options.compact:
            document = compact_on(document, job.training, provider=options.provider).document
        _write(options, document, report)
    if options.run is None:
        clear(options.folder)
    said = Group(
        retrain_table(report, verbose=options.verbose),
        Text(f"retrained model: {plain(str(options.target))}"),
    )
    speaker.result(said, to_json({**report.to_dict(), "written": str(options.target)}))


def is_main_process() -> bool:
    """Whether this is the process that speaks and writes, of those that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0"


@contextmanager
def _told_how_to_go_on(speaker: Speaker, folder: Path) -> Iterator[None]:
    """Leave nothing behind that cannot be gone on with, and say of the rest what it is good for."""
    try:
        yield
    except Stopped:
        if holds_checkpoint(folder):
            speaker.line(f"{folder} holds the epochs so far; start again in the same way to go on")
        raise
    finally:
        if not holds_checkpoint(folder):
            clear(folder)


def _check_outputs(options: RetrainOptions) -> None:
    if options.report is not None and options.report.suffix.lower() != ".json":
        raise SettingsError(f"--report writes JSON, so {options.report} has to end in .json")
    check_outputs(
        options.outputs,
        models=[("MODEL", options.model), ("--teacher", options.teacher)],
        data=[("--data", options.data), ("--eval-data", options.eval_data)],
        others=[("--plan", options.plan)],
        force=options.force,
    )
    check_folder(options.folder, "--run")


def _open(options: RetrainOptions) -> TrainingJob:
    return open_training(
        load(options.model),
        TrainingSources(
            data=options.data,
            eval_data=options.eval_data,
            samples=parse_samples(options.samples),
            preprocess=preprocess_of(options),
            strict=options.strict,
        ),
        options.train_settings(output=options.output),
        teacher=None if options.teacher is None else load(options.teacher),
        distil=bool(options.distill),
        metric=options.metric,
        output=options.output,
        freeze=tuple(options.freeze or ()),
        provider=options.provider,
    )


def _write(options: RetrainOptions, document: Document, report: RetrainReport) -> None:
    try:
        with (
            staged_files(force=options.force) as files,
            staged(document, options.target, force=options.force) as model,
        ):
            if options.report is not None:
                text = f"{report.to_json()}\n".encode()
                files.add(options.report, "--report", lambda file: file.write(text))
            check_stopped()
            with undisturbed():
                model.commit()
                files.commit()
    finally:
        remove_asides(path for _, path in options.outputs)
