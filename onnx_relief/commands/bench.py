"""`onnx-relief bench`: latency, work and memory of models side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import Shape
from onnx_relief.commands.one_feed import made_up
from onnx_relief.commands.options import SpeakOptions, parse_shapes
from onnx_relief.data.batch import Array
from onnx_relief.deploy.bench import Measured
from onnx_relief.deploy.bench import bench as put_in_turns
from onnx_relief.deploy.verify import Effort
from onnx_relief.errors import ModelError, ReliefError, SettingsError
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.inspection import inspect
from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.table import named_table, sentences
from onnx_relief.report.text import bytes_text, count_text, plain, share_text, time_text
from onnx_relief.results import Progress
from onnx_relief.tensors import TensorSpec

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class BenchOptions(SpeakOptions):
    """Everything that `bench` can be told."""

    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Models; the first is 100 %.", show_default=False),
    ]
    batch: Annotated[
        str | None,
        typer.Option(help="Samples per run, where the model leaves that open: 1,32."),
    ] = None
    threads: Annotated[
        int, typer.Option(min=0, help="Threads; 0 for ONNX Runtime's own choice.")
    ] = 1
    shape: Shape = None
    sessions: Annotated[int, typer.Option(min=1, help="Fresh processes per model.")] = 5
    seconds: Annotated[
        float, typer.Option(min=0, help="About how long the timed runs of one process take.")
    ] = 0.5
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which a process is ended.")
    ] = 120.0


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One model at one batch size.

    Attributes:
        model: Its path, as it was given.
        batch: Samples per run; None for what the model fixes, or one.
        macs: Multiply-accumulates per sample, zeros included; None where they are not known.
        measured: What ONNX Runtime needed.
        left: Latency as a share of the first model's.
    """

    model: str
    batch: int | None
    macs: float | None
    measured: Measured
    left: float | None = None


def bench(options: BenchOptions) -> None:
    """Time models side by side in ONNX Runtime: fresh processes in turns, median and spread.

    Example: onnx-relief bench model.onnx model.small.onnx --batch 1,32 --threads 1

    A model that cannot be run has a row that says why; the exit code is 3 then.
    """
    speaker = Speaker(options)
    batches, shapes = _batches(options.batch), parse_shapes(options.shape)
    documents = [load(path) for path in options.models]
    macs = [_macs(path, shapes) for path in options.models]
    rows: list[BenchRow] = []
    with speaker.progress() as progress:
        for batch in batches:
            found = _timed(documents, batch, shapes, options, _teller(progress, batch, options))
            rows += _rows(options, batch, macs, found)
    told = {
        "format": "onnx-relief bench 1",
        "threads": options.threads,
        "rows": [as_plain(row) for row in rows],
    }
    speaker.result(_shown(rows, options), to_json(told))
    _refuse_failure(rows)


def _teller(progress: Progress, batch: int | None, options: BenchOptions) -> Callable[[int], None]:
    stage = "timing" if batch is None else f"timing, batch {batch}"
    return lambda done: progress(stage, done, options.sessions * len(options.models))


def _batches(text: str | None) -> list[int | None]:
    if text is None:
        return [None]
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise SettingsError(f"--batch {text!r} is no list of numbers; give for example 1,32")
    return [int(part) for part in parts]


def _macs(path: Path, shapes: Shapes) -> float | None:
    try:
        return inspect(path, shapes=shapes, provider="cpu").cost.macs
    except ReliefError:
        return None  # what is wrong with the model is said where it is timed


def _timed(
    documents: Sequence[Document],
    batch: int | None,
    shapes: Shapes,
    options: BenchOptions,
    tell: Callable[[int], None],
) -> list[Measured]:
    """Return one entry per model; those that cannot take the batch are left out of the turns."""
    feeds = [_feed(input_specs(document.proto), batch, shapes) for document in documents]
    pairs = [(one, feed) for one, feed in zip(documents, feeds, strict=True) if feed is not None]
    effort = Effort(
        threads=options.threads,
        sessions=options.sessions,
        seconds=options.seconds,
        limit=options.timeout,
    )
    timed = iter(
        put_in_turns(
            [document for document, _ in pairs],
            [feed for _, feed in pairs],
            effort=effort,
            tell=tell,
        )
    )
    return [_fixed(batch) if feed is None else next(timed) for feed in feeds]


def _fixed(batch: int | None) -> Measured:
    reason = f"the model fixes another number of samples per run than {batch}"
    return Measured(timing=None, peak_memory=None, memory_before=None, error=reason)


def _refuse_failure(rows: Sequence[BenchRow]) -> None:
    """Say which models failed; that one fixes another batch is no failure.

    Raises:
        ModelError: One did.
    """
    failed = {
        row.model: row.measured.error
        for row in rows
        if row.measured.error not in (None, _fixed(row.batch).error)
    }
    if failed:
        reasons = "; ".join(f"{model} cannot be run: {error}" for model, error in failed.items())
        raise ModelError(f"{reasons}; leave it out, or export it again")


def _feed(
    inputs: Sequence[TensorSpec], batch: int | None, shapes: Shapes
) -> dict[str, Array] | None:
    """Return made-up inputs of `batch` samples; None where the model fixes another number."""
    if batch is None:
        return made_up(inputs, shapes)
    wanted = dict(shapes)
    for spec in inputs:
        shape = wanted.get(spec.name) or spec.shape
        if not shape:
            continue
        if isinstance(spec.shape and spec.shape[0], int):
            if spec.fixed_batch != batch:
                return None
            continue
        rest = shape[1:]
        if all(isinstance(size, int) for size in rest):
            wanted[spec.name] = (batch, *(int(size) for size in rest if isinstance(size, int)))
    return made_up(inputs, wanted)


def _rows(
    options: BenchOptions,
    batch: int | None,
    macs: Sequence[float | None],
    found: Sequence[Measured],
) -> list[BenchRow]:
    first = found[0].timing
    return [
        BenchRow(
            model=str(path),
            batch=batch,
            macs=work,
            measured=one,
            left=one.timing.median / first.median if one.timing and first else None,
        )
        for path, work, one in zip(options.models, macs, found, strict=True)
    ]


def _shown(rows: Sequence[BenchRow], options: BenchOptions) -> RenderableType:
    table = named_table("model", "batch", "MACs", "median", "slowest", "left", "peak memory")
    for row in rows:
        timing = row.measured.timing
        peak = row.measured.peak_memory
        cells = (
            plain(row.model),
            "-" if row.batch is None else str(row.batch),
            count_text(row.macs),
            "does not run" if timing is None else time_text(timing.median),
            "-" if timing is None else time_text(timing.slowest),
            "-" if row.left is None else share_text(row.left, 1),
            "-" if peak is None else bytes_text(peak),
        )
        table.add_row(*map(Text, cells))
    return Group(table, *sentences(_remarks(rows, options)))


def _remarks(rows: Sequence[BenchRow], options: BenchOptions) -> Iterator[str]:
    for row in rows:
        if row.measured.error is not None:
            batch = "" if row.batch is None else f", batch {row.batch}"
            yield f"{row.model}{batch}: {row.measured.error}"
    threads = {0: "ONNX Runtime's own number of threads", 1: "one thread"}
    yield (
        f"{threads.get(options.threads, f'{options.threads} threads')}; median and slowest: the "
        f"best and the worst median of {options.sessions} fresh processes, which took turns"
    )
    before = [row.measured.memory_before for row in rows if row.measured.memory_before]
    if before:
        yield (
            f"peak memory: of the whole process, which held {bytes_text(min(before))} before "
            "ONNX Runtime and the model were loaded"
        )
