"""The tool that measures `iterate`: where its runs begin, and what it says of them."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_relief.history import IterationRow

TOOLS = Path(__file__).parent.parent / "tools"
MODELS = TOOLS.parent / "models"


@pytest.fixture
def tool(monkeypatch):
    """Return a function that imports a module of tools/ as its scripts do."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5"])
def test_random_weights_are_those_that_pytorch_begins_with(tool, name):
    trained = onnx.load(MODELS / f"{name}.onnx")
    fresh = tool("models.initial").reinitialised(trained, seed=1)
    stored = {t.name: numpy_helper.to_array(t) for t in fresh.graph.initializer}
    layers = [node for node in fresh.graph.node if node.op_type in ("Conv", "Gemm")]
    for node in layers:
        weight = stored[node.input[1]]
        bound = weight[0].size ** -0.5
        assert np.abs(weight).max() <= bound
        assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert len(layers) >= 3
    for model in (trained, fresh):
        del model.graph.initializer[:]
    assert fresh == trained


def test_seed_decides_the_random_weights(tool):
    trained = onnx.load(MODELS / "lenet-5.onnx")
    first, again, other = (tool("models.initial").reinitialised(trained, s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def row(iteration, remaining, correct):
    return IterationRow(
        iteration=iteration,
        alpha=(0.9, 0.95),
        metric_pruned=correct - 1,
        metric_retrained=correct,
        remaining=remaining,
        nonzero=int(remaining * 100),
        architecture=(20, 50),
        flops=None,
        epochs=5 if iteration else 0,
        seconds=1.0,
    )


def test_verdict_wants_small_and_good_and_soon(tool):
    verdict = tool("iterate_lenet").verdict
    rows = [row(0, 100.0, 99.2), row(1, 3.0, 99.1), row(2, 1.0, 99.0)]
    assert "**reached** in iteration 2" in verdict(rows, (1.0, 99.0, 15), 5)
    assert "not reached" in verdict(rows, (1.0, 99.0, 14), 5)
    assert "not reached" in verdict(rows, (1.0, 99.01, 15), 5)
    assert "not reached" in verdict(rows, (0.99, 99.0, 15), 5)


def test_curve_counts_epochs_from_the_dense_training_on(tool):
    rows = [row(0, 100.0, 99.2), row(1, 3.0, 99.1), row(2, 1.0, 99.0)]
    _, lines = tool("iterate_runs").curve(rows, dense_epochs=7)
    assert [line[2] for line in lines] == ["7", "12", "17"]


def test_section_replaces_itself_and_leaves_the_others(tool, monkeypatch, tmp_path):
    bench = tool("bench_iterate")
    page = tmp_path / "docs" / "retraining.md"
    monkeypatch.setattr(bench, "PAGE", page)
    bench.write_section("resnet20", "of pictures")
    bench.write_section("lenet-5", "of digits, old")
    bench.write_section("lenet-5", "of digits, new")
    said = page.read_text()
    assert "old" not in said
    assert said.count("## lenet-5\n") == 1
    assert said.index("of digits, new") < said.index("of pictures")


def test_words_that_are_judged_on_are_not_trained_on(tool):
    words = ["this", "LICENSE", "copyright", "work", "COPYRIGH97", "License"]
    assert tool("iterate_distil")._unlike_the_last(words, 2) == [0, 3]
