"""What the throw-away graph measures, wherever a layer stands and however its model is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from reference import (
    convolution_signals,
    kernels_by_unit,
    matmul_signals,
    recurrent_signals,
    seen_by_taps,
    shares,
)
from scored import assert_scores, measured, model_of, one_layer, run, scores_of

from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import load
from onnx_relief.graph.instrument import instrument
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.probes import Estimator, Granularity, probes_for

RNG = np.random.default_rng(7)
NO_BIAS = np.zeros((2, 0))


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def expect_dense(scores: Any, x: Any, weight: Any, rtol: float = 1e-5) -> None:
    """Check the scores of y = x @ weight."""
    expected = shares(matmul_signals(x, weight, weight_left=False))
    assert_scores(scores, *expected, np.zeros((weight.shape[-1], 0)), rtol=rtol, atol=1e-8)


# --- operator sets, element types ------------------------------------------------------------------

CONSTANTS = {
    "w1": numbers(12, 2, 3, 3),
    "w2": numbers(12, 1, 3, 3),
    "w3": numbers(4, 12, 1, 1),
    "w4": numbers(4, 4, 1, 1),
    "w5": numbers(4 * 3 * 3, 5),
    "b5": numbers(5),
}


def small_net(opset: int, batch: int | None = None, dtype: Any = np.float32) -> onnx.ModelProto:
    """Return a net with every kind of probe in it: GRAM, KERNELS, TAPS (both ways), FEATURES."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="full", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="depthwise", group=12, pads=[1] * 4),
        helper.make_node("Conv", ["c", "w3"], ["d"], name="pointwise"),
        helper.make_node("Conv", ["d", "w4"], ["e"], name="strided", strides=[2, 2]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w5", "b5"], ["y"], name="dense"),
    ]
    constants = {name: value.astype(dtype) for name, value in CONSTANTS.items()}
    fed = {"x": np.zeros((1, 2, 6, 6), dtype)}
    model = model_of(nodes, constants, fed, ["y"], opset=opset)
    if batch:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    return model


PICTURES = numbers(4, 2, 6, 6)


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("estimator", Estimator)
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 13, 18, 21])
def test_every_operator_set_gives_the_same_scores(
    opset: int, estimator: Estimator, granularity: Granularity
) -> None:
    said = {"estimator": estimator, "granularity": granularity}
    expected = scores_of(small_net(17), {"x": PICTURES}, **said)
    scores = scores_of(small_net(opset), {"x": PICTURES}, **said)
    assert scores.keys() == expected.keys() == {"full", "depthwise", "pointwise", "strided", "dense"}
    for name in expected:
        want = (*expected[name].weights, expected[name].bias)
        assert_scores(scores[name], *want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 14, 22])
def test_sequence_lengths_in_every_operator_set(opset: int) -> None:
    feed = {"X": numbers(5, 2, 3), "lengths": np.array([5, 2], np.int32)}
    constants = {"W": numbers(1, 8, 3), "R": numbers(1, 8, 2)}
    node = helper.make_node(
        "LSTM", ["X", "W", "R", "", "lengths"], ["Y", "Y_h"], name="layer", hidden_size=2
    )
    model = model_of([node], constants, feed, ["Y"], opset=opset)
    signals = recurrent_signals(
        feed["X"],
        run(model, feed)["Y"],
        (constants["W"], constants["R"]),
        reverse=[False],
        initial=None,
        lengths=feed["lengths"],
    )
    expected = (*shares(*signals), np.zeros((8, 0)))
    assert_scores(scores_of(model, feed)["layer"], *expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18])
@pytest.mark.parametrize("batch", [(2,), (2, 1), (1, 3)])
def test_batched_weights_in_every_operator_set(opset: int, batch: tuple[int, ...]) -> None:
    x, weight = numbers(2, 3, 4, 5), numbers(*batch, 5, 3)
    x = x[:, 0] if batch == (2,) else x
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    model = model_of([node], {"w": weight}, {"x": x}, ["y"], opset=opset)
    expected = shares(matmul_signals(x, weight, weight_left=False))[0]
    assert_scores(
        scores_of(model, {"x": x})["layer"], expected, np.zeros((len(expected), 0)), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3)])  # TAPS, GRAM and KERNELS
