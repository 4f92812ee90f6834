"""Folders to work in, and what commands do in them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from classifier import cnn, contents, data_file, mlp, written
from text_models import random
from trained import ITERATE, masked_mlp


@pytest.fixture
def pictures_folder(tmp_path, monkeypatch):
    """Work in a folder with a model that takes pictures, and some."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, cnn())
    data_file(tmp_path, shape=(2, 8, 8))
    return tmp_path


@pytest.fixture(name="furnished")
def furnished_folder(tmp_path, monkeypatch):
    """Work in a folder with data, and things that are wrong."""
    monkeypatch.chdir(tmp_path)
    data_file(tmp_path)
    data_file(tmp_path, "unlabelled.npz", labelled=False)
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    return tmp_path


@pytest.fixture
def dense_folder(furnished):
    """Work in a folder with a dense model, too, and one of the same architecture."""
    written(furnished, mlp())
    written(furnished, mlp(w1=random(6, 5, seed=8), w2=random(5, 3, seed=9)), "initial.onnx")
    return furnished


@pytest.fixture
def masked_folder(furnished):
    """Work in a folder with a masked model, too, and the dense one."""
    written(furnished, masked_mlp())
    written(furnished, mlp(), "dense.onnx")
    return furnished


@pytest.fixture(name="refusal")
def refused(command, tmp_path):
    """Return the sentence of a command that fails, after checking that nothing changed."""

    def run(line, code):
        before = contents(tmp_path)
        found, out, err = command(line)
        assert (found, out) == (code, ""), err
        assert contents(tmp_path) == before
        last = err.splitlines()[-1]
        assert last.startswith("error: ")
        assert "Traceback" not in err
        return last.removeprefix("error: ")

    return run


@pytest.fixture(name="interrupted")
def interrupted_after(monkeypatch, command):
    """Return a way to run a command that gets a signal at its n-th checkpoint."""
    from onnx_relief.bridge.train.checkpoints import Checkpoints  # torch, only where it is used

    def run(line, number, checkpoint):
        save, count = Checkpoints.save, [0]

        def save_and_signal(self, state, start, rows):
            save(self, state, start, rows)
            count[0] += 1
            if count[0] == checkpoint:
                signal.raise_signal(number)

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", save_and_signal)
            code, _, err = command(line)
        assert code == 128 + number, err
        return err

    return run


@pytest.fixture(name="finished")
def finished_run(command):
    """Return the output of a run of `iterate` with three iterations."""
    before = Path("model.onnx").read_bytes()
    code, out, err = command(ITERATE)
    assert code == 0, err
    assert Path("model.onnx").read_bytes() == before
    return out, err
