"""Run a model in a child process, with a time limit; a crash is a result like any other."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from onnx_relief.deploy.exchange import ANSWER, read_array, read_json, write_request
from onnx_relief.deploy.runtimes import Runtime

Array = NDArray[Any]
_MOST_RUNS: Final = 200
_LAST_WORDS: Final = 4000
_TELLING: Final = (
    re.compile(r"panicked|unsupported|not support", re.IGNORECASE),
    re.compile(r"error|exception|assert|fail", re.IGNORECASE),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """A model as children get it.

    Attributes:
        model: Path of the file, in a folder of its own.
        feed: Arrays by input name.
        outputs: Names of the outputs wanted.
        threads: Threads of the runtime, 0 for its own choice.
        seconds: About how long the timed runs of one child take.
        fewest: Timed runs at least.
        limit: Seconds after which a child is ended.
        processor_time: Whether the time of the processor is taken and not the clock's.
    """

    model: Path
    feed: Mapping[str, Array]
    outputs: tuple[str, ...]
    threads: int = 1
    seconds: float = 0.5
    fewest: int = 2
    limit: float = 120.0
    processor_time: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What one child came back with.

    Attributes:
        error: What went wrong, in words; None if nothing.
        outputs: One array per output; None for one that is no array.
        times: Milliseconds of each timed run.
        memory_before: Bytes that the process held before the model was loaded.
        peak_memory: Bytes that it held at most.
    """

    error: str | None = None
    outputs: tuple[Array | None, ...] = ()
    times: tuple[float, ...] = ()
    memory_before: int | None = None
    peak_memory: int | None = None


def run_once(runtime: Runtime, job: Job, folder: Path) -> Outcome:
    """Return what a fresh process makes of a model.

    Args:
        runtime: Who shall run it.
        job: The model and its inputs.
        folder: An existing folder; it is emptied.
    """
    shutil.rmtree(folder, ignore_errors=True)
    # What a runtime that was ended still writes may stand in the way; its answer must not.
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ANSWER).unlink(missing_ok=True)
    settings = {
        "adapter": runtime.adapter,
        "threads": job.threads,
        "seconds": job.seconds,
        "fewest": job.fewest,
        "most": max(job.fewest, _MOST_RUNS),
        "processor_time": job.processor_time,
    }
    write_request(folder, model=job.model, feed=job.feed, outputs=job.outputs, settings=settings)
    code = _run(_command(runtime, folder), folder, job.limit)
    answer = read_json(folder / ANSWER)
    if code is None:
        return Outcome(error=f"did not end within {job.limit:g} s")
    if answer is None:
        return Outcome(error=_how_it_died(code, _last_words(folder)))
    if "error" in answer:
        words = _last_words(folder) if answer.get("ask") else ""
        said = ": ".join(filter(None, (answer["error"], words)))
        return Outcome(error=_plain_paths(said, folder, job.model))
    # A process that crashes on its way out has done its work: the numbers count.
    return Outcome(
        outputs=tuple(told and read_array(folder, told) for told in answer["outputs"]),
        times=tuple(answer["times"]),
        memory_before=answer["memory_before"],
        peak_memory=answer["peak_memory"],
    )


def _command(runtime: Runtime, folder: Path) -> list[str]:
    if runtime.script is not None:
        return [shutil.which("node") or "node", str(runtime.script), str(folder)]
    # -P: nothing that lies in the current folder is imported by accident.
    return [sys.executable, "-P", "-m", "onnx_relief.deploy.child", str(folder)]


def _run(command: list[str], folder: Path, limit: float) -> int | None:
    """Return the exit code; None if it took too long and was ended, with all its children."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _how_it_died(code: int, words: str) -> str:
    said = f": {words}" if words else ""
    if code >= 0:
        return f"its process ended with exit code {code}{said}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"crashed ({name}){said}"


def _last_words(folder: Path) -> str:
    """Return the line that tells most of what a process said before it died."""
    text = (folder / "said").read_bytes()[-_LAST_WORDS:].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern in _TELLING:
        telling = [line for line in lines if pattern.search(line)]
        if telling:
            return telling[-1][:300]
    return ""


def _plain_paths(text: str, folder: Path, model: Path) -> str:
    """Return what a runtime said without the names of our temporary files."""
    return text.replace(str(model), "the model").replace(str(folder), "")
