"""Latency and memory of models side by side in ONNX Runtime: fresh processes, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnx_relief.deploy.run import Job, Outcome
from onnx_relief.deploy.runtimes import REFERENCE, Runtime
from onnx_relief.deploy.verify import (
    EFFORT,
    Effort,
    error_of,
    in_turns,
    job_of,
    refuse_texts,
    timing_of,
)
from onnx_relief.graph.document import Document
from onnx_relief.results import Timing

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one model took.

    Attributes:
        timing: How long a run takes; None if it does not run.
        peak_memory: Bytes that a process held at most, the median over all of them.
        memory_before: Bytes that it held before the model was loaded.
        error: Why it does not run.
    """

    timing: Timing | None
    peak_memory: int | None
    memory_before: int | None
    error: str | None


def bench(
    documents: Sequence[Document],
    feeds: Sequence[Mapping[str, Array]],
    *,
    effort: Effort = EFFORT,
    runtime: Runtime = REFERENCE,
    tell: Callable[[int], None] | None = None,
) -> tuple[Measured, ...]:
    """Return what every model takes; the models take turns, each time in a fresh process.

    Args:
        documents: The models; their files are only read.
        feeds: What each of them gets.
        effort: How much is measured.
        runtime: Who runs them.
        tell: Called with the number of processes that have ended.

    Raises:
        UnsupportedError: An input is no array of numbers.
    """
    for feed in feeds:
        refuse_texts(feed)
    with tempfile.TemporaryDirectory(prefix="onnx-relief-", ignore_cleanup_errors=True) as made:
        jobs: list[Job] = [
            job_of(one, feed, Path(made, str(place)), effort)
            for place, (one, feed) in enumerate(zip(documents, feeds, strict=True))
        ]
        turns = in_turns(runtime, jobs, Path(made), effort.sessions, tell=tell)
    return tuple(map(_measured, turns))


def _measured(outcomes: Sequence[Outcome]) -> Measured:
    error = error_of(outcomes)
    return Measured(
        timing=timing_of(outcomes) if error is None else None,
        peak_memory=_middle([one.peak_memory for one in outcomes]),
        memory_before=_middle([one.memory_before for one in outcomes]),
        error=error,
    )


def _middle(found: Sequence[int | None]) -> int | None:
    known = sorted(one for one in found if one is not None)
    return known[len(known) // 2] if known else None
