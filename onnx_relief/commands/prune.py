"""`onnx-relief prune`: look before, measure, mask, check, and only then give files their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from onnx_relief.commands.channels import ChannelJob, ChannelOptions, cut_channels
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.options import (
    Model,
    PrepareOptions,
    RunOptions,
    SpeakOptions,
    parse_alphas,
    parse_samples,
    preprocess_of,
)
from onnx_relief.commands.signals import check_stopped, undisturbed
from onnx_relief.errors import SettingsError
from onnx_relief.files import (
    StagedFiles,
    check_distinct,
    check_output,
    check_output_folder,
    remove_asides,
    staged_files,
)
from onnx_relief.graph.document import load
from onnx_relief.graph.save import staged
from onnx_relief.job import Job, Sources, account, choose_member, open_job, read_plan, run
from onnx_relief.pipeline import Pruned
from onnx_relief.plan import PrunePlan
from onnx_relief.report.build import Report, to_json
from onnx_relief.report.table import report_table
from onnx_relief.report.text import plain
from onnx_relief.scores import scores_by_weight, write_scores
from onnx_relief.settings import DEFAULT_ALPHA, Estimator, Granularity, Settings

CHANNEL = "channel"
_DATA = "Data"
_CHOOSING = "What is pruned, and how much"
_WRITING = "What is written"


@dataclass(frozen=True, kw_only=True)
class PruneOptions(ChannelOptions, PrepareOptions, RunOptions, SpeakOptions):
    """Everything that `prune` can be told."""

    model: Model
    data: Annotated[
        str | None,
        typer.Option(
            help="Sample data: a folder or zip of pictures, .npz, .npy, a folder of feeds; "
            "FILE.npz:train takes one split.",
            rich_help_panel=_DATA,
        ),
    ] = None
    eval_data: Annotated[
        str | None,
        typer.Option(
            help="Data to compare both models on; by default the sample data.",
            rich_help_panel=_DATA,
        ),
    ] = None
    samples: Annotated[
        str,
        typer.Option(
            help="At most so many samples of --data, evenly spread; or all.", rich_help_panel=_DATA
        ),
    ] = "1000"
    alpha: Annotated[
        float,
        typer.Option(
            help="Share of each unit's signal to keep, in (0, 1].", rich_help_panel=_CHOOSING
        ),
    ] = DEFAULT_ALPHA
    alpha_conv: Annotated[
        float | None,
        typer.Option(help="The same for convolutions.", rich_help_panel=_CHOOSING),
    ] = None
    alpha_fc: Annotated[
        float | None,
        typer.Option(help="The same for everything else.", rich_help_panel=_CHOOSING),
    ] = None
    alpha_layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=ALPHA",
            help="The same by name of layer or weight, like '/layer1/*=0.9'; repeatable, the last "
            "match counts.",
            rich_help_panel=_CHOOSING,
        ),
    ] = None
    estimator: Annotated[
        str,
        typer.Option(
            help="How the signal of kernels is estimated: paper or mean-map (cheaper).",
            rich_help_panel=_CHOOSING,
        ),
    ] = Estimator.PAPER.value
    granularity: Annotated[
        str,
        typer.Option(
            help="What goes: kernel or weight (zeros), or channel (cut out).",
            rich_help_panel=_CHOOSING,
        ),
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
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Replay a plan of --save-plan; no --data needed then.", rich_help_panel=_CHOOSING
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The pruned model; by default MODEL.pruned.onnx in the current folder.",
            rich_help_panel=_WRITING,
        ),
    ] = None
    save_plan: Annotated[
        Path | None,
        typer.Option(help="What was kept, as JSON, for --plan.", rich_help_panel=_WRITING),
    ] = None
    save_scores: Annotated[
        Path | None,
        typer.Option(
            help="What every connection is worth, as .npz, one array per weight.",
            rich_help_panel=_WRITING,
        ),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(help="Everything that is printed, as .json.", rich_help_panel=_WRITING),
    ] = None
    dump_activations: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the raw input of every layer, as .npy, one per run; "
            "layers in bodies of If, Loop and Scan are left out.",
            rich_help_panel=_WRITING,
        ),
    ] = None
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace files that exist.", rich_help_panel=_WRITING),
    ] = False

    @property
    def target(self) -> Path:
        """Where the pruned model goes."""
        return self.out or Path(f"{self.model.stem}.pruned.onnx")

    @property
    def outputs(self) -> list[tuple[str, Path]]:
        """Flag and path of every file that is written."""
        wanted = (
            ("-o", self.target),
            ("--save-plan", self.save_plan),
            ("--save-scores", self.save_scores),
            ("--report", self.report),
        )
        return [(flag, path) for flag, path in wanted if path is not None]

    @property
    def cuts_channels(self) -> bool:
        """Whether whole channels are cut out, instead of connections being set to zero."""
        return self.granularity == CHANNEL

    @property
    def _granularity(self) -> Granularity:
        if self.cuts_channels:
            return Granularity.KERNEL
        return choose_member("--granularity", Granularity, self.granularity, CHANNEL)

    @property
    def settings(self) -> Settings:
        """The choices that the method knows."""
        return Settings(
            alpha=self.alpha,
            alpha_conv=self.alpha_conv,
            alpha_fc=self.alpha_fc,
            alpha_layers=parse_alphas(self.alpha_layer),
            estimator=choose_member("--estimator", Estimator, self.estimator),
            granularity=self._granularity,
            only=tuple(self.only or ()),
            skip=tuple(self.skip or ()),
            samples=parse_samples(self.samples),
            batch_size=self.batch_size,
            provider=self.provider,
        )


def prune(options: PruneOptions) -> None:
    """Set to zero what carries little signal, and say what it cost.

    Example: onnx-relief prune model.onnx --data calibration/ --preset imagenet --alpha 0.95

    Nothing is written before everything has been checked. The model itself stays as it is, unless
    -o names it too, with --force. With --granularity channel whole channels are cut out, so that
    tensors really get smaller.
    """
    speaker = Speaker(options)
    if options.cuts_channels:
        _refuse_for_channels(options)
        cut_channels(_channel_job(options), speaker)
        return
    try:
        report = _prune(options, speaker)
    finally:
        remove_asides(path for _, path in options.outputs)
    written = dict(options.outputs)
    table = Group(
        report_table(report, verbose=options.verbose),
        *(Text(f"{_MEANING[flag]}: {plain(str(path))}") for flag, path in written.items()),
    )
    paths = {_MEANING[flag]: str(path) for flag, path in written.items()}
    speaker.result(table, to_json({**report.to_dict(), "written": paths}))


def _refuse_for_channels(options: PruneOptions) -> None:
    for flag, value in (
        ("--plan", options.plan),
        ("--save-plan", options.save_plan),
        ("--save-scores", options.save_scores),
        ("--report", options.report),
        ("--dump-activations", options.dump_activations),
    ):
        if value is not None:
            raise SettingsError(f"{flag} does not go with --granularity channel; leave it out")
    _check_outputs(options)


def _channel_job(options: PruneOptions) -> ChannelJob:
    return ChannelJob(
        model=options.model,
        data=options.data,
        eval_data=options.eval_data,
        preprocess=preprocess_of(options),
        strict=options.strict,
        settings=options.settings,
        channels=options.channel_settings(),
        metric=options.metric,
        output=options.output,
        target=options.target,
        force=options.force,
    )


def _prune(options: PruneOptions, speaker: Speaker) -> Report:
    settings = options.settings
    _check_outputs(options)
    plan = None if options.plan is None else read_plan(options.plan)
    with speaker.progress() as progress, staged_files(force=options.force) as files:
        job = _open(options, settings, plan)
        scored = options.save_scores is not None
        dump = options.dump_activations
        pruned = run(job, progress=progress, dump=dump, keep_scores=scored)
        with staged(pruned.document, options.target, force=options.force) as model:
            name = str(options.target)
            report = account(job, pruned, model.path, name=name, progress=progress)
            _stage(options, pruned, report, files)
            check_stopped()
            with undisturbed():
                model.commit()
                files.commit()
    return report


_MEANING = {
    "-o": "pruned model",
    "--save-plan": "plan",
    "--save-scores": "scores",
    "--report": "report",
}


def _check_outputs(options: PruneOptions) -> None:
    if options.report is not None and options.report.suffix.lower() != ".json":
        raise SettingsError(f"--report writes JSON, so {options.report} has to end in .json")
    if options.plan is not None and options.save_scores is not None:
        raise SettingsError("--plan replays without measuring, so there are no --save-scores")
    check_distinct(options.outputs)
    check_distinct([("MODEL", options.model), *options.outputs[1:]])
    for flag, source in (("--data", options.data), ("--eval-data", options.eval_data)):
        if source is not None:
            check_distinct([(flag, Path(source)), *options.outputs])
    for flag, path in options.outputs:
        check_output(path, flag, force=options.force)
    if options.dump_activations is not None:
        check_output_folder(options.dump_activations, "--dump-activations", force=options.force)


def _open(options: PruneOptions, settings: Settings, plan: PrunePlan | None) -> Job:
    sources = Sources(
        data=options.data,
        eval_data=options.eval_data,
        preprocess=preprocess_of(options),
        strict=options.strict,
    )
    return open_job(
        load(options.model),
        sources,
        settings,
        plan=plan,
        metric=options.metric,
        output=options.output,
    )


def _stage(options: PruneOptions, pruned: Pruned, report: Report, files: StagedFiles) -> None:
    if options.save_plan is not None:
        plan = f"{pruned.plan.to_json()}\n".encode()
        files.add(options.save_plan, "--save-plan", lambda file: file.write(plan))
    if options.report is not None:
        text = f"{report.to_json()}\n".encode()
        files.add(options.report, "--report", lambda file: file.write(text))
    if options.save_scores is not None:
        scores = scores_by_weight(pruned, options.settings.granularity)
        files.add(options.save_scores, "--save-scores", lambda file: write_scores(file, scores))
