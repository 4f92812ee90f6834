"""Prune again and again, each time interrupted at a later thing that the process does to the disk.

Run as a script in a folder with model.onnx and data.npz, TMPDIR set to an empty folder. Prints one
line per point: what was about to happen, the exit code, and what lies in both folders afterwards.
With an argument N it prunes once and is killed when the N-th file is about to get its final name.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from pathlib import Path

from onnx_relief.cli import main

ARGUMENTS = [
    "prune",
    "model.onnx",
    "--data",
    "data.npz",
    "-o",
    "out.onnx",
    "--report",
    "r.json",
    "--save-plan",
    "p.json",
]
CHANGING = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")


class Trap:
    """Interrupts this process at the n-th change to the disk."""

    def __init__(self):
        self.left = 0
        self.hit = ""
        sys.addaudithook(self.audit)

    def audit(self, event, arguments):
        creates = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if creates or event in CHANGING:
            self.left -= 1
            if self.left == 0:
                self.hit = event
                signal.raise_signal(signal.SIGINT)


def kill_at_rename(number):
    """Prune once, and be killed at the n-th rename."""
    left = [number]

    def audit(event, _arguments):
        if event == "os.rename":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    main(ARGUMENTS)


def names(folder):
    return "+".join(sorted(path.name for path in Path(folder).iterdir())) or "nothing"


def run_all():
    trap = Trap()
    for point in range(1, 500):
        trap.left, trap.hit = point, ""
        code = main(ARGUMENTS)
        trap.left = 0
        if not trap.hit:
            break
        gc.collect()
        print(trap.hit, code, names("."), names(tempfile.gettempdir()), flush=True)  # noqa: T201
        for name in ("out.onnx", "r.json", "p.json"):
            Path(name).unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        kill_at_rename(int(sys.argv[1]))
    else:
        run_all()
