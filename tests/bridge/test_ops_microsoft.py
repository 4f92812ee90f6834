"""What ONNX Runtime's optimiser makes of nodes, against ONNX Runtime, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
from bridged import assert_agree, gradients_are_right, node_model, through_torch
from text_models import random

from onnx_relief.bridge.ops.microsoft import DOMAIN
from onnx_relief.errors import UnsupportedError

ROWS = random(2, 3, 8)
VECTORS = [random(8, seed=seed) for seed in (1, 2, 3)]
CONV = [random(1, 3, 5, 5), random(4, 3, 3, 3), random(4)]
PACKED = [random(2, 3, 4), random(4, 12, seed=1), random(12, seed=2)]
SUM = ["y", "", "", "sum"]
CASES = [
    ("FusedMatMul", [ROWS, random(2, 4, 8)], ["y"], {"transB": 1, "alpha": 0.5}),
    ("FusedMatMul", [ROWS, random(2, 3, 4)], ["y"], {"transA": 1}),
    ("FusedMatMul", [random(3, 2, 8), random(2, 8, 4)], ["y"], {"transBatchA": 1}),
    ("FusedMatMul", [random(3, 2, 8), random(2, 3, 4)], ["y"], {"transBatchA": 1, "transA": 1}),
    ("Gelu", [ROWS], ["y"], {}),
    ("BiasGelu", [ROWS, VECTORS[0]], ["y"], {}),
    ("FastGelu", [ROWS, VECTORS[0]], ["y"], {}),
    ("QuickGelu", [ROWS], ["y"], {"alpha": 1.5}),
    (
        "FusedGemm",
        [random(3, 4), random(5, 4), random(5)],
        ["y"],
        {"transB": 1, "activation": "Relu"},
    ),
    ("FusedConv", [*CONV, random(1, 4, 5, 5)], ["y"], {"pads": [1] * 4, "activation": "Relu"}),
    ("SkipLayerNormalization", [ROWS, ROWS * 2, *VECTORS], SUM, {"epsilon": 0.1}),
    ("SkipSimplifiedLayerNormalization", [ROWS, ROWS * 2, *VECTORS[:2]], SUM, {}),
    ("Attention", PACKED, ["y"], {"num_heads": 2}),
    ("Attention", PACKED, ["y", "present"], {"num_heads": 2, "unidirectional": 1, "scale": 0.3}),
    ("Attention", [*PACKED, np.array([3, 2], np.int32)], ["y"], {"num_heads": 2}),
    ("Attention", [*PACKED, np.array([[1, 1, 0], [0, 1, 1]], np.int32)], ["y"], {"num_heads": 2}),
    ("Attention", [*PACKED, None, None, random(1, 2, 3, 3)], ["y"], {"num_heads": 2}),
]


@pytest.mark.parametrize(("name", "feed", "outputs", "attributes"), CASES)
def test_outputs_are_those_of_onnx_runtime(name, feed, outputs, attributes):
    assert_agree(node_model(name, feed, outputs, domain=DOMAIN, opset=1, **attributes), feed)


@pytest.mark.parametrize(("name", "feed", "outputs", "attributes"), CASES)
def test_gradients(name, feed, outputs, attributes):
    wide = [a.astype(np.float64) if a is not None and a.dtype == np.float32 else a for a in feed]
    model = node_model(name, wide, outputs, domain=DOMAIN, opset=1, **attributes)
    assert gradients_are_right(model, wide)


@pytest.mark.parametrize("numbers", [("LeakyRelu", [0.3]), ("Clip", [-0.5, 0.5]), ("Tanh", [])])
def test_activations_of_a_convolution(numbers):
    attributes = {"activation": numbers[0]}
    if numbers[1]:
        attributes["activation_params"] = numbers[1]
    feed = [*CONV, None]
    assert_agree(node_model("FusedConv", feed, ["y"], domain=DOMAIN, opset=1, **attributes), feed)


def test_what_cannot_be_trained_is_refused():
    feed = [*PACKED, None, random(2, 2, 2, 1, 2)]
    model = node_model("Attention", feed, ["y"], domain=DOMAIN, opset=1, num_heads=2)
    with pytest.raises(UnsupportedError, match="cache"):
        through_torch(model, feed)
    model = node_model("FusedConv", CONV, ["y"], domain=DOMAIN, opset=1, activation="Swish")
    with pytest.raises(UnsupportedError, match="'Swish'"):
        through_torch(model, CONV)
