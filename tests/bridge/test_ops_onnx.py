"""ONNX's own tests of operators, as tools/bench_bridge.py counts them."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import onnx2fx
import pytest
from text_models import build

from onnx_relief.bridge.ops import FAMILIES, register_handlers

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """Return a function that imports a module of tools/ as its scripts do."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


@pytest.fixture
def attempt(tool):
    """Return a function that gives the outcome of a graph in ONNX text on one set of arrays."""
    cases, bench = tool("bridge_cases"), tool("bench_bridge")
    register_handlers()

    def attempt(graph, given, wanted, **options):
        model = build(graph, opset=18)
        case = cases.Case(suite="node", name="t", model=model, sets=[(given, wanted)], **options)
        return bench.attempt(case, onnx2fx.convert)

    return attempt


@pytest.mark.parametrize("suite", ["node", "pytorch-converted", "pytorch-operator"])
def test_every_test_of_our_operators_on_floats_passes(tool, suite):
    cases, bench = tool("bridge_cases"), tool("bench_bridge")
    register_handlers()
    ours = {row.op_type for rows in FAMILIES for row in rows}
    wanted = [
        case
        for case in cases.cases(suite)
        if cases.kind(case) == cases.TO_DO and {n.op_type for n in case.model.graph.node} & ours
    ]
    assert wanted
    outcomes = [bench.attempt(case, onnx2fx.convert) for case in wanted]
    assert [o for o in outcomes if o.reason and o.kind == cases.TO_DO] == []


def test_right_numbers_pass(attempt):
    one = np.ones(2, np.float32)
    assert attempt("(float[2] x) => (float[2] y) { y = Neg(x) }", [one], [-one]).reason == ""


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (np.full(2, -1.01, np.float32), "differs by up to 0.01"),
        (np.full(2, -1, np.float64), "type float32, wanted float64"),
        (np.full((2, 1), -1, np.float32), "shape (2,), wanted (2, 1)"),
    ],
)
def test_wrong_numbers_types_and_shapes_fail(attempt, wanted, said):
    one = np.ones(2, np.float32)
    outcome = attempt("(float[2] x) => (float[2] y) { y = Neg(x) }", [one], [wanted])
    assert outcome.reason.startswith(said)
    assert outcome.kind == "to do"


def test_operator_that_nobody_knows_fails(attempt):
    outcome = attempt("(float[2] x) => (float[2] y) { y = my.Some(x) }", [None], [None])
    assert "Some" in outcome.reason


def test_last_digit_of_a_sum_is_rounding(attempt):
    x = np.array([1.0, 3.0], np.float32)
    wanted = x + np.array([1e-7, 0], np.float32)
    graph = "(float[2] x) => (float[2] y) { y = Identity(x) }"
    outcome = attempt(graph, [x], [wanted], rtol=0.0, atol=0.0)
    assert outcome.kind == "floats, off by the last digit"


@pytest.mark.parametrize(
    ("kind", "graph"),
    [
        ("to do", "(float[2] x) => (float[2] y) { y = Neg(x) }"),
        ("to do", "(int64[2] x) => (float[2] y) { y = Cast<to=1>(x) }"),
        ("bfloat16", "(bfloat16[2] x) => (bfloat16[2] y) { y = Neg(x) }"),
        ("no floats", "(int64[2] x) => (int64[2] y) { y = Neg(x) }"),
        ("random", "(float[2] x) => (float[2] y) { y = RandomNormalLike(x) }"),
        ("number types that torch lacks", "(uint16[2] x) => (float[2] y) { y = Cast<to=1>(x) }"),
        ("texts, sequences, optionals", "(string[2] x) => (float[2] y) { y = Cast<to=1>(x) }"),
        ("texts, sequences, optionals", "(float[2] x) => (seq(float[2]) y) { y = my.S(x) }"),
        ("classical machine learning", "(float[2] x) => (float[2] y) { y = ai.onnx.ml.Some(x) }"),
    ],
)
def test_tests_are_sorted_by_what_they_deal_with(tool, kind, graph):
    cases = tool("bridge_cases")
    case = cases.Case(suite="node", name="test_some", model=build(graph), sets=[])
    assert cases.kind(case) == kind


def test_other_suites_are_read_whole(tool):
    root = Path(onnx.__file__).parent / "backend" / "test" / "data" / "pytorch-operator"
    found = list(tool("bridge_cases").cases("pytorch-operator"))
    assert len(found) == len(list(root.glob("*/model.onnx")))
    assert all(case.sets for case in found)


def test_page_counts_every_test_once(tool, tmp_path, monkeypatch, capsys):
    page = tmp_path / "bridge.md"
    arguments = ["--suite", "pytorch-operator", "--markdown", str(page)]
    monkeypatch.setattr("sys.argv", ["bench_bridge.py", *arguments])
    assert tool("bench_bridge").main() == 0
    text, count = page.read_text(), len(list(tool("bridge_cases").cases("pytorch-operator")))
    assert f"| pytorch-operator | {count} / {count} |" in text
    assert f"| pytorch-operator | {count} / {count} |" in capsys.readouterr().out
