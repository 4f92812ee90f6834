"""One model in many runtimes: does it run, does it give the same, how long does it take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from numpy.typing import NDArray

from onnx_relief.deploy.compare import largest_difference
from onnx_relief.deploy.run import Job, Outcome, run_once
from onnx_relief.deploy.runtimes import REFERENCE, Runtime
from onnx_relief.errors import ModelError, UnsupportedError
from onnx_relief.graph.document import Document, output_specs
from onnx_relief.graph.save import write_to
from onnx_relief.results import Timing

Array = NDArray[Any]
TOLERANCE: Final = 1e-2
"""Largest difference that is taken for rounding: kernels in fp32 that sum in another order stay
below it in every runtime, and what is computed wrongly does not."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one runtime made of a model.

    Attributes:
        runtime: Its name.
        version: Its version.
        difference: Largest relative difference to ONNX Runtime; None if nothing was compared.
        timing: How long one run of the model takes.
        dense: The same of the dense model.
        error: Why it could not run the model.
        dense_error: Why it could not run the dense model.
    """

    runtime: str
    version: str
    difference: float | None = None
    timing: Timing | None = None
    dense: Timing | None = None
    error: str | None = None
    dense_error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        threads: Threads of every runtime, 0 for its own choice.
        sessions: Fresh processes per model and runtime.
        seconds: About how long the timed runs of one process take.
        limit: Seconds after which a process is ended.
        processor_time: Whether runs are timed by the processor's time of the whole process: with
            one thread the latency on a machine that does nothing else, but for what spins or
            compiles meanwhile. A page in Chromium, which cannot know it, is timed by the clock.
    """

    threads: int = 1
    sessions: int = 3
    seconds: float = 0.5
    limit: float = 120.0
    processor_time: bool = False


EFFORT: Final = Effort()


def verify(
    document: Document,
    feed: Mapping[str, Array],
    runtimes: Sequence[Runtime],
    *,
    against: Document | None = None,
    effort: Effort = EFFORT,
    tell: Callable[[str], None] | None = None,
) -> tuple[Row, ...]:
    """Return one row for ONNX Runtime and one per runtime.

    Args:
        document: The model; its files are only read.
        feed: What it gets; all runtimes get the same.
        runtimes: Who else shall run it.
        against: A dense model, to be timed in turns with the model.
        effort: How much is measured.
        tell: Called with the name of every runtime before it starts.

    Raises:
        ModelError: ONNX Runtime itself cannot run the model: there is nothing to compare with.
        UnsupportedError: An input is no array of numbers.
    """
    refuse_texts(feed)
    rows = []
    with tempfile.TemporaryDirectory(prefix="onnx-relief-", ignore_cleanup_errors=True) as made:
        jobs = [
            job_of(one, feed, Path(made, name), effort)
            for name, one in (("model", document), ("dense", against))
            if one is not None
        ]
        expected: Sequence[Array | None] | None = None
        for runtime in (REFERENCE, *runtimes):
            if tell is not None:
                tell(runtime.name)
            turns = in_turns(runtime, jobs, Path(made), effort.sessions)
            if expected is None:
                expected = _reference(turns[0], document)
            rows.append(_row(runtime, turns, expected))
    return tuple(rows)


def in_turns(
    runtime: Runtime,
    jobs: Sequence[Job],
    scratch: Path,
    sessions: int,
    *,
    tell: Callable[[int], None] | None = None,
) -> list[list[Outcome]]:
    """Return by job what its fresh processes gave; a job that fails once is not tried again."""
    turns: list[list[Outcome]] = [[] for _ in jobs]
    for _ in range(max(1, sessions)):
        for job, outcomes in zip(jobs, turns, strict=True):
            if not outcomes or outcomes[-1].error is None:
                outcomes.append(run_once(runtime, job, scratch / "child"))
            if tell is not None:
                tell(sum(map(len, turns)))
    return turns


def timing_of(outcomes: Sequence[Outcome]) -> Timing | None:
    """Return the best and the worst of the medians of the processes that came through."""
    times = [outcome.times for outcome in outcomes if outcome.error is None]
    if not times:
        return None
    medians = [median(some) for some in times]
    return Timing(
        median=min(medians),
        slowest=max(medians),
        sessions=len(medians),
        runs=sum(map(len, times)),
    )


def error_of(outcomes: Sequence[Outcome]) -> str | None:
    """Return the first error of a job's processes."""
    return next((one.error for one in outcomes if one.error is not None), None)


def refuse_texts(feed: Mapping[str, Array]) -> None:
    """Refuse inputs that cannot be handed to every runtime.

    Raises:
        UnsupportedError: One is no array of numbers.
    """
    for name, array in feed.items():
        if array.dtype.kind not in "fiub":
            raise UnsupportedError(
                f"input {name!r} holds {array.dtype.name}; only numbers can be given to every "
                "runtime"
            )


def job_of(document: Document, feed: Mapping[str, Array], folder: Path, effort: Effort) -> Job:
    """Write a model under a harmless name: runtimes differ in what names they take.

    Args:
        document: The model.
        feed: What it gets.
        folder: Where it goes; it must not exist yet.
        effort: How much is measured.
    """
    folder.mkdir()
    return Job(
        model=write_to(document, folder, "model.onnx"),
        feed=feed,
        outputs=tuple(spec.name for spec in output_specs(document.proto)),
        threads=effort.threads,
        seconds=effort.seconds,
        limit=effort.limit,
        processor_time=effort.processor_time,
    )


def _reference(outcomes: Sequence[Outcome], document: Document) -> Sequence[Array | None]:
    error = error_of(outcomes)
    if error is not None:
        raise ModelError(f"ONNX Runtime cannot run {document.name}: {error}")
    return outcomes[0].outputs


def _row(
    runtime: Runtime, turns: Sequence[Sequence[Outcome]], expected: Sequence[Array | None]
) -> Row:
    row = Row(runtime=runtime.name, version=runtime.version, error=error_of(turns[0]))
    if row.error is None:
        gaps = [largest_difference(expected, one.outputs) for one in turns[0]]
        known = [gap for gap in gaps if gap is not None]
        row = replace(row, difference=max(known, default=None), timing=timing_of(turns[0]))
    if len(turns) > 1:
        error = error_of(turns[1])
        dense = timing_of(turns[1]) if error is None else None
        row = replace(row, dense=dense, dense_error=error)
    return row
