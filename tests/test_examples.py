"""The examples run as they stand, and do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import load, numpy_helper

ROOT = Path(__file__).resolve().parent.parent


def example(name):
    found = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_python_of_the_readme_runs_and_makes_smaller_models(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    images = np.load(ROOT / "models" / "mnist-calibration.npz")["image"][:48]
    exec("\n".join(code), {"pictures": images.astype(np.float32) / 255})
    out = capsys.readouterr().out
    assert "agreement" in out
    assert "'/2/Conv': ((0.5, " in out
    sizes = [
        sum(
            tensor.ByteSize()
            for tensor in load(tmp_path / f"lenet-5.{name}.onnx").graph.initializer
        )
        for name in ("pruned", "compact", "half")
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_plain_loop_of_pytorch_trains_and_writes_the_same_file(tmp_path):
    pytest.importorskip("torch", reason="needs the extra [retrain]")
    accuracy = example("train_in_pytorch").main(tmp_path)
    model = load(tmp_path / "lenet-300-100.trained.onnx")
    dense = load(ROOT / "models" / "lenet-300-100.onnx")
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert accuracy > 95
    assert [t.name for t in model.graph.initializer] == [t.name for t in dense.graph.initializer]
    assert np.mean(arrays[0] == 0) > 0.5
