"""The child process: load one model in one runtime, run it, write outputs and times, and end.

A crash takes this process only. Whatever the runtime raises becomes the answer: it is what the
parent wants to know.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np

from onnx_relief.deploy.adapters import Run, Task
from onnx_relief.deploy.exchange import ANSWER, REQUEST, read_array, write_array
from onnx_relief.errors import ReliefError

_PLACES: Final = re.compile(r"(Exception from|Check .* failed at) \S+:\d+:$")


def main(folder: Path) -> None:
    """Do what the request in `folder` says and write the answer there."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    _no_core_dump()
    try:
        answer = _answer(folder, request)
    except BaseException as error:  # Rust's panics are no Exceptions
        # What an adapter says itself knows no reason: that stands in what the runtime printed.
        answer = {"error": _reason(error), "ask": isinstance(error, ReliefError)}
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8")


def _answer(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    feed = {told["name"]: read_array(folder, told) for told in request["inputs"]}
    task = Task(
        model=Path(request["model"]),
        feed=feed,
        outputs=request["outputs"],
        threads=request["threads"],
    )
    module, _, function = request["adapter"].partition(":")
    before = _memory("VmRSS")
    run: Run = getattr(importlib.import_module(module), function)(task)
    results = run()
    outputs = [_written(folder, place, result) for place, result in enumerate(results)]
    clock = process_time if request["processor_time"] else perf_counter
    times = _times(run, request["seconds"], request["fewest"], request["most"], clock)
    return {
        "outputs": outputs,
        "times": times,
        "memory_before": before,
        "peak_memory": _memory("VmHWM"),
    }


def _reason(error: BaseException) -> str:
    r"""Return what an error says on one line, without where in the runtime's sources it was.

    >>> _reason(RuntimeError("Exception from src/core.cpp:132:\nno rule for Foo\n\n"))
    'no rule for Foo'
    """
    text = str(error).partition("Stack backtrace")[0]
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not _PLACES.match(line)]
    return " ".join(telling)[:400] or type(error).__name__


def _written(folder: Path, place: int, result: object) -> dict[str, object] | None:
    """Write an output; None for sequences, maps and texts, which are not compared."""
    if not isinstance(result, (np.ndarray, np.generic)) or result.dtype.kind not in "fiub":
        return None
    return write_array(folder, f"output_{place}.bin", np.asarray(result))


def _times(
    run: Run, seconds: float, fewest: int, most: int, clock: Callable[[], float]
) -> Sequence[float]:
    """Return the milliseconds of each timed run; the first run, which warms up, is behind us."""
    times: list[float] = []
    started = clock()
    while len(times) < fewest or (len(times) < most and clock() - started < seconds):
        before = clock()
        run()
        times.append((clock() - before) * 1000)
    return times


def _memory(field: str) -> int | None:
    """Return `VmRSS` (now) or `VmHWM` (at most, so far) in bytes; None where it is not told."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None


def _no_core_dump() -> None:
    try:
        import resource
    except ImportError:  # Windows has no core dumps
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
