"""Dropout: nothing in evaluation; in training the share that the node says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridged import assert_agree, module_of, node_model

DATA = np.ones((100, 100), np.float32)
RATIO = np.array(0.25, np.float32)
# The opset, the inputs and the attributes of nodes that drop a quarter.
NODES = [
    (6, [DATA], {"ratio": 0.25, "is_test": 1}),
    (7, [DATA], {"ratio": 0.25}),
    (10, [DATA], {"ratio": 0.25}),
    (13, [DATA, RATIO], {}),
    (22, [DATA, RATIO, np.array(False)], {"seed": 1}),
]


@pytest.mark.parametrize(("opset", "feed", "attributes"), NODES)
def test_training_drops_the_share_of_the_node(opset, feed, attributes):
    torch.manual_seed(0)
    module = module_of(node_model("Dropout", feed, ["y", "mask"], opset=opset, **attributes))
    y, mask = module.train()(*(torch.from_numpy(array) for array in feed))
    assert 0.7 < mask.float().mean() < 0.8
    torch.testing.assert_close(y, mask.float() / 0.75)
    assert mask.dtype == (torch.float32 if opset < 10 else torch.bool)


@pytest.mark.parametrize(("opset", "feed", "attributes"), NODES)
@pytest.mark.parametrize("outputs", [["y"], ["y", "mask"]])
def test_evaluation_is_that_of_onnx_runtime(opset, feed, attributes, outputs):
    model = node_model("Dropout", feed, outputs, opset=opset, **attributes)
    if opset == 6 or (opset < 12 and len(outputs) > 1):  # ONNX Runtime has no (right) kernel
        y = module_of(model)(torch.from_numpy(DATA))
        torch.testing.assert_close(y[0] if len(outputs) > 1 else y, torch.from_numpy(DATA))
    else:
        assert_agree(model, feed)


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_gradient_goes_where_data_went(ratio):
    x = torch.ones(50, requires_grad=True)
    module = module_of(
        node_model("Dropout", [np.ones(50, np.float32)], ["y"], opset=7, ratio=ratio)
    )
    y = module.train()(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y)
    assert ratio < 1 or not y.any()
