"""`onnx-relief prune --granularity channel`: whole channels go, so that any runtime gets faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from onnx_relief.api.compare import compare
from onnx_relief.channels.pruning import ChannelsPruned, prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.commands.budget_options import BUDGETS
from onnx_relief.commands.channels_told import channels_json, channels_table
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.repair_options import RepairOptions
from onnx_relief.commands.signals import check_stopped, undisturbed
from onnx_relief.comparing.evaluation import try_out
from onnx_relief.data import Dataset, Preprocess, open_data
from onnx_relief.data.sources import is_same_data
from onnx_relief.errors import DataError, SettingsError, TargetError
from onnx_relief.files import staged_files
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.graph.origin import note_dense
from onnx_relief.graph.save import staged
from onnx_relief.measuring.shortage import about_few_samples
from onnx_relief.report.advice import SAME_DATA
from onnx_relief.report.compared import Comparison
from onnx_relief.results import Progress
from onnx_relief.settings import Settings

_CHANNELS = "Whole channels (--granularity channel)"


@dataclass(frozen=True, kw_only=True)
class ChannelOptions(RepairOptions):
    """How many channels go."""

    ratio: Annotated[
        float | None,
        typer.Option(
            help="Share of the channels that goes; 0.3 unless a target is given.",
            rich_help_panel=_CHANNELS,
        ),
    ] = None
    scope: Annotated[
        str | None,
        typer.Option(
            help="How a budget is spread. layer: the same share everywhere; global: wherever "
            "least is lost. By default layer with --ratio, and global otherwise.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    round_to: Annotated[
        str,
        typer.Option(
            help="Keep a multiple of so many channels along every axis, since runtimes work in "
            "blocks; auto times 16, 8 and 1 and takes the coarsest that is neither slower nor "
            "loses much more.",
            rich_help_panel=_CHANNELS,
        ),
    ] = "auto"
    min_units: Annotated[
        int,
        typer.Option(help="Keep at least so many of each axis.", rich_help_panel=_CHANNELS),
    ] = 1
    target_params: Annotated[
        float | None,
        typer.Option(
            help="Share of the parameters that may stay: those that are not zero, or with "
            "channels the layers' weights.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    target_macs: Annotated[
        float | None,
        typer.Option(
            help="Share of the multiply-accumulates that may stay: those with zeros are not "
            "counted, with channels they are.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    target_latency: Annotated[
        str | None,
        typer.Option(
            metavar="0.6x|60%",
            help="Share of the latency that may stay, measured on this machine, instead of "
            "--ratio.",
            rich_help_panel=_CHANNELS,
        ),
    ] = None
    latency_batch: Annotated[
        int,
        typer.Option(help="Samples per run where latency decides.", rich_help_panel=_CHANNELS),
    ] = 1
    latency_threads: Annotated[
        int,
        typer.Option(
            min=0,
            help="Threads where latency decides; 0 for ONNX Runtime's own choice.",
            rich_help_panel=_CHANNELS,
        ),
    ] = 1
    heads: Annotated[
        bool,
        typer.Option(
            "--heads",
            help="Cut whole heads of attention, instead of a part of each.",
            rich_help_panel=_CHANNELS,
        ),
    ] = False

    def channel_settings(self) -> ChannelSettings:
        """Return the choices as the method knows them.

        Raises:
            SettingsError: One of them makes no sense.
        """
        if not (self.round_to == "auto" or (self.round_to.isascii() and self.round_to.isdigit())):
            raise SettingsError(f"--round-to {self.round_to!r} is no number; give 8, 1, or auto")
        return ChannelSettings(
            ratio=self.ratio,
            scope=self.scope,
            round_to=None if self.round_to == "auto" else int(self.round_to),
            least=self.min_units,
            repair=self.repair or "least-squares",
            target_params=self.target_params,
            target_macs=self.target_macs,
            target_latency=_share_of(self.target_latency),
            heads=self.heads,
            latency_batch=self.latency_batch,
            latency_threads=self.latency_threads,
        )


def _share_of(text: str | None) -> float | None:
    """Return a share that is written as 0.6, 0.6x or 60%.

    >>> _share_of("0.6x"), _share_of("60 %"), _share_of(None)
    (0.6, 0.6, None)
    """
    if text is None:
        return None
    number, percent = text.strip().removesuffix("x"), text.strip().endswith("%")
    try:
        return float(number.removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        raise SettingsError(
            f"--target-latency {text!r} is no share; give for example 0.6x or 60%"
        ) from None


@dataclass(frozen=True, kw_only=True)
class ChannelJob:
    """What to cut, from which data, and where it goes.

    Attributes:
        model: The dense model.
        data: Calibration data.
        eval_data: What both models are compared on; None for the calibration data.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.
        settings: Which layers, how many samples, and how to run.
        channels: How many channels go.
        metric: How both models are compared.
        output: The output that the metric looks at.
        target: Where the result goes.
        report: Where everything that is printed goes as JSON.
        read: Whether anybody reads what is printed, or that file.
        force: Whether files may be replaced.
    """

    model: Path
    data: str | None
    eval_data: str | None
    preprocess: Preprocess
    strict: bool
    settings: Settings
    channels: ChannelSettings
    metric: str | None
    output: str | None
    target: Path
    report: Path | None
    read: bool
    force: bool


def cut_channels(job: ChannelJob, speaker: Speaker) -> None:
    """Cut channels out of a model; compare both and tell, if anybody reads it.

    Raises:
        TargetError: A target is not reached; the model is written all the same.
        ReliefError: As `prune_channels`.
    """
    if job.data is None:
        raise DataError("there is no calibration data; give some with --data")
    document = load(job.model)
    data = _opened(document, job, job.data)
    judged = data.take(job.settings.samples)
    if job.eval_data is not None:
        judged = _opened(document, job, job.eval_data)
    try_out(document, judged, metric=job.metric, output=job.output, provider=job.settings.provider)
    with speaker.progress() as progress:
        found = prune_channels(document, data, job.settings, job.channels, progress=progress)
        smaller = note_dense(found.document, document)
        if not job.read:  # the comparison would have shown whether it runs
            try_out(
                smaller,
                judged,
                metric=job.metric,
                output=job.output,
                provider=job.settings.provider,
            )
        with (
            staged_files(force=job.force) as files,
            staged(smaller, job.target, force=job.force) as model,
        ):
            comparison = _comparison(job, document, model.path, judged, progress)
            advice = () if comparison is None else _advice(job, comparison, data)
            if comparison is not None and job.report is not None:
                text = f"{channels_json(found, comparison, advice, written=job.target)}\n".encode()
                files.add(job.report, "--report", lambda file: file.write(text))
            check_stopped()
            with undisturbed():
                model.commit()
                files.commit()
    if comparison is not None:
        _tell(job, found, comparison, advice, speaker)
    if found.decision.missed is not None:
        raise TargetError(f"{found.decision.missed}; the model that comes closest is written")


def _comparison(
    job: ChannelJob, document: Document, written: Path, judged: Dataset, progress: Progress | None
) -> Comparison | None:
    """Return how the models compare, if anybody reads it; `written` has not got its name yet."""
    if not job.read:
        return None
    found = compare(
        document.proto if document.path is None else document.path,
        written,
        judged,
        metric=job.metric,
        output=job.output,
        batch_size=job.settings.batch_size,
        provider=job.settings.provider,
        progress=progress,
    )
    return replace(found, second=replace(found.second, name=str(job.target)))


def _advice(job: ChannelJob, comparison: Comparison, data: Dataset) -> tuple[str, ...]:
    few = about_few_samples(
        comparison.first,
        data.take(job.settings.samples).size,
        criterion=job.settings.criterion,
        repair=job.channels.repair,
    )
    return (*few, *((SAME_DATA,) if is_same_data(job.data, job.eval_data) else ()))


def _tell(
    job: ChannelJob,
    found: ChannelsPruned,
    comparison: Comparison,
    advice: Sequence[str],
    speaker: Speaker,
) -> None:
    told = channels_json(found, comparison, advice, written=job.target)
    written = {"pruned model": job.target} | ({"report": job.report} if job.report else {})
    table = channels_table(found, comparison, advice, channels=job.channels, written=written)
    speaker.result(table, told)


def _opened(document: Document, job: ChannelJob, source: str) -> Dataset:
    return open_data(
        source, input_specs(document.proto), preprocess=job.preprocess, strict=job.strict
    )
