"""A command in a process of its own, with its time and its peak memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LAUNCHER: Final = Path(__file__).with_name("measured.py")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What came of a command.

    Attributes:
        code: Its exit code; None where it was stopped after its time.
        seconds: From start to end, the start of Python included.
        cpu: Seconds of all its threads.
        peak_mb: The most memory that it held at a time, in megabytes (1024 * 1024 bytes).
        said: The last lines of its output and errors.
    """

    code: int | None
    seconds: float
    cpu: float
    peak_mb: float
    said: str


def run(
    command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end, or for at most `timeout` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        process = subprocess.Popen(
            [sys.executable, str(LAUNCHER), str(result), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | dict(environment or {}),
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Finished(
                code=None,
                seconds=timeout,
                cpu=float("nan"),
                peak_mb=float("nan"),
                said=f"stopped after {timeout:.0f} s",
            )
        if not result.exists():
            return Finished(
                code=process.returncode,
                seconds=float("nan"),
                cpu=float("nan"),
                peak_mb=float("nan"),
                said=said[-2000:],
            )
        return Finished(**json.loads(result.read_text()), said=said[-2000:])
