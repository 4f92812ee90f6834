"""`onnx-relief prune --granularity channel`: whole channels go, so that any runtime gets faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from onnx_relief.api.compare import compare
from onnx_relief.channels.budget import Decision
from onnx_relief.channels.pruning import ChannelsPruned, prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.commands.budget_options import BUDGETS
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.repair_options import RepairOptions
from onnx_relief.data import Dataset, Preprocess, open_data
from onnx_relief.errors import DataError, SettingsError, TargetError
from onnx_relief.evaluation import try_out
from onnx_relief.files import write_file
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.graph.origin import note_dense
from onnx_relief.graph.save import save
from onnx_relief.report.advice import SAME_DATA
from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.compared import Comparison
from onnx_relief.report.table import evaluation_table, repair_sentences, sentences, totals_table
from onnx_relief.report.text import plain, plural, time_text
from onnx_relief.results import Progress
from onnx_relief.settings import Settings
from onnx_relief.shortage import about_few_samples

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
            "blocks; auto times 16, 8 and 1 and takes the coarsest that is not slower.",
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
            help="Share of the multiply-accumulates that may stay, those with zeros not counted.",
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
        save(smaller, job.target, force=job.force)
        comparison = _comparison(job, document, judged, progress) if job.read else None
    if comparison is not None:
        few = about_few_samples(
            comparison.first,
            data.take(job.settings.samples).size,
            criterion=job.settings.criterion,
            repair=job.channels.repair,
        )
        same = () if job.eval_data else (SAME_DATA,)
        _tell(job, found, comparison, (*few, *same), speaker)
    if found.decision.missed is not None:
        raise TargetError(f"{found.decision.missed}; the model that comes closest is written")


def _comparison(
    job: ChannelJob, document: Document, judged: Dataset, progress: Progress | None
) -> Comparison:
    return compare(
        document.proto if document.path is None else document.path,
        job.target,
        judged,
        metric=job.metric,
        output=job.output,
        batch_size=job.settings.batch_size,
        provider=job.settings.provider,
        progress=progress,
    )


def _tell(
    job: ChannelJob,
    found: ChannelsPruned,
    comparison: Comparison,
    advice: Sequence[str],
    speaker: Speaker,
) -> None:
    told = _json(job, found, comparison, advice)
    if job.report is not None:
        text = f"{told}\n".encode()
        write_file(job.report, "--report", lambda file: file.write(text), force=job.force)
    speaker.result(_table(job, found, comparison, advice), told)


def _opened(document: Document, job: ChannelJob, source: str) -> Dataset:
    return open_data(
        source, input_specs(document.proto), preprocess=job.preprocess, strict=job.strict
    )


def _table(
    job: ChannelJob, found: ChannelsPruned, comparison: Comparison, advice: Sequence[str]
) -> Group:
    parts = [totals_table(comparison.first, comparison.second, comparison.latency)]
    notes: tuple[str, ...] = ()
    if comparison.evaluation is not None:
        parts.append(evaluation_table(comparison.evaluation))  # type: ignore[arg-type]
        notes = comparison.evaluation.notes
    return Group(
        *parts,
        *sentences([*_told(job, found), *advice, *notes]),
        Text(f"pruned model: {plain(str(job.target))}"),
        *([Text(f"report: {plain(str(job.report))}")] if job.report else ()),
    )


def _told(job: ChannelJob, found: ChannelsPruned) -> list[str]:
    layers = plural(found.corrected, "layer")
    given = f"biases of {layers} give back the mean signal that was lost"
    lines = [
        *_decided(job.channels, found.decision),
        f"{found.removed:,} of {plural(found.groups, 'group')} of channels are cut",
        *([given] if found.corrected else ()),
        *(repair_sentences(found.repair) if found.repair else ()),
        _remedy(job),
    ]
    return lines + [
        f"{plural(count, 'channel')} {'stays' if count == 1 else 'stay'}: {why}"
        for why, count in (*_most(found.unseen), *_most(found.kept))
    ]


def _remedy(job: ChannelJob) -> str:
    """Say what brings accuracy back: a few hundred samples are too few for training anew."""
    retrain = "with thousands of samples `onnx-relief retrain`"
    if job.channels.repair != "reconstruct":
        retrain = f"`--repair reconstruct` or {retrain}"
    return f"{retrain} brings back much of the accuracy that this cost"


def _decided(channels: ChannelSettings, decision: Decision) -> Iterator[str]:
    """Yield what was found by measuring."""
    threads = {0: "ONNX Runtime's own number of threads", 1: "one thread"}
    how = (
        f"batch {decision.batch}, "
        f"{threads.get(channels.latency_threads, f'{channels.latency_threads} threads')}"
    )
    if decision.tried:
        times = ", ".join(
            f"{one.multiple}: {time_text(one.milliseconds)}"
            for one in decision.tried
            if one.milliseconds is not None
        )
        yield (
            f"multiples of {decision.multiple} channels stay, the coarsest that is not slower "
            f"({times}; {how})"
        )
    if decision.latency is not None:
        yield (
            f"a ratio of {decision.ratio:.3g} leaves {decision.latency:.1%} of the latency "
            f"({how}), when measured last"
        )
    elif decision.left is not None:
        what = "weights" if channels.target_params is not None else "multiply-accumulates"
        yield f"{decision.left:.3%} of the {what} of all layers are left"
    elif decision.ratio != channels.ratio:
        yield f"the ratio is {decision.ratio:.3g}"


def _most(kept: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(kept.items(), key=lambda pair: -pair[1])[:5]


def _json(
    job: ChannelJob, found: ChannelsPruned, comparison: Comparison, advice: Sequence[str]
) -> str:
    return to_json(
        {
            "format": "onnx-relief channels 1",
            "groups": found.groups,
            "removed": found.removed,
            "corrected": found.corrected,
            "repair": None if found.repair is None else as_plain(found.repair),
            "kept": {**found.unseen, **found.kept},
            "ratio": found.decision.ratio,
            "round_to": found.decision.multiple,
            "tried": [as_plain(one) for one in found.decision.tried],
            "latency": found.decision.latency,
            "missed": found.decision.missed,
            "advice": list(advice),
            "comparison": as_plain(comparison),
            "written": str(job.target),
        }
    )
