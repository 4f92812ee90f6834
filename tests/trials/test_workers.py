"""Processes that try models: answers in any order, and a sentence when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from onnx_relief.analysis import LAYER, TrialRow
from onnx_relief.errors import ModelError, SettingsError
from onnx_relief.trials.trial import Task
from onnx_relief.trials.workers import in_processes


@dataclass(frozen=True)
class Bench:
    """Stands for a bench: does what the task is called."""

    name: str = "made up"

    @property
    def data(self):
        return self

    def row(self, task):
        if task.name == "die":
            os._exit(9)
        if task.name == "refuse":
            raise ModelError("this model does not run")
        if task.name == "fail":
            raise ZeroDivisionError("a mistake of ours")
        score = float(os.getpid()) if task.name == "who" else task.sparsity
        return TrialRow(
            kind=LAYER, name=task.name, sparsity=task.sparsity, kept=1.0, score=score, distance=None
        )


def tasks(*names):
    return [Task(kind=LAYER, name=name, sparsity=n / 100) for n, name in enumerate(names)]


def no_children():
    return not multiprocessing.active_children()


def test_every_task_is_answered_once_by_other_processes():
    rows = list(in_processes(2)(Bench(), iter(tasks(*["who"] * 12))))
    assert sorted(row.sparsity for row in rows) == [n / 100 for n in range(12)]
    assert os.getpid() not in {row.score for row in rows}
    assert no_children()


def test_more_processes_than_tasks_and_no_tasks_at_all():
    assert len(list(in_processes(2)(Bench(), tasks("a")))) == 1
    assert list(in_processes(2)(Bench(), [])) == []


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("die", SettingsError, r"ended by itself \(exit code 9\); give fewer --jobs"),
        ("refuse", ModelError, "this model does not run"),
        ("fail", RuntimeError, "ZeroDivisionError: a mistake of ours"),
    ],
)
def test_what_goes_wrong_in_a_process_comes_out_here(name, error, sentence):
    with pytest.raises(error, match=sentence):
        list(in_processes(2)(Bench(), tasks("a", "b", name, "c")))
    assert no_children()


def test_leaving_in_the_middle_ends_the_processes():
    rows = in_processes(2)(Bench(), tasks(*"abcdefgh"))
    next(rows)
    rows.close()
    assert no_children()


def test_ctrl_c_while_processes_start_prints_nothing(tmp_path):
    """The main module is imported by every process before it can do anything about signals."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, signal, sys, time\n"
        "from test_workers import Bench, tasks\n"
        "from onnx_relief.trials.workers import in_processes\n"
        "if __name__ != '__main__':\n"
        "    pathlib.Path('started').touch()\n"
        "    time.sleep(60)\n"  # until it is ended: the signal may come late
        "else:\n"
        # In the background of a script Ctrl-C is ignored from the start.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    try:\n"
        "        list(in_processes(2)(Bench(), tasks('a', 'b')))\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit('interrupted')\n"
    )
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not (tmp_path / "started").exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate()[1] == "interrupted\n"


def test_data_that_exists_here_only_is_refused():
    with pytest.raises(SettingsError, match=r"cannot be sent to other processes .*; use --jobs 1"):
        list(in_processes(2)(Bench(name=lambda: None), tasks("a")))
