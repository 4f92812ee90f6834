"""`onnx-relief analyze`: which parts of a model bear pruning; stopped, it goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from onnx_relief.analysis import Analysis
from onnx_relief.api.analyze import analyze as run_analysis
from onnx_relief.budget import parse_bytes
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import DATA, WRITING, Model, Restart, Samples
from onnx_relief.commands.options import (
    CHOOSING,
    ChooseOptions,
    PrepareOptions,
    RunOptions,
    SpeakOptions,
    check_plot,
    parse_samples,
    parse_sparsities,
    preprocess_of,
)
from onnx_relief.commands.outputs import check_outputs
from onnx_relief.commands.signals import Stopped, undisturbed
from onnx_relief.errors import SettingsError
from onnx_relief.files import check_distinct, staged_files
from onnx_relief.report.analyzed import analysis_page, analysis_svg, analysis_table
from onnx_relief.report.build import to_json
from onnx_relief.report.text import plain
from onnx_relief.trials.log import TrialLog
from onnx_relief.trials.workers import processors

_WHERE = "Where it runs"
_MOST_JOBS = 8


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(ChooseOptions, PrepareOptions, RunOptions, SpeakOptions):
    """Everything that `analyze` can be told."""

    model: Model
    data: Annotated[
        str,
        typer.Option(help="Sample data, as `prune` takes it.", rich_help_panel=DATA),
    ]
    eval_data: Annotated[
        str | None,
        typer.Option(
            help="Data to judge the pruned models on; by default the sample data.",
            rich_help_panel=DATA,
        ),
    ] = None
    samples: Samples = "1000"
    criterion: Annotated[
        str,
        typer.Option(
            help="What scores connections, as `prune` takes it.", rich_help_panel=CHOOSING
        ),
    ] = "obs"
    granularity: Annotated[
        str,
        typer.Option(
            help="What goes of a layer: kernel, weight, row or a block like 4x1; or 2:4, which "
            "keeps 2 of every 4 inputs whatever --sparsities says; or channel: channels that live "
            "or die together are cut; or both, like weight,channel.",
            rich_help_panel=CHOOSING,
        ),
    ] = "kernel,channel"
    sparsities: Annotated[
        str,
        typer.Option(help="Shares that go, one after the other.", rich_help_panel=CHOOSING),
    ] = "0.3,0.5,0.7,0.9"
    metric: Annotated[
        str | None,
        typer.Option(
            help="How pruned models are judged: accuracy (with labels), divergence (without: mean "
            "square error of the outputs relative to their variance), kl, or top5, agreement, "
            "cosine, error.",
            rich_help_panel=DATA,
        ),
    ] = None
    memory: Annotated[
        str,
        typer.Option(
            metavar="2GB", help="Memory that second moments may take.", rich_help_panel=CHOOSING
        ),
    ] = "2GB"
    seed: Annotated[int, typer.Option(help="For what is drawn.", rich_help_panel=CHOOSING)] = 0
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Processes, each with one thread and the model in memory; by default one for "
            f"each processor, {_MOST_JOBS} at most.",
            rich_help_panel=_WHERE,
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on a Ray cluster instead: host:port, auto, or local to start one here. "
            "Data has to lie in the same place on every machine (extra \\[distributed]).",
            rich_help_panel=_WHERE,
        ),
    ] = None
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder for finished trials, analysis.json and analysis.svg; a stopped analysis "
            "goes on there. By default MODEL.analysis in the current folder.",
            rich_help_panel=WRITING,
        ),
    ] = None
    restart: Restart = False
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The result as .json, too.", rich_help_panel=WRITING),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(help="The result as .svg or .html, too.", rich_help_panel=WRITING),
    ] = None
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace what -o and --plot name.", rich_help_panel=WRITING),
    ] = False

    @property
    def folder(self) -> Path:
        """Where finished trials are."""
        return self.run or Path(f"{self.model.stem}.analysis")

    @property
    def outputs(self) -> list[tuple[str, Path]]:
        """Flag and path of the files that are written besides."""
        named = (("-o", self.out), ("--plot", self.plot))
        return [(flag, path) for flag, path in named if path is not None]


def analyze(options: AnalyzeOptions) -> None:
    """Prune one layer, or one kind of channels, alone at a time, and say what the model loses.

    Example: onnx-relief analyze model.onnx --data test.npz --sparsities 0.5,0.9

    Every finished trial is kept: started again after an interruption, it goes on where it was.
    """
    speaker = Speaker(options)
    _check(options)
    log = TrialLog(options.folder)
    with _told_how_to_go_on(speaker, log), speaker.progress() as progress:
        found = run_analysis(
            options.model,
            options.data,
            eval_data=options.eval_data,
            criterion=options.criterion,
            granularity=options.granularity,
            sparsities=parse_sparsities("--sparsities", options.sparsities),
            metric=options.metric,
            output=options.output,
            estimator=options.estimator,
            only=tuple(options.only or ()),
            skip=tuple(options.skip or ()),
            samples=parse_samples(options.samples),
            batch_size=options.batch_size,
            memory=parse_bytes("--memory", options.memory),
            seed=options.seed,
            provider=options.provider,
            preprocess=preprocess_of(options),
            strict=options.strict,
            jobs=_jobs(options),
            ray=options.ray,
            run=options.folder,
            restart=options.restart,
            progress=progress,
        )
        _write(options, found)
    named = (*options.outputs, ("trials, analysis.json and analysis.svg", options.folder))
    paths = [Text(f"{flag}: {plain(str(path))}") for flag, path in named]
    told = {**found.to_dict(), "run": str(options.folder)}
    speaker.result(Group(analysis_table(found), *paths), to_json(told))


def _jobs(options: AnalyzeOptions) -> int:
    if options.jobs is not None:
        if options.jobs < 1:
            raise SettingsError(f"--jobs must be at least 1, got {options.jobs}")
        return options.jobs
    return 1 if options.ray is not None else min(processors(), _MOST_JOBS)


def _write(options: AnalyzeOptions, found: Analysis) -> None:
    text, picture = f"{found.to_json()}\n".encode(), analysis_svg(found).encode()
    page = analysis_page(found).encode()
    with staged_files(force=True) as own, staged_files(force=options.force) as asked:
        own.add(options.folder / "analysis.json", "--run", lambda file: file.write(text))
        own.add(options.folder / "analysis.svg", "--run", lambda file: file.write(picture))
        if options.out is not None:
            asked.add(options.out, "-o", lambda file: file.write(text))
        if options.plot is not None:
            drawn = page if options.plot.suffix.lower() == ".html" else picture
            asked.add(options.plot, "--plot", lambda file: file.write(drawn))
        with undisturbed():
            own.commit()
            asked.commit()


def _check(options: AnalyzeOptions) -> None:
    check_plot(options.plot)
    if options.out is not None and options.out.suffix.lower() != ".json":
        raise SettingsError(f"-o writes JSON, so {options.out} has to end in .json")
    if options.out is not None:
        check_distinct([("MODEL", options.model), ("-o", options.out)])
    check_outputs(
        options.outputs,
        models=[("MODEL", options.model)],
        data=[("--data", options.data), ("--eval-data", options.eval_data)],
        force=options.force,
    )


@contextmanager
def _told_how_to_go_on(speaker: Speaker, log: TrialLog) -> Iterator[None]:
    """Say of an interrupted analysis what it is good for."""
    try:
        yield
    except Stopped:
        if log.file.exists():
            speaker.line(f"{log.folder} holds what is done; start again in the same way to go on")
        raise
