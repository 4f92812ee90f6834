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
from scored import assert_scores, model_of, one_layer, run, scores_of

from onnx_relief.graph.document import load
from onnx_relief.graph.instrument import instrument
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.probes import probes_for
from onnx_relief.settings import Estimator
from onnx_relief.structures import KERNEL, WEIGHT, Structure

RNG = np.random.default_rng(7)


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def expect_dense(scores: Any, x: Any, weight: Any, rtol: float = 1e-5) -> None:
    """Check the scores of y = x @ weight."""
    expected = shares(matmul_signals(x, weight, weight_left=False))
    assert_scores(scores, *expected, np.zeros((weight.shape[-1], 0)), rtol=rtol, atol=1e-8)


# --- operator sets, element types ----------------------------------------------------------------

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


@pytest.mark.parametrize("structure", [KERNEL, WEIGHT], ids=str)
@pytest.mark.parametrize("estimator", Estimator)
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 13, 18, 21])
def test_every_operator_set_gives_the_same_scores(
    opset: int, estimator: Estimator, structure: Structure
) -> None:
    said = {"estimator": estimator, "structure": structure}
    expected = scores_of(small_net(17), {"x": PICTURES}, **said)
    scores = scores_of(small_net(opset), {"x": PICTURES}, **said)
    assert (
        scores.keys() == expected.keys() == {"full", "depthwise", "pointwise", "strided", "dense"}
    )
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
        scores_of(model, {"x": x})["layer"],
        expected,
        np.zeros((len(expected), 0)),
        rtol=1e-5,
        atol=0,
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


# --- batches, inputs, constants ------------------------------------------------------------------


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


def test_a_sparse_weight_before_another_layer(capfd: pytest.CaptureFixture[str]) -> None:
    x, second = numbers(4, 3), numbers(2, 4)
    values = numpy_helper.from_array(np.array([1, 2, -3], np.float32), "values")
    places = numpy_helper.from_array(np.array([0, 3, 5]), "places")
    sparse = helper.make_sparse_tensor(values, places, [3, 2])
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=sparse),
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "v"], ["y"], name="second"),
    ]
    scores = scores_of(model_of(nodes, {"v": second}, {"x": x}, ["y"]), {"x": x})
    weight = np.array([[1, 0], [0, 2], [0, -3]], np.float32)
    expect_dense(scores["first"], x, weight)
    expect_dense(scores["second"], x @ weight, second)
    assert capfd.readouterr() == ("", "")  # graphsurgeon likes to talk about such constants


def test_a_sparse_initializer() -> None:
    x, second = numbers(4, 3), numbers(2, 4)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "v"], ["y"], name="second"),
    ]
    weight = np.array([[1, 0], [0, 2], [0, -3]], np.float32)
    model = model_of(nodes, {"w": weight, "v": second}, {"x": x}, ["y"])
    del model.graph.initializer[0]
    values = numpy_helper.from_array(np.array([1, 2, -3], np.float32), "w")
    places = numpy_helper.from_array(np.array([0, 3, 5]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 2]))
    scores = scores_of(model, {"x": x})
    expect_dense(scores["first"], x, weight)
    expect_dense(scores["second"], x @ weight, second)


# --- what is emitted -----------------------------------------------------------------------------


def instrumented(model: onnx.ModelProto) -> Any:
    survey = find_layers(load(model))
    wanted = {s.layer.name: probes_for(s, Estimator.PAPER, WEIGHT) for s in survey.sites}
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
    assert "Reshape" not in {
        n.op_type for n in instrumented(model).proto.graph.node if "z" in n.output
    }
    expect_dense(scores_of(model, {"x": x})["layer"], x, weight)


def test_the_document_is_not_changed() -> None:
    document = load(small_net(17))
    before = document.proto.SerializeToString()
    survey = find_layers(document)
    wanted = {s.layer.name: probes_for(s, Estimator.PAPER, WEIGHT) for s in survey.sites}
    instrument(survey, wanted, {}, list(wanted))
    assert document.proto.SerializeToString() == before
