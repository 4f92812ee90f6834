"""Weights that a graph puts together from constants are pruned as one constant, which is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from text_models import assert_outputs_agree, build, differences, initializer, random

import onnx_relief as relief
from onnx_relief.cli import main
from onnx_relief.graph.document import load

PARTS = {
    "rows in two parts": (
        "w = Concat <axis = 0> (wa, wb)",
        {"wa": random(6, 8, seed=1), "wb": random(10, 8, seed=2)},
    ),
    "weight norm": (
        "n = ReduceL2 <axes = [1], keepdims = 1> (u)  d = Div (u, n)  w = Mul (d, g)",
        {"u": random(16, 8, seed=1), "g": random(16, 1, seed=2)},
    ),
    "low-rank change": (
        "c = MatMul (up, down)  w = Add (base, c)",
        {
            "base": random(16, 8, seed=1),
            "up": random(16, 2, seed=2),
            "down": random(2, 8, seed=3),
        },
    ),
}
X = random(100, 8, seed=9)


def model(parts):
    made, weights = PARTS[parts]
    graph = f"""(float[N,8] x) => (float[N,4] y) {{
        {made}  [first] h = Gemm <transB = 1> (x, w, b)  r = Relu (h)  [second] y = Gemm (r, v)
    }}"""
    return build(graph, opset=13, **weights, b=random(16, seed=4), v=random(16, 4, seed=5))


@pytest.mark.parametrize("parts", PARTS)
def test_they_are_pruned_and_the_report_says_what_was_done(parts):
    found = relief.prune(model(parts), X, sparsity=0.5, granularity="weight", repair="none")
    kept = initializer(found.model, "w")
    assert kept.shape == (16, 8)
    assert (initializer(found.model, "v") == 0).sum() + (kept == 0).sum() == 96
    assert any("'w' is stored as one constant now" in one for one in found.report.advice)
    whole = relief.prune(model(parts), X, alpha=1.0, granularity="weight").model
    assert_outputs_agree(whole, model(parts), {"x": X[:9]}, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", PARTS)
def test_they_stay_in_parts_where_the_layer_is_left_alone(parts):
    found = relief.prune(
        model(parts), X, sparsity=0.5, granularity="weight", only=["second"], repair="none"
    )
    assert {tensor.name for tensor in found.model.graph.initializer} == {
        *PARTS[parts][1],
        *("b", "v"),
    }
    assert not any("one constant" in one for one in found.report.advice)


@pytest.mark.parametrize("parts", PARTS)
def test_a_plan_is_replayed_to_the_same_model(parts):
    chosen = {"sparsity": 0.5, "granularity": "weight", "criterion": "wanda", "repair": "none"}
    found = relief.prune(model(parts), X, **chosen)
    assert differences(found.model, relief.prune(model(parts), plan=found.plan).model) == []


def test_inspect_and_analyze_count_them_as_layers(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_bytes(model("weight norm").SerializeToString())
    assert main(["inspect", str(path), "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["name"] for layer in layers] == ["first", "second"]
    found = relief.analyze(path, X, sparsities=[0.5], granularity="weight")
    assert set(found.losses()) == {"first", "second"}
    assert load(path).proto == model("weight norm")


def test_iterate_prunes_them(tmp_path):
    y = np.arange(100) % 4
    found = relief.iterate(
        model("rows in two parts"),
        {"x": X, "labels": y},
        iterations=1,
        epochs=1,
        folder=tmp_path / "run",
    )
    assert (initializer(found.document.proto, "w") == 0).any()
