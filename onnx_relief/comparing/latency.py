"""How long models take, side by side.

The latency of one model differs between sessions, sometimes threefold, because memory and threads
fall into place differently. So every model gets several fresh sessions, the models take turns, and
what counts is the best of the sessions' medians.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

from onnx_relief.graph.document import Document
from onnx_relief.results import Latency, Timing
from onnx_relief.runtime import Feed, open_session

_SESSIONS = (2, 5)
_RUNS = (5, 200)


def measure_latency(
    documents: Sequence[Document],
    feed: Feed,
    *,
    samples: int = 1,
    provider: str = "auto",
    threads: int | None = None,
    seconds: float = 1.5,
    tick: Callable[[int], None] | None = None,
) -> Latency:
    """Return the latency of each model on one feed.

    Args:
        documents: The models; all of them take the feed.
        feed: What every run gets.
        samples: How many samples the feed holds, for the report.
        provider: Execution provider, as `open_session` takes it.
        threads: Threads within an operator; ONNX Runtime's choice by default, and for 0.
        seconds: About how long all timed runs together may take. A model whose single run takes
            longer than its share of that gets one timed run in each of two sessions.
        tick: Called with 1 after every session.

    Raises:
        ModelError: A model cannot be run on the feed.
    """
    fewest, most = _SESSIONS
    medians: list[list[float]] = [[] for _ in documents]
    counts = [0] * len(documents)
    share = seconds / max(1, len(documents)) / fewest
    started = perf_counter()
    provider_name = ""
    for turn in range(most):
        if turn >= fewest and perf_counter() - started > seconds:
            break
        for index, document in enumerate(documents):
            times, provider_name = _times(document, feed, provider, threads, share)
            medians[index].append(median(times) * 1000)
            counts[index] += len(times)
            if tick is not None:
                tick(1)
    timings = (
        Timing(median=min(found), slowest=max(found), sessions=len(found), runs=count)
        for found, count in zip(medians, counts, strict=True)
    )
    return Latency(
        timings=tuple(timings), samples=samples, provider=provider_name, threads=threads or None
    )


def _times(
    document: Document, feed: Feed, provider: str, threads: int | None, seconds: float
) -> tuple[list[float], str]:
    """Return the seconds that each run took in one fresh session, and who ran it."""
    session = open_session(document, provider=provider, threads=threads)
    fewest, most = _RUNS
    warm_up = _timed(session.run, feed)
    times = [_timed(session.run, feed)]
    # A run that fills the time alone is not disturbed by little things: one is enough.
    while warm_up < seconds and len(times) < most:
        if sum(times) > seconds and len(times) >= fewest:
            break
        times.append(_timed(session.run, feed))
    return times, session.provider


def _timed(run: Callable[[Feed], object], feed: Feed) -> float:
    before = perf_counter()
    run(feed)
    return perf_counter() - before
