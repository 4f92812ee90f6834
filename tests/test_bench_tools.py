"""The measuring tools: what they share, and one model from end to end."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from onnx_relief.graph.layers import find_layers

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def tool(monkeypatch):
    """Return a function that imports a module of tools/ as its scripts do."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def test_text_between_markers_is_replaced_and_the_rest_stays(tool, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- t -->\nold\n<!-- /t -->\nb\n")
    assert tool("_bench").replace_between(page, "t", "new")
    assert page.read_text() == "a\n<!-- t -->\nnew\n<!-- /t -->\nb\n"


def test_page_without_markers_is_not_touched(tool, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("a <!-- t --> b")
    assert not tool("_bench").replace_between(page, "t", "new")
    assert page.read_text() == "a <!-- t --> b"


def test_magnitude_keeps_exactly_as_many_whatever_the_ties(tool):
    kept = tool("oneshot.curves")._largest(np.array([1.0, 2.0, 1.0, 1.0]), 2)
    assert kept.tolist() == [True, True, False, False]


@pytest.mark.parametrize("together", [True, False])
def test_magnitude_baseline_keeps_as_many_weights_as_relief(tool, together):
    bench = tool("oneshot.curves")
    task = bench.TASKS["lenet-300-100"]()
    settings = bench.Settings(alpha=0.9, samples=20)
    pruned = bench.prune(task.document, task.calibration, settings, keep_scores=False)
    baseline = find_layers(bench._by_magnitude(pruned, together))
    left = [np.count_nonzero(baseline.rows(site.parts[0])) for site in baseline.sites]
    wanted = [plan.kept_connections for plan in pruned.plan]
    assert sum(left) == sum(wanted)
    assert (left == wanted) is not together


def test_overlap_is_intersection_over_union(tool):
    first, second = np.array([0.9, 0.9, 0.1, 0.1]), np.array([0.9, 0.1, 0.9, 0.1])
    assert tool("samples").overlap(first, second, 0.5) == pytest.approx(100 / 3)


def test_one_model_goes_through_the_corpus_benchmark(tool):
    bench = tool("bench_corpus")
    (entry,) = bench.chosen(["lenet-300-100"])
    row = bench.examine(entry, bench.QUICK, [0.95])
    (step,) = row["steps"]
    assert (row["state"], row["found"], row["pruned"]) == ("pruned", 3, 3)
    assert 5 < step["left"] < 60
    assert abs(row["dense"] - step["score"]) < 20


def test_names_of_the_corpus_benchmark_are_unique(tool):
    names = [entry.name for entry in tool("corpus_data").ENTRIES]
    assert len(names) == len(set(names))


def test_default_repair_that_is_not_the_best_is_named(tool):
    behind = tool("bench_channels").behind
    ahead = (0.3, "layer", "50.0", "51.0", "10.00", "20.00", "30.00", "40.00")
    late = (0.5, "global", "5.0", "6.0", "10.00", "10.00", "14.55", "10.00")
    assert behind([ahead]) == []
    assert "0.5 global (4.55)" in behind([ahead, late])[0]
    assert "layer" not in behind([ahead, late])[0]
