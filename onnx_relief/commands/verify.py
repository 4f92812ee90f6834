"""`onnx-relief verify`: does a model run elsewhere, with the same outputs, and how fast."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import Model, Shape
from onnx_relief.commands.one_feed import one_feed
from onnx_relief.commands.options import PrepareOptions, SpeakOptions, parse_shapes
from onnx_relief.deploy.runtimes import choose
from onnx_relief.deploy.verify import TOLERANCE, Effort, Row
from onnx_relief.deploy.verify import verify as try_everywhere
from onnx_relief.errors import SettingsError, TargetError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.table import named_table, sentences
from onnx_relief.report.text import plain, share_text, time_text
from onnx_relief.results import Timing


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(PrepareOptions, SpeakOptions):
    """Everything that `verify` can be told."""

    model: Model
    against: Annotated[
        Path | None,
        typer.Option(help="The dense model: timed in the same runtimes, in turns."),
    ] = None
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="all (what is installed), openvino, tract, mnn, mnn-sparse, opencv, ncnn, "
            "onnxruntime-web (under Node) or chromium (the same in a page); repeatable.",
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(help="Sample data, as `prune` takes it; its first sample is run."),
    ] = None
    shape: Shape = None
    tolerance: Annotated[
        float,
        typer.Option(help="Largest difference to ONNX Runtime, relative to the largest output."),
    ] = TOLERANCE
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of every runtime; 0 for its own choice.")
    ] = 1
    sessions: Annotated[int, typer.Option(min=1, help="Fresh processes per model and runtime.")] = 3
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which a process is ended.")
    ] = 120.0


def verify(options: VerifyOptions) -> None:
    """Run a model in every runtime that is installed and compare it with ONNX Runtime.

    Example: onnx-relief verify model.small.onnx --against model.onnx --runtime all

    A runtime that refuses the model, crashes or hangs is part of the answer. If one gives other
    outputs than ONNX Runtime, the exit code is 6.
    """
    speaker = Speaker(options)
    _check_tolerance(options.tolerance)
    runtimes = choose(options.runtime or ["all"])
    document = load(options.model)
    against = load(options.against) if options.against is not None else None
    feed = one_feed(input_specs(document.proto), options.data, parse_shapes(options.shape), options)
    effort = Effort(threads=options.threads, sessions=options.sessions, limit=options.timeout)
    with speaker.progress() as progress:
        names = [runtime.name for runtime in runtimes]
        rows = try_everywhere(
            document,
            feed,
            runtimes,
            against=against,
            effort=effort,
            tell=lambda name: progress(
                "runtimes", names.index(name) + 1 if name in names else 0, len(names)
            ),
        )
    shapes = {name: array.shape for name, array in feed.items()}
    speaker.result(_shown(rows, options), _json(rows, options, shapes))
    _refuse_difference(rows, options.tolerance)


def _json(
    rows: Sequence[Row], options: VerifyOptions, shapes: Mapping[str, tuple[int, ...]]
) -> str:
    return to_json(
        {
            "format": "onnx-relief verification 1",
            "model": str(options.model),
            "against": None if options.against is None else str(options.against),
            "inputs": options.data or "made up",
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "threads": options.threads,
            "tolerance": options.tolerance,
            # JSON knows no infinity, so whether outputs agree is said in a field of its own.
            "runtimes": [
                {**as_plain(row), "agrees": _agrees(row, options.tolerance)} for row in rows
            ],
        }
    )


def _agrees(row: Row, tolerance: float) -> bool | None:
    return None if row.difference is None else row.difference <= tolerance


def _check_tolerance(tolerance: float) -> None:
    if not tolerance >= 0:
        raise SettingsError(f"--tolerance {tolerance} is no share; give for example 0.01")


def _shown(rows: Sequence[Row], options: VerifyOptions) -> RenderableType:
    columns = ["version", "difference", "latency"]
    if options.against is not None:
        columns += ["dense", "left"]
    table = named_table("runtime", *columns)
    for row in rows:
        _add(table, row, with_dense=options.against is not None)
    return Group(table, *sentences(_remarks(rows, options)))


def _add(table: Table, row: Row, *, with_dense: bool) -> None:
    cells = [row.runtime, plain(row.version), _difference(row), _time(row.timing)]
    if with_dense:
        both = row.timing is not None and row.dense is not None
        left = share_text(row.timing.median, row.dense.median) if both else "-"  # type: ignore[union-attr]
        cells += [_time(row.dense), left]
    table.add_row(*map(Text, cells))


def _difference(row: Row) -> str:
    if row.error is not None:
        return "does not run"
    return "-" if row.difference is None else f"{row.difference:.1e}"


def _how_far(row: Row) -> str:
    if row.difference is not None and math.isinf(row.difference):
        return "NaN, infinite, missing, or of another size"
    return f"by {row.difference:.1e}"


def _time(timing: Timing | None) -> str:
    return "-" if timing is None else time_text(timing.median)


def _remarks(rows: Sequence[Row], options: VerifyOptions) -> Iterator[str]:
    for row in rows:
        if row.error is not None:
            yield f"{row.runtime}: {row.error}"
        if row.dense_error is not None:
            yield f"{row.runtime}, dense model: {row.dense_error}"
        if row.error is None and row.difference is None:
            yield f"{row.runtime}: no output holds numbers, so nothing was compared"
    threads = {0: "each runtime's own number of threads", 1: "one thread"}
    yield (
        f"latency with {threads.get(options.threads, f'{options.threads} threads')}, the best "
        f"median of {options.sessions} processes; difference relative to the largest output, on "
        + ("the first sample" if options.data else "made-up inputs")
    )
    if len(rows) == 1 and "all" in (options.runtime or ["all"]):
        yield "no other runtime is installed: pip install 'onnx-relief[deploy]'"
    elif len(rows) == 1:
        yield "nothing was compared; --runtime all takes what is installed"


def _refuse_difference(rows: Sequence[Row], tolerance: float) -> None:
    """Say which runtimes give other outputs.

    Raises:
        TargetError: One does.
    """
    wrong = [f"{row.runtime} ({_how_far(row)})" for row in rows if _agrees(row, tolerance) is False]
    if wrong:
        raise TargetError(
            f"outputs differ from those of ONNX Runtime in {', '.join(wrong)}, and --tolerance is "
            f"{tolerance:g}; do not deploy there"
        )