def test_half_precision_does_not_overflow(kernel: tuple[int, int]) -> None:
    x = (np.abs(PICTURES) / PICTURES.max() * 60000).astype(np.float16)
    assert x.astype(float).sum() > np.finfo(np.float16).max
    weight = (RNG.random((6, 2, *kernel)) * 1e-4).astype(np.float16)
    scores = scores_of(one_layer("Conv", ["x", "w"], {"w": weight}, {"x": x}), {"x": x})["layer"]
    seen = seen_by_taps(x, kernel, {}, transposed=False)
    kernels = kernels_by_unit(weight, 1, transposed=False)
    signals = convolution_signals(seen, kernels, 1, mean_map=False, weights=False)
    assert_scores(scores, *shares(signals), np.zeros((6, 0)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_double_precision_stays_double(op: str) -> None:
    x, weight = RNG.standard_normal((40, 3)), RNG.standard_normal((3, 2))
    model = one_layer(op, ["x", "w"], {"w": weight}, {"x": x})
    expect_dense(scores_of(model, {"x": x})["layer"], x, weight, rtol=1e-13)


# --- batches, inputs, constants --------------------------------------------------------------------


def test_a_fixed_batch_gives_what_an_open_one_gives() -> None:
    expected = scores_of(small_net(17), {"x": PICTURES})
    scores = scores_of(small_net(17, batch=2), {"x": PICTURES[:2]}, {"x": PICTURES[2:]})
    for name in expected:
        np.testing.assert_allclose(scores[name].weights, expected[name].weights, rtol=1e-6)


def test_several_inputs_each_reach_their_layer() -> None:
    feed = {"left": numbers(4, 3), "right": 100 * numbers(4, 3)}
    weights = {"v": numbers(3, 2), "w": numbers(3, 2)}
    nodes = [
        helper.make_node("MatMul", ["left", "v"], ["a"], name="one"),
        helper.make_node("MatMul", ["right", "w"], ["b"], name="two"),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    scores = scores_of(model_of(nodes, weights, feed, ["y"]), feed)
    expect_dense(scores["one"], feed["left"], weights["v"])
    expect_dense(scores["two"], feed["right"], weights["w"])


def test_initializers_listed_as_inputs_need_not_be_fed() -> None:
    x, weight = numbers(4, 3), numbers(3, 2)
    model = one_layer("MatMul", ["x", "w"], {"w": weight}, {"x": x})
    model.ir_version = 3
    model.opset_import[0].version = 8
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2]))
    expect_dense(scores_of(model, {"x": x})["layer"], x, weight)


def test_an_input_with_a_default_need_not_be_fed() -> None:
    x, weight = numbers(4, 3), numbers(3, 2)
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "w"], ["y"], name="layer"),
    ]
    model = model_of(nodes, {"w": weight, "gain": np.ones(3, np.float32)}, {"x": x}, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [3]))
    expect_dense(scores_of(model, {"x": x})["layer"], x, weight)


def test_an_optional_input() -> None:
    x, weight = numbers(4, 3), numbers(3, 2)
    nodes = [
        helper.make_node("OptionalGetElement", ["x"], ["there"]),
        helper.make_node("MatMul", ["there", "w"], ["y"], name="layer"),
    ]
    model = model_of(nodes, {"w": weight}, {"x": x}, ["y"], opset=18)
    inner = model.graph.input[0].type.tensor_type.SerializeToString()
    model.graph.input[0].type.Clear()
    model.graph.input[0].type.optional_type.elem_type.tensor_type.ParseFromString(inner)
    expect_dense(scores_of(model, {"x": x})["layer"], x, weight)


