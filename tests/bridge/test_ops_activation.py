"""Every activation against ONNX Runtime, with finite and right gradients, ours or onnx2fx's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridged import assert_agree, gradients_are_right, module_of, node_model, through_torch
from text_models import random

CASES = [
    ("LeakyRelu", 6, {"alpha": 0.3}),
    ("Elu", 22, {"alpha": 2.5}),
    ("Selu", 6, {}),
    ("Selu", 22, {"alpha": 2.0, "gamma": 3.0}),
    ("Celu", 12, {"alpha": 0.3}),
    ("HardSigmoid", 6, {}),
    ("HardSigmoid", 22, {"alpha": 0.7, "beta": 0.1}),
    ("HardSwish", 14, {}),
    ("Mish", 18, {}),
    ("Softplus", 1, {}),
    ("Softsign", 1, {}),
    ("ThresholdedRelu", 10, {"alpha": 0.5}),
    ("Shrink", 9, {"bias": 0.2, "lambd": 0.5}),
    ("Gelu", 20, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("Swish", 24, {}),
    ("Swish", 24, {"alpha": 2.0}),
    ("Softmax", 1, {}),
    ("Softmax", 13, {}),
    ("LogSoftmax", 11, {"axis": 0}),
    ("LogSoftmax", 13, {"axis": 0}),
]
EDGES = np.array([[0, 0.5, -0.5, 20.5], [88, 200, -200, 3]], np.float32)


@pytest.mark.parametrize(("name", "opset", "attributes"), CASES)
def test_outputs_are_those_of_onnx_runtime(name, opset, attributes):
    for x in (EDGES, random(3, 4, 5)):
        assert_agree(node_model(name, [x], ["y"], opset=opset, **attributes), [x])


@pytest.mark.parametrize(("name", "opset", "attributes"), CASES)
def test_gradients_are_right_and_finite_for_large_numbers(name, opset, attributes):
    x = random(3, 4, dtype=np.float64)
    assert gradients_are_right(node_model(name, [x], ["y"], opset=opset, **attributes), [x])
    edges = torch.from_numpy(EDGES.copy()).requires_grad_()
    y = module_of(node_model(name, [EDGES], ["y"], opset=opset, **attributes))(edges)
    assert torch.autograd.grad(y.sum(), edges)[0].isfinite().all()


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1, 1), (1, 3, 1, 1), (2, 3, 4, 4)])
def test_slopes_are_broadcast_from_the_right(shape):
    feed = [random(2, 3, 4, 4), np.reshape(random(*(shape or (1,)), seed=1), shape)]
    assert_agree(node_model("PRelu", feed, ["y"], opset=16), feed)
    wide = [array.astype(np.float64) for array in feed]
    assert gradients_are_right(node_model("PRelu", wide, ["y"], opset=16), wide)


@pytest.mark.parametrize("opset", [6, 16])
def test_a_slope_for_each_channel(opset):
    x, slope = random(2, 3, 4, 5), random(3, seed=1)
    (y,) = through_torch(node_model("PRelu", [x, slope], ["y"], opset=opset), [x, slope])
    np.testing.assert_allclose(y, np.where(x < 0, x * slope[:, None, None], x), rtol=1e-6)


def test_opset_1_has_shorter_constants():
    (y,) = through_torch(node_model("Selu", [EDGES], ["y"], opset=1), [EDGES])
    assert y[0, 1] == pytest.approx(0.5 * 1.0507, abs=1e-7)


def test_a_gate_is_a_swish():
    feed = [random(3, 4, dtype=np.float64), random(3, 4, seed=1, dtype=np.float64)]
    model = node_model("SwiGLU", feed, ["y"], opset=28, alpha=2.0)
    (y,) = through_torch(model, feed)
    np.testing.assert_allclose(y, feed[0] / (1 + np.exp(-2 * feed[0])) * feed[1])
    assert gradients_are_right(model, feed)
