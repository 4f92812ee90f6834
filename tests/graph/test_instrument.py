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
