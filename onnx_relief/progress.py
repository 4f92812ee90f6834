"""How far long work has come, told to whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable

from onnx_relief.results import Progress


def ticker(progress: Progress | None, stage: str, total: int | None) -> Callable[[int], None]:
    """Return a function that takes what was done since the last call and tells the sum.

    Args:
        progress: Who is told; nobody if None.
        stage: What is being done, in words.
        total: How much there is to do; None where that is not known.
    """
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(stage, done, total)

    tick(0)
    return tick
