"""A budget spent on a weight that several layers read: all of them have a say in what stays."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build, initializer, random

import onnx_relief as relief
from onnx_relief.budget import Budget
from onnx_relief.data import open_data
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.pipeline import prune
from onnx_relief.settings import Settings
from onnx_relief.structures import WEIGHT

# Each branch lives on one half of the features.
X, U = (random(300, 10, seed=seed) for seed in (1, 2))
X[:, 5:] *= 0.01
U[:, :5] *= 0.01


def halved(graph, weight, criterion, *, loud=1.0, only=()):
    """Return the weight with half of its entries zero."""
    document = load(build(graph, w=weight))
    data = open_data({"x": X, "u": loud * U}, input_specs(document.proto))
    budget = Budget(sparsity=0.5)
    settings = Settings(criterion=criterion, structure=WEIGHT, budget=budget, only=only)
    made = prune(document, data, settings).document.proto
    return np.frombuffer(made.graph.initializer[0].raw_data, np.float32).reshape(weight.shape)


def lost(weight, pruned):
    """Return the relative square errors of both branches."""
    return [
        np.square(one @ (weight - pruned)).sum() / np.square(one @ weight).sum() for one in (X, U)
    ]


TWO = "(float[N,10] x, float[N,10] u) => (float[N,6] y, float[N,6] z) {{ {} }}"
BRANCHES = ("[y] y = MatMul (x, w)", "[z] z = MatMul (u, w)")


@pytest.mark.parametrize("criterion", ["relief", "wanda", "obs", "magnitude"])
@pytest.mark.parametrize("loud", [1.0, 50.0])
def test_neither_the_first_layer_nor_the_loudest_decides_alone(criterion, loud):
    weight = random(10, 6, seed=3)
    one, other = (
        halved(TWO.format(" ".join(order)), weight, criterion, loud=loud)
        for order in (BRANCHES, BRANCHES[::-1])
    )
    np.testing.assert_array_equal(one == 0, other == 0)
    assert (one == 0).sum() == 30
    assert max(lost(weight, one)) < 0.2


def test_a_weight_that_a_layer_reads_which_is_left_alone_stays_and_that_is_said():
    with pytest.raises(UnsupportedError, match=r"read those of the others, too \(z: it matches"):
        halved(TWO.format(" ".join(BRANCHES)), random(10, 6, seed=3), "wanda", only=("y",))


BRANCHING = """(float[N,10] x) => (float[N,3] y) {{
    yes = Constant <value = bool {{1}}> ()
    h = If (yes) <then_branch = t () => (float[N,6] o) {{ o = MatMul (x, w) }},
        else_branch = e () => (float[N,6] p) {{ n = Neg (x)  p = {other} }}>
    y = MatMul (h, v) }}"""


@pytest.mark.parametrize("budget", [{"sparsity": 0.5}, {"alpha": 0.7}])
def test_a_branch_that_is_not_taken_loses_what_others_lose_that_read_its_weight(budget):
    model = build(BRANCHING.format(other="MatMul (n, w)"), w=random(10, 6), v=random(6, 3))
    found = relief.prune(model, random(40, 10, seed=1), granularity="weight", **budget)
    assert (initializer(found.model, "w") == 0).mean() > 0.2
    rows = {row["name"]: row for row in found.report.to_dict()["layers"]}
    taken, other = (name for name in rows if name != "y")
    assert rows[taken]["kept"] == rows[other]["kept"] < 60
    (note,) = (one for one in found.report.advice if "same weights" in one)
    assert note.startswith(f"{other} loses what layers lose")
    assert "never run on this data" in note


def test_a_weight_of_one_that_is_left_alone_stays_and_that_is_said():
    graph = """(float[N,10] x) => (float[N,3] y, float[N,6] z) {
        h = MatMul (x, w)  n = Neg (x)  z = MatMul (n, w)  y = MatMul (h, v) }"""
    model = build(graph, w=random(10, 6), v=random(6, 3))
    found = relief.prune(model, random(40, 10, seed=1), sparsity=0.5, skip=["z"])
    rows = {row["name"]: row["left_alone"] for row in found.report.to_dict()["layers"]}
    assert rows["h"] == "'z', which is left alone, reads its weight, too"
    assert (initializer(found.model, "w") != 0).all()
    assert (initializer(found.model, "v") == 0).sum() == 9


@pytest.mark.parametrize("criterion", ["relief", "wanda", "obs"])
def test_a_layer_that_reads_the_weight_otherwise_has_a_say_too(criterion):
    """Of a tied pair one reads rows, the other one columns."""
    graph = """(float[N,10] x, float[N,10] u) => (float[N,10] y, float[N,10] z) {
        y = Gemm (x, w)  z = Gemm <transB = 1> (u, w)
    }"""
    weight = random(10, 10, seed=3)
    kept = halved(graph, weight, criterion) != 0
    assert kept[:5, 5:].mean() > 0.7  # both hear these,
    assert kept[5:, :5].mean() < 0.1  # and neither those
    assert 0.4 < kept[:5, :5].mean() < 0.7
    assert 0.4 < kept[5:, 5:].mean() < 0.7