def test_a_weight_behind_a_transpose() -> None:
    x, weight = numbers(4, 3), numbers(3, 2)
    nodes = [
        helper.make_node("Transpose", ["stored"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"),
    ]
    model = model_of(nodes, {"stored": weight.T}, {"x": x}, ["y"])
    expect_dense(scores_of(model, {"x": x})["layer"], x, weight)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_quantized_weight(axis: int | None) -> None:
    x, stored = numbers(4, 3), RNG.integers(-100, 100, (3, 2)).astype(np.int8)
    count = 1 if axis is None else stored.shape[axis]
    scale, zero = RNG.random(count).astype(np.float32), np.arange(count, dtype=np.int8)
    if axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    nodes = [
        helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["w"], axis=axis or 0),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"),
    ]
    constants = {"stored": stored, "scale": scale, "zero": zero}
    model = model_of(nodes, constants, {"x": x}, ["y"])
    shape = [-1 if axis == a else 1 for a in range(2)]
    weight = (stored.astype(np.float64) - zero.reshape(shape)) * scale.reshape(shape)
    expect_dense(scores_of(model, {"x": x})["layer"], x, weight)


def test_a_layer_inside_a_local_function_called_twice() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        graph (float[N, 2] x) => (float[N, 2] z) {
            y = local.dense (x)
            z = local.dense (y)
        }
        <domain: "local", opset_import: ["" : 17]>
        dense (a) => (b) {
            w = Constant <value = float[2, 2] {1.0, -2.0, 3.0, 4.0}> ()
            b = MatMul (a, w)
        }
    """)
    x, weight = numbers(4, 2), np.array([[1, -2], [3, 4]], np.float32)
    first, second = scores_of(model, {"x": x}).values()
    expect_dense(first, x, weight)
    expect_dense(second, x @ weight, weight)


# --- probes ----------------------------------------------------------------------------------------


def probes_of(model: onnx.ModelProto) -> list[Any]:
    survey = find_layers(load(model))
    return [p for s in survey.sites for p in probes_for(s, Estimator.PAPER, Granularity.KERNEL)]


def test_layers_that_read_alike_share_a_probe_and_are_scored_alike() -> None:
    x, weights = numbers(4, 3), {"v": numbers(3, 2), "w": numbers(3, 4)}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"], name="one"),
        helper.make_node("MatMul", ["x", "w"], ["b"], name="two"),
    ]
    model = model_of(nodes, weights, {"x": x}, ["a", "b"])
    assert len(probes_of(model)) == 2
    assert len(set(probes_of(model))) == 1
    scores = scores_of(model, {"x": x}, {"x": 3 * x})
    expect_dense(scores["one"], np.concatenate([x, 3 * x]), weights["v"])
    expect_dense(scores["two"], np.concatenate([x, 3 * x]), weights["w"])


def test_same_input_but_other_kernels_are_other_probes() -> None:
    x, seen = numbers(3, 2, 5, 5), {}
    weights = {"u": numbers(20, 2, 3, 3), "v": numbers(20, 2, 3, 3), "w": numbers(9, 2, 2, 2)}
    said: dict[str, dict[str, Any]] = {"u": {}, "v": {"dilations": [2, 2]}, "w": {}}
    nodes = [helper.make_node("Conv", ["x", n], [f"y{n}"], name=n, **said[n]) for n in weights]
    model = model_of(nodes, weights, {"x": x}, ["yu", "yv", "yw"])
    assert len(set(probes_of(model))) == 3
    scores = scores_of(model, {"x": x})
    for name, weight in weights.items():
        seen = seen_by_taps(x, weight.shape[2:], said[name], transposed=False)
        kernels = kernels_by_unit(weight, 1, transposed=False)
        signals = convolution_signals(seen, kernels, 1, mean_map=False, weights=False)
        assert_scores(scores[name], *shares(signals), np.zeros((len(weight), 0)), rtol=1e-5, atol=0)


def instrumented(model: onnx.ModelProto) -> Any:
    survey = find_layers(load(model))
    wanted = {s.layer.name: probes_for(s, Estimator.PAPER, Granularity.WEIGHT) for s in survey.sites}
    return instrument(survey, wanted, {})


def test_only_statistics_are_emitted() -> None:
    made = instrumented(small_net(17))
    emitted = {name for names in made.outputs.values() for name in names}
    assert {value.name for value in made.proto.graph.output} == emitted
    assert "y" not in emitted


def test_what_only_the_original_outputs_need_is_not_computed() -> None:
    x, weight = numbers(4, 3), numbers(3, 2)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"),
        helper.make_node("Reshape", ["y", "impossible"], ["z"]),
    ]
    constants = {"w": weight, "impossible": np.array([7, 11])}
    model = model_of(nodes, constants, {"x": x}, [helper.make_tensor_value_info("z", 1, [7, 11])])
    assert "Reshape" not in {n.op_type for n in instrumented(model).proto.graph.node if "z" in n.output}
    expect_dense(scores_of(model, {"x": x})["layer"], x, weight)


def test_the_document_is_not_changed() -> None:
    document = load(small_net(17))
    before = document.proto.SerializeToString()
    survey = find_layers(document)
    wanted = {s.layer.name: probes_for(s, Estimator.PAPER, Granularity.WEIGHT) for s in survey.sites}
    instrument(survey, wanted, {}, list(wanted))
    assert document.proto.SerializeToString() == before


# --- bodies ----------------------------------------------------------------------------------------

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
TURN = np.array([True]).reshape(())


def test_layers_in_both_branches_of_an_if() -> None:
    model, x, w = model_from(BRANCHES, v=V, w=V[::-1].copy()), numbers(4, 3), V[::-1]
    feeds = [{"x": k * x, "turn": np.array(turn)} for k, turn in enumerate((True, False, True), 1)]
    scores = scores_of(model, *feeds)
    expect_dense(scores["y.then_branch/a"], np.concatenate([x, 3 * x]), V)
    expect_dense(scores["y.else_branch/b"], 4 * x, w)


def test_a_branch_that_is_never_taken_is_left_alone() -> None:
    model = model_from(BRANCHES, v=V, w=V)
    found = measured(model, {"x": numbers(4, 3), "turn": np.array(True)})
    assert list(found.activities) == ["y.then_branch/a"]
    assert "never run on this data" in found.unobserved["y.else_branch/b"]


@pytest.mark.parametrize("estimator", Estimator)
@pytest.mark.parametrize("granularity", Granularity)
def test_convolutions_in_branches(estimator: Estimator, granularity: Granularity) -> None:
    model = model_from(
        """
        agraph (float[N, 2, H, W] x, bool turn) => (float[N, M, H, W] y) {
            y = If (turn) <
                then_branch = graph () => (float[N, M, H, W] a) { a = Conv <pads = [1,1,1,1]> (x, v) },
                else_branch = graph () => (float[N, M, H, W] b) { b = Conv (x, w) }
            >
        }
        """,
        v=numbers(12, 2, 3, 3),
        w=numbers(12, 2, 1, 1),
    )
    said = {"estimator": estimator, "granularity": granularity}
    x = numbers(3, 2, 5, 5)
    feeds = [{"x": x, "turn": np.array(True)}, {"x": 2 * x, "turn": np.array(False)}]
    scores = scores_of(model, *feeds, **said)
    for name, path in (("v", "y.then_branch/a"), ("w", "y.else_branch/b")):
        weight = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)
        pads = {"pads": (1,) * 4} if name == "v" else {}
        seen = seen_by_taps(x, weight.shape[2:], pads, transposed=False)
        signals = convolution_signals(
            seen,
            kernels_by_unit(weight, 1, transposed=False),
            1,
            mean_map=estimator is Estimator.MEAN_MAP,
            weights=granularity is Granularity.WEIGHT,
        )
        assert_scores(scores[path], *shares(signals), np.zeros((12, 0)), rtol=1e-5, atol=0)


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
                body = graph (float[M, 2] state, float[N, 3] step) => (float[M, 2] next, float[N, 2] out) {{
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
                body = graph (int64 i, bool on, float[N, 3] state) => (bool still, float[N, 3] next) {
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
    expect_dense(
        scores["y.body/h.then_branch/a"], np.concatenate([x * spread, x * spread**3]), V
    )
    expect_dense(scores["y.body/h.else_branch/b"], x * spread, V)


def test_a_body_may_hold_its_own_weights() -> None:
    model = model_from(BRANCHES.replace("{ a = ", "<float[3, 2] v = {1, -2, 3, 4, -5, 6}> { a = "), w=V)
    x = numbers(4, 3)
    scores = scores_of(model, {"x": x, "turn": np.array(True)})
    expect_dense(scores["y.then_branch/a"], x, V)


def test_a_layer_in_a_body_that_cannot_pass_statistics_out_is_said() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["pair"]),
        helper.make_node(
            "SequenceMap",
            ["pair"],
            ["mapped"],
            body=helper.make_graph(
                [helper.make_node("MatMul", ["one", "v"], ["out"], name="hidden")],
                "body",
                [helper.make_tensor_value_info("one", 1, ["N", 3])],
                [helper.make_tensor_value_info("out", 1, ["N", 2])],
            ),
        ),
        helper.make_node("ConcatFromSequence", ["mapped"], ["y"], axis=0),
        helper.make_node("MatMul", ["y", "w"], ["z"], name="seen"),
    ]
    x = numbers(4, 3)
    model = model_of(nodes, {"v": V, "w": W}, {"x": x}, [helper.make_tensor_value_info("z", 1, ["N", 3])])
    found = measured(model, {"x": x})
    assert list(found.activities) == ["seen"]
    assert found.unobserved == {"mapped.body/hidden": "it sits in the body of a SequenceMap"}


def test_a_layer_that_the_operator_set_cannot_observe_is_said() -> None:
    feed = {"X": numbers(5, 2, 3), "lengths": np.array([5, 2], np.int32)}
    nodes = [
        helper.make_node(
            "RNN", ["X", "W", "R", "", "lengths"], ["", "last"], name="recurrent", hidden_size=2
        ),
        helper.make_node("MatMul", ["X", "w"], ["y"], name="seen"),
    ]
    constants = {"W": numbers(1, 2, 3), "R": numbers(1, 2, 2), "w": V}
    found = measured(model_of(nodes, constants, feed, ["last", "y"], opset=8), feed)
    assert list(found.activities) == ["seen"]
    assert "operator set 8 cannot" in found.unobserved["recurrent"]
