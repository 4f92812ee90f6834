"""Layers inside the bodies of If, Loop and Scan: their statistics are passed out and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser
from reference import (
    convolution_signals,
    kernels_by_unit,
    matmul_signals,
    recurrent_signals,
    seen_by_taps,
    shares,
)
from scored import assert_scores, measured, model_of, run, scores_of

from onnx_relief.errors import UnsupportedError
from onnx_relief.settings import Estimator
from onnx_relief.structures import KERNEL, WEIGHT

RNG = np.random.default_rng(11)


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def expect_dense(scores: Any, x: Any, weight: Any) -> None:
    """Check the scores of y = x @ weight."""
    expected = shares(matmul_signals(x, weight, weight_left=False))
    assert_scores(scores, *expected, np.zeros((weight.shape[-1], 0)), rtol=1e-5, atol=1e-8)


def expect_kernels(scores: Any, x: Any, weight: Any, pads: int = 0, **said: Any) -> None:
    """Check the scores of a convolution without bias and groups."""
    seen = seen_by_taps(x, weight.shape[2:], {"pads": (pads,) * 4}, transposed=False)
    signals = convolution_signals(
        seen,
        kernels_by_unit(weight, 1, transposed=False),
        1,
        mean_map=said.get("estimator") is Estimator.MEAN_MAP,
        weights=said.get("structure") == WEIGHT,
    )
    assert_scores(scores, *shares(signals), np.zeros((len(weight), 0)), rtol=1e-5, atol=0)


V = np.array([[1, -2], [3, 4], [-5, 6]], np.float32)
W = np.array([[0.5, 2, 0], [-1, 1, 8]], np.float32)


def model_from(text: str, **constants: Any) -> onnx.ModelProto:
    """Return a model from ONNX text, with these initializers in its main graph."""
    model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text)
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model.graph.initializer.extend(tensors)
    return model


BRANCHES = """
    agraph (float[N, 3] x, bool turn) => (float[N, 2] y) {
        y = If (turn) <
            then_branch = graph () => (float[N, 2] a) { a = MatMul (x, v) },
            else_branch = graph () => (float[N, 2] b) { twice = Add (x, x)  b = MatMul (twice, w) }
        >
    }
