"""`onnx-relief iterate` started again: an interruption costs nothing, and hostile runs are told."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from classifier import cnn, mlp, written
from text_models import random
from trained import ITERATE, RUN, results

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(name="here", autouse=True)
def in_a_folder(dense_folder):
    return dense_folder


@pytest.mark.usefixtures("finished")
def test_a_finished_run_is_told_again_without_work(command):
    before = results(RUN)
    code, out, err = command(ITERATE)
    assert code == 0
    assert "epoch" not in err
    assert "all 3 iterations are done" in out
    assert results(RUN) == before


def test_more_iterations_go_on(command):
    command(ITERATE.replace("--run run", "--run whole"))
    command(ITERATE + "--iterations 2")
    before = results(RUN)
    code, _, err = command(ITERATE)
    assert code == 0
    assert err.count("epoch") == 2
    after = results(RUN)
    assert after == results(Path("whole"))
    assert {name for name in before if after[name] != before[name]} == {"best.onnx"}


CHANGES = {
    "--epochs 3": "its --epochs is 2 instead of 3",
    "--alpha .9": "its --alpha is [0.8] instead of [0.9]",
    "--freeze w1": 'its --freeze is [] instead of ["w1"]',
    "--scale 2": "its --data, data.npz (36 of 40 samples, 3 classes), had other contents",
    "--rewind-to initial.onnx": 'its --rewind-to is "none" instead of "initial.onnx"',
    "--distill .5": 'its --teacher is "none" instead of "model.onnx"',
    "--metric top5": 'its --metric is null instead of "top5"',
}


@pytest.mark.usefixtures("finished")
def test_another_run_is_not_gone_on_with(here, refusal):
    for change, sentence in CHANGES.items():
        assert sentence in refusal(ITERATE + change, 2)
    written(here, mlp(w1=random(6, 5, seed=7)))
    assert "its MODEL, model.onnx, had other contents" in refusal(ITERATE, 2)


@pytest.mark.usefixtures("finished")
def test_the_same_run_may_be_named_otherwise(here, command, monkeypatch):
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    line = ITERATE.replace("model.onnx", "../model.onnx").replace("data.npz", "../data.npz")
    assert command(line.replace("--run run", "--run ../run"))[0] == 0


def test_restart_begins_anew(finished, command):
    assert finished
    code, _, err = command(ITERATE + "--epochs 1 --restart")
    assert code == 0
    assert err.count("epoch 1/1") == 3


@pytest.mark.parametrize(("number", "checkpoint"), [(signal.SIGINT, 1), (signal.SIGTERM, 5)])
def test_interrupted_and_started_again_ends_the_same(command, interrupted, number, checkpoint):
    command(ITERATE.replace("--run run", "--run whole"))
    err = interrupted(ITERATE, number, checkpoint)
    assert "run holds what is done; start again in the same way to go on" in err
    code, _, err = command(ITERATE)
    assert code == 0
    assert err.count("epoch") == 6 - checkpoint
    assert results(RUN) == results(Path("whole"))


def test_killed_anywhere_and_started_again_ends_the_same(here):
    script = ROOT / "tests" / "interrupted_iterate.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], cwd=here, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    whole, *killed = done.stdout.splitlines()
    assert len(killed) == 3
    assert set(killed) == {whole}


def hostile(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


ROWS = {
    "remaining": "abc",
    "metric_retrained": float("nan"),
    "nonzero": -1,
    "iteration": 2,
    "architecture": 7,
    "alpha": [1, 2, 3],
    "flops": {},
}


def test_hostile_rows_are_a_sentence(finished, refusal):
    assert finished
    file = RUN / "iteration-01" / "row.json"
    good = file.read_text()
    for name, value in ROWS.items():
        hostile(file, lambda row, name=name, value=value: row.update({name: value}))
        assert "run/iteration-01/row.json is no line of" in refusal(ITERATE, 2)
        file.write_text(good)
    for text in ("[]", "{", "\udcff"):
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert "begin anew with --restart" in refusal(ITERATE, 2)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x"}', "\x00", "[" * 100_000])
def test_a_hostile_run_is_a_sentence(finished, refusal, text):
    assert finished
    (RUN / "run.json").write_text(text)
    assert str(RUN / "run.json") in refusal(ITERATE, 2)


def test_hostile_plans_and_models_are_a_sentence(finished, refusal, here):
    assert finished
    line = ITERATE + "--iterations 4"
    plan, model = RUN / "iteration-03" / "plan.json", RUN / "iteration-03" / "model.onnx"
    good = plan.read_text()
    for text in ("{}", "\udcff", good.replace('"first"', '"else"')):
        plan.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert refusal(line, 2)
    plan.write_text(good)
    model.write_bytes(cnn().SerializeToString())
    assert refusal(line, 3)
    model.unlink()
    assert "iteration-03/model.onnx does not exist" in refusal(line, 3)
    assert here


def test_a_full_disk_leaves_no_run_or_one_that_goes_on(monkeypatch, command, refusal):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("onnx_relief.files.os.fsync", full)
        assert "cannot be written (no space left on device)" in refusal(ITERATE, 2)
    command(ITERATE.replace("--run run", "--run whole"))
    with monkeypatch.context() as patch:
        patch.setattr("onnx_relief.graph.save._sync", full)
        code, _, err = command(ITERATE)
    assert code == 2
    assert "the disk is full; free some space or choose another folder with --run" in err
    assert command(ITERATE)[0] == 0
    assert results(RUN) == results(Path("whole"))
