"""Save over an existing model again and again, each time stopped at a later point.

Run as a script: ``interrupted_save.py FOLDER kill|interrupt|full``. Prints one line per point:
what was about to happen, what stands under the final name (old, new or broken), and what else lies
in the folder that belongs to neither.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import numpy as np
from small_models import WEIGHT, written

from onnx_relief.errors import OutputError
from onnx_relief.graph.document import load
from onnx_relief.graph.save import save
from onnx_relief.graph.storage import read, write_entries

OLD = WEIGHT * 100
WRITING = ("os.rename", "os.mkdir")
REMOVING = ("os.remove", "os.rmdir", "shutil.rmtree")


class Trap:
    """Stops the process in one of three ways at the n-th thing that it does to the disk."""

    def __init__(self, count, way):
        self.left = count
        self.way = way
        sys.addaudithook(self.audit)
        self.write, self.fsync = os.write, os.fsync
        os.write = self.half_write
        os.fsync = self.counted_fsync

    def audit(self, event, arguments):
        creates = event == "open" and arguments[2] & os.O_CREAT
        anything = self.way != "full" and event in ("open", *REMOVING)
        if creates or anything or event in WRITING:
            self.step(event)

    def half_write(self, descriptor, data):
        self.step("write", lambda: self.write(descriptor, data[: len(data) // 2]))
        return self.write(descriptor, data)

    def counted_fsync(self, descriptor):
        self.step("fsync")
        return self.fsync(descriptor)

    def step(self, what, before=lambda: None):
        self.left -= 1
        if self.left != 0:
            return
        before()
        Path("../stopped-at").write_text(what)
        if self.way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt if self.way == "interrupt" else OSError(errno.ENOSPC, "full")


def prepare(folder):
    """Return a model to save; an older one lies in `folder` as out.onnx with its data."""
    folder.mkdir()
    older = load(written(folder.parent / f"{folder.name}-older", w_bin=OLD.tobytes()))
    (folder / "w.bin").write_bytes(b"somebody else's")
    save(older, folder / "out.onnx")
    newer = load(written(folder.parent / f"{folder.name}-newer"))
    return write_entries(newer, newer.proto.graph.initializer[0], np.array([1]), 0)


def state(folder):
    """Return what the name out.onnx stands for, and the files that it does not account for."""
    document = load(folder / "out.onnx")
    tensor = document.proto.graph.initializer[0]
    values = read(document, tensor).copy()
    kind = "old" if np.array_equal(values, OLD) else "broken"
    if values[0, 1] == 0:
        values[0, 1] = WEIGHT[0, 1]
        kind = "new" if np.array_equal(values, WEIGHT) else "broken"
    known = {"out.onnx", "w.bin", tensor.external_data[0].value}
    return kind, sorted(set(os.listdir(folder)) - known)


def stopped_save(folder, document, count, way):
    """Save in a child process; returns whether it ran to the end without reaching the trap."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        Trap(count, way)
        try:
            save(document, "out.onnx", force=True)
        except (KeyboardInterrupt, OutputError):
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) not in (0, 3):
        sys.stdout.write(f"unexpected end {status}|broken\n")
    return not (folder.parent / "stopped-at").exists()


def main(base, way):
    for count in range(1, 200):
        folder = base / f"{way}-{count}"
        document = prepare(folder)
        finished = stopped_save(folder, document, count, way)
        kind, rest = state(folder)
        mark = base / "stopped-at"
        at = "end" if finished else mark.read_text()
        sys.stdout.write("|".join((at, kind, *rest)) + "\n")
        mark.unlink(missing_ok=True)
        save(document, folder / "out.onnx", force=True)
        assert state(folder)[0] == "new"
        if finished:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
