"""`onnx-relief retrain` started again: an interruption costs nothing, nor do bad files."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from classifier import cnn, data_file, mlp, samples, written
from trained import RETRAIN

from onnx_relief.bridge.train.checkpoints import BEST, LAST
from onnx_relief.retraining.folder import CHECKPOINTS, clear

RUN = Path("model.retrained.onnx.run")


@pytest.fixture(name="here", autouse=True)
def in_a_folder(masked_folder):
    return masked_folder


def test_a_loss_that_explodes_keeps_the_last_good_epoch(command):
    line = "retrain model.onnx --data data.npz --lr 1e9 --optimizer sgd --schedule constant"
    code, _, err = command(line)
    assert code == 2
    assert "no longer a finite number" in err
    assert "epoch 3; the checkpoint of epoch 2 is kept; train with a lower --lr" in err
    assert not Path("model.retrained.onnx").exists()
    assert sorted(path.name for path in RUN.iterdir()) == [BEST, LAST]
    code, _, err = command(line.replace("1e9", "0.1"))
    assert code == 2
    assert "is of a training with another --lr" in err
    assert command(line.replace("1e9", "0.1") + " --restart")[0] == 0
    assert not RUN.exists()


def test_the_names_of_checkpoints_are_known():
    assert CHECKPOINTS == (LAST, BEST)


LONGER = "retrain model.onnx --data data.npz --epochs 5 --batch-size 8 "


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_started_again_ends_the_same(command, interrupted, number):
    command(LONGER + "-o whole.onnx")
    err = interrupted(LONGER, number, 2)
    assert f"{RUN} holds the epochs so far; start again in the same way to go on" in err
    assert not Path("model.retrained.onnx").exists()
    code, _, err = command(LONGER)
    assert code == 0
    assert err.startswith("epoch 3/5")
    assert Path("model.retrained.onnx").read_bytes() == Path("whole.onnx").read_bytes()
    assert not RUN.exists()


CHANGES = {
    "--lr 0.5": "another --lr (0.001 there, 0.5 now)",
    "--teacher dense.onnx --distill 0.5": "another teacher",
    "--scale 2": "another set of training samples",
    "--data more.npz": "another training data",
    "--freeze w2": "another set of masks",
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_training_is_not_gone_on_with(interrupted, refusal, change):
    data_file(Path(), "more.npz", count=60)
    interrupted(LONGER, signal.SIGINT, 1)
    assert CHANGES[change] in refusal(LONGER + change, 2)


def test_what_was_trained_is_not_gone_on_with_frozen(here, interrupted, refusal):
    written(here, cnn())
    data_file(here, "pictures.npz", shape=(2, 8, 8))
    line = LONGER.replace("data.npz", "pictures.npz")
    interrupted(line, signal.SIGINT, 1)
    assert "another --freeze (none there, b now)" in refusal(line + "--freeze b", 2)


def test_another_model_is_not_gone_on_with(here, interrupted, refusal):
    interrupted(LONGER, signal.SIGINT, 1)
    written(here, mlp())
    assert "is of a training with another model" in refusal(LONGER, 2)


def test_other_data_under_the_same_name_is_not_gone_on_with(interrupted, refusal):
    interrupted(LONGER, signal.SIGINT, 1)
    arrays = samples()
    np.savez("data.npz", x=arrays["x"] + 1, labels=arrays["labels"])
    assert "is of a training with another set of training samples" in refusal(LONGER, 2)


class Hostile:
    def __reduce__(self):
        return Path.unlink, (Path("precious.txt"),)


@pytest.mark.parametrize("state", [Hostile(), [1], {"module": {}}, "text", None])
def test_a_hostile_checkpoint_is_a_sentence(refusal, state):
    RUN.mkdir()
    if state is None:
        (RUN / LAST).write_bytes(b"PK\x03\x04 nonsense")
    else:
        torch.save(state, RUN / LAST)
    assert "is damaged or no checkpoint" in refusal(RETRAIN, 2)


def test_a_finished_run_that_was_kept_is_not_trained_again(command):
    line = RETRAIN + "--run kept "
    assert command(line)[0] == 0
    first = Path("model.retrained.onnx").read_bytes()
    code, _, err = command(line + "--force")
    assert (code, err) == (0, "")
    assert Path("model.retrained.onnx").read_bytes() == first
    assert sorted(path.name for path in Path("kept").iterdir()) == [BEST, LAST]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(monkeypatch, refusal):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnx_relief.files.os.fsync", full)
    assert "cannot be written (no space left on device)" in refusal(RETRAIN, 2)


def test_clearing_leaves_what_is_not_ours(tmp_path):
    for name in (LAST, BEST, f".{LAST}.123.0123abcd"):
        (tmp_path / name).write_text("")
    (tmp_path / "mine.ckpt").write_text("")
    clear(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"mine.ckpt", "precious.txt", "full"}
    assert not [p for p in tmp_path.iterdir() if LAST in p.name or p.name == BEST]