"""


def test_layers_in_both_branches_of_an_if() -> None:
    model, x, w = model_from(BRANCHES, v=V, w=V[::-1].copy()), numbers(4, 3), V[::-1]
    feeds = [{"x": k * x, "turn": np.array(turn)} for k, turn in enumerate((True, False, True), 1)]
    scores = scores_of(model, *feeds)
    expect_dense(scores["y.then_branch/a"], np.concatenate([x, 3 * x]), V)
    expect_dense(scores["y.else_branch/b"], 4 * x, w)


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_branches_before_opset_11_which_wants_tensors_of_one_shape(opset: int) -> None:
    model = model_from(
        """
        agraph (float[N, 3] x, bool turn, bool again) => (float[N, 2] y) {
            y = If (turn) <
                then_branch = graph () => (float[N, 2] a) { a = MatMul (x, v) },
                else_branch = graph () => (float[N, 2] b) {
                    twice = Add (x, x)
                    b = If (again) <
                        then_branch = graph () => (float[N, 2] c) { c = MatMul (twice, v) },
                        else_branch = graph () => (float[N, 2] d) { d = MatMul (x, w) }
                    >
                }
            >
        }
        """,
        v=V,
        w=V[::-1].copy(),
    )
    model.opset_import[0].version = opset
    x = numbers(4, 3)
    ways = ((True, True), (False, True), (False, False))
    scores = scores_of(
        model, *({"x": x, "turn": np.array(one), "again": np.array(two)} for one, two in ways)
    )
    expect_dense(scores["y.then_branch/a"], x, V)
    expect_dense(scores["y.else_branch/b.then_branch/c"], 2 * x, V)
    expect_dense(scores["y.else_branch/b.else_branch/d"], x, V[::-1])


def test_a_body_may_read_what_nothing_else_reads() -> None:
    model = model_from(
        """
        agraph (float[N, 3] x, bool turn) => (float[N, 2] y) {
            moved = Add (x, spread)
            y = If (turn) <
                then_branch = graph () => (float[N, 2] a) { a = MatMul (moved, v) },
                else_branch = graph () => (float[N, 2] b) { b = MatMul (x, v) }
            >
        }
        """,
        v=V,
        spread=np.array([1, 2, 3], np.float32),
    )
    x = numbers(4, 3)
    scores = scores_of(model, {"x": x, "turn": np.array(True)})
    expect_dense(scores["y.then_branch/a"], x + np.array([1, 2, 3]), V)


def test_a_branch_that_is_never_taken_is_left_alone() -> None:
    model = model_from(BRANCHES, v=V, w=V)
    found = measured(model, {"x": numbers(4, 3), "turn": np.array(True)})
    assert list(found.activities) == ["y.then_branch/a"]
    assert "never run on this data" in found.unobserved["y.else_branch/b"]


SETTINGS = [{"estimator": e, "structure": s} for e in Estimator for s in (KERNEL, WEIGHT)]


@pytest.mark.parametrize("said", SETTINGS, ids=str)
def test_convolutions_in_branches(said: Any) -> None:
    v, w = numbers(12, 2, 3, 3), numbers(12, 2, 1, 1)
    model = model_from(
        """
        agraph (float[N, 2, H, W] x, bool turn) => (float[N, M, H, W] y) {
            y = If (turn) <
                then_branch = graph () => (float[N, M, H, W] a) {
                    a = Conv <pads = [1, 1, 1, 1]> (x, v)
                },
                else_branch = graph () => (float[N, M, H, W] b) { b = Conv (x, w) }
            >
        }
        """,
        v=v,
        w=w,
    )
    x = numbers(3, 2, 5, 5)
    feeds = [{"x": x, "turn": np.array(True)}, {"x": 2 * x, "turn": np.array(False)}]
    scores = scores_of(model, *feeds, **said)
    expect_kernels(scores["y.then_branch/a"], x, v, pads=1, **said)
    expect_kernels(scores["y.else_branch/b"], x, w, **said)


@pytest.mark.parametrize("said", SETTINGS, ids=str)
@pytest.mark.parametrize("units", [2, 12])
def test_a_convolution_in_a_loop(said: Any, units: int) -> None:
    model = model_from(
        """
        agraph (float[N, 2, H, W] x, int64 trips)
                => (float[N, 2, H, W] y, float[T, N, M, H, W] all) {
            go = Constant <value = bool {1}> ()
            y, all = Loop (trips, go, x) <
                body = graph (int64 i, bool on, float[N, 2, H, W] state)
                        => (bool still, float[N, 2, H, W] next, float[N, M, H, W] maps) {
                    still = Identity (on)
                    maps = Conv <pads = [1, 1, 1, 1]> (state, w)
                    next = Mul (state, state)
                }
            >
        }
        """,
        w=numbers(units, 2, 3, 3),
    )
    x = numbers(3, 2, 5, 5)
    states = np.concatenate([x, x**2, x**4])
    scores = scores_of(model, {"x": x, "trips": np.array(3)}, **said)
    weight = numpy_helper.to_array(model.graph.initializer[0])
    expect_kernels(scores["y.body/maps"], states, weight, pads=1, **said)


def test_a_recurrent_layer_in_a_branch() -> None:
    model = model_from(
        """
        agraph (float[T, N, 3] x, bool turn) => (float[1, N, 2] y) {
            y = If (turn) <
                then_branch = graph () => (float[1, N, 2] a) {
                    "", a = LSTM <hidden_size = 2> (x, w, r)
                },
                else_branch = graph () => (float[1, N, 2] b) {
                    "", b = GRU <hidden_size = 2> (x, v, q)
                }
            >
        }
        """,
        w=numbers(1, 8, 3),
        r=numbers(1, 8, 2),
        v=numbers(1, 6, 3),
        q=numbers(1, 6, 2),
    )
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    x = numbers(5, 4, 3)
    feeds = [{"x": x, "turn": np.array(turn)} for turn in (True, False)]
    scores = scores_of(model, *feeds)
    for op, name, weights in (("LSTM", "y.then_branch/a", "wr"), ("GRU", "y.else_branch/b", "vq")):
        pair = constants[weights[0]], constants[weights[1]]
        node = helper.make_node(op, ["x", "w", "r"], ["Y"], hidden_size=2)
        states = run(
            model_of([node], dict(zip("wr", pair, strict=True)), {"x": x}, ["Y"]), {"x": x}
        )
        signals = recurrent_signals(
            x, states["Y"], pair, reverse=[False], initial=None, lengths=None
        )
        expected = (*shares(*signals), np.zeros((len(signals[0]), 0)))
        assert_scores(scores[name], *expected, rtol=1e-5, atol=1e-7)


def test_an_if_inside_an_if() -> None:
    model = model_from(
        """
        agraph (float[N, 3] x, bool outer, bool inner) => (float[N, 2] y) {
            y = If (outer) <
                then_branch = graph () => (float[N, 2] a) {
                    a = If (inner) <
                        then_branch = graph () => (float[N, 2] c) { c = MatMul (x, v) },
                        else_branch = graph () => (float[N, 2] d) { n = Neg (x)  d = MatMul (n, v) }
                    >
                },
                else_branch = graph () => (float[N, 2] b) { b = MatMul (x, v) }
            >
        }
        """,
        v=V,
    )
    x, ways = numbers(4, 3), [(True, True), (True, False), (False, True)]
    parts = [np.ascontiguousarray(x * scale) for scale in ([1, 2, 3], [3, 1, 2], [2, 3, 1])]
    feeds = [
        {"x": part.astype(np.float32), "outer": np.array(a), "inner": np.array(b)}
        for part, (a, b) in zip(parts, ways, strict=True)
    ]
    scores = scores_of(model, *feeds)
    expect_dense(scores["y.then_branch/a.then_branch/c"], parts[0], V)
    expect_dense(scores["y.then_branch/a.else_branch/d"], parts[1], V)
    expect_dense(scores["y.else_branch/b"], parts[2], V)


LOOP = """
    agraph (float[N, 3] x, int64 trips) => (float[N, 3] y) {
        go = Constant <value = bool {1}> ()
        y = Loop (trips, go, x) <
            body = graph (int64 i, bool on, float[N, 3] state) => (bool still, float[N, 3] next) {
                still = Identity (on)
                h = MatMul (state, v)
                next = MatMul (h, w)
            }
        >
    }
