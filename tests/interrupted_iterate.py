"""Iterate again and again, each time killed when a later file is about to get its final name.

Run as a script in a folder with model.onnx and data.npz. Each run is started again after its end,
and prints one line: a digest of the models and plans that it came to, the same for all of them.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import lightning.pytorch  # noqa: F401 - these are imported once, before forking
import onnx2fx  # noqa: F401

import onnx_relief.bridge.train
import onnx_relief.commands.app  # noqa: F401
from onnx_relief.bridge import back, check, convert  # noqa: F401
from onnx_relief.cli import main

LINE = "iterate model.onnx --data data.npz --epochs 2 --batch-size 8 --alpha .8 --iterations 2 -q"
POINTS = (6, 9, 16)


def apart(work):
    """Do something in a process of its own and return its exit status."""
    child = os.fork()
    if child == 0:
        os._exit(work() or 0)
    return os.waitpid(child, 0)[1]


def kill_at_rename(number):
    """Let this process be killed when it is about to rename for the n-th time."""
    left = [number]

    def audit(event, _arguments):
        if event == "os.rename":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


def killed(folder, number):
    def work():
        kill_at_rename(number)
        return main([*LINE.split(), "--run", folder])

    if apart(work) != signal.SIGKILL:
        sys.exit(f"rename {number} never came")


def finished(folder):
    """Run to the end and return a digest of what came of it."""
    if apart(lambda: main([*LINE.split(), "--run", folder])) != 0:
        sys.exit(f"{folder} does not go on")
    hidden = [path for path in Path(folder).rglob(".*")]
    if hidden:
        sys.exit(f"left behind: {hidden}")
    found = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix == ".onnx" or path.name == "plan.json":
            found.update(f"{path.relative_to(folder)}".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def run_all():
    print(finished("whole"), flush=True)  # noqa: T201
    for number in POINTS:
        killed(f"run-{number}", number)
        print(finished(f"run-{number}"), flush=True)  # noqa: T201


if __name__ == "__main__":
    run_all()