"""


@pytest.mark.parametrize("trips", [1, 3])
def test_a_loop_counts_every_iteration(trips: int) -> None:
    x, states = numbers(4, 3), []
    for turn in range(trips):
        states.append(x if turn == 0 else states[-1] @ V @ W)
    scores = scores_of(model_from(LOOP, v=V, w=W), {"x": x, "trips": np.array(trips)})
    expect_dense(scores["y.body/h"], np.concatenate(states), V)
    expect_dense(scores["y.body/next"], np.concatenate(states) @ V, W)


def test_a_loop_without_iterations_has_seen_nothing() -> None:
    model = model_from(LOOP, v=V, w=W)
    none, some = ({"x": numbers(4, 3), "trips": np.array(trips)} for trips in (0, 2))
    with pytest.raises(UnsupportedError, match="never run on this data"):
        measured(model, none)
    expected, scores = scores_of(model, some), scores_of(model, none, some)
    np.testing.assert_array_equal(scores["y.body/h"].weights, expected["y.body/h"].weights)


def test_a_loop_with_outputs_per_iteration() -> None:
    model = model_from(
        """
        agraph (float[N, 3] x, int64 trips) => (float[N, 3] y, float[T, N, 2] all) {
            go = Constant <value = bool {1}> ()
            y, all = Loop (trips, go, x) <
                body = graph (int64 i, bool on, float[N, 3] state)
                        => (bool still, float[N, 3] next, float[N, 2] each) {
                    still = Identity (on)
                    next = Add (state, state)
                    each = MatMul (state, v)
                }
            >
        }
        """,
        v=V,
    )
    x = numbers(4, 3) * np.array([1, 10, 100], np.float32)
    scores = scores_of(model, {"x": x, "trips": np.array(3)})
    expect_dense(scores["y.body/each"], np.concatenate([x, 2 * x, 4 * x]), V)


@pytest.mark.parametrize("settings", ["", "scan_output_axes = [1], scan_output_directions = [1],"])
def test_a_scan_counts_every_step(settings: str) -> None:
    model = model_from(
        f"""
        agraph (float[T, N, 3] x) => (float[N, 2] last, float[K, L, 2] all) {{
            start = Constant <value = float[1, 2] {{0.0, 0.0}}> ()
            last, all = Scan <num_scan_inputs = 1, {settings}
                body = graph (float[M, 2] state, float[N, 3] step)
                        => (float[M, 2] next, float[N, 2] out) {{
                    out = MatMul (step, v)
                    next = Identity (state)
                }}
            > (start, x)
        }}
        """,
        v=V,
    )
    x = numbers(5, 4, 3)
    expect_dense(scores_of(model, {"x": x[:2]}, {"x": x[2:]})["last.body/out"], x, V)


def test_an_if_inside_a_loop() -> None:
    model = model_from(
        """
        agraph (float[N, 3] x, bool[T] turns, int64 trips) => (float[N, 3] y) {
            go = Constant <value = bool {1}> ()
            y = Loop (trips, go, x) <
                body = graph (int64 i, bool on, float[N, 3] state)
                        => (bool still, float[N, 3] next) {
                    still = Identity (on)
                    turn = Gather (turns, i)
                    scaled = Mul (state, spread)
                    h = If (turn) <
                        then_branch = graph () => (float[N, 2] a) { a = MatMul (scaled, v) },
                        else_branch = graph () => (float[N, 2] b) { b = MatMul (state, v) }
                    >
                    next = Identity (scaled)
                }
            >
        }
        """,
        v=V,
        spread=np.array([1, 2, 3], np.float32),
    )
    x, spread = numbers(4, 3), np.array([1, 2, 3])
    turns = np.array([True, False, True])
    scores = scores_of(model, {"x": x, "turns": turns, "trips": np.array(3)})
    expect_dense(scores["y.body/h.then_branch/a"], np.concatenate([x * spread, x * spread**3]), V)
    expect_dense(scores["y.body/h.else_branch/b"], x * spread, V)


def test_a_body_may_hold_its_own_weights() -> None:
    model = model_from(
        BRANCHES.replace("{ a = ", "<float[3, 2] v = {1, -2, 3, 4, -5, 6}> { a = "), w=V
    )
    x = numbers(4, 3)
    scores = scores_of(model, {"x": x, "turn": np.array(True)})
    expect_dense(scores["y.then_branch/a"], x, V)
