"""Quantisation against ONNX Runtime, and what learns through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridged import assert_agree, gradients_are_right, module_of, node_model
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import build, random

from onnx_relief.bridge.ops.quantization import dequantize, quantized_as_floats

TYPES = [np.uint8, np.int8, np.uint16, np.int16]
# Shape of the scale of a (4, 6) tensor, and the attributes.
GRAINS = [
    ((), {}),
    ((1,), {}),
    ((6,), {}),
    ((4,), {"axis": 0}),
    ((4,), {"axis": -2}),
    ((4, 2), {"axis": 1, "block_size": 3}),
    ((2, 6), {"axis": 0, "block_size": 2}),
]


def scales(shape, dtype=np.float32):
    values = abs(random(*(shape or (1,)), dtype=dtype)) * dtype(0.05) + dtype(0.01)
    return values.reshape(shape)


def zero_points(shape, dtype):
    return np.array(np.random.default_rng(0).integers(0, 9, shape), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("shape", "attributes"), GRAINS)
def test_quantize_and_back_as_onnx_runtime(shape, attributes, dtype):
    feed = [random(4, 6), scales(shape), zero_points(shape, dtype)]
    assert_agree(node_model("QuantizeLinear", feed, ["y"], **attributes), feed, atol=0)
    feed[0] = np.random.default_rng(1).integers(0, 100, (4, 6)).astype(dtype)
    assert_agree(node_model("DequantizeLinear", feed, ["y"], **attributes), feed)


@pytest.mark.parametrize("opset", [10, 13, 21])
def test_without_zero_point_the_type_is_uint8(opset):
    feed = [random(4, 6), scales(())]
    assert_agree(node_model("QuantizeLinear", feed, ["y"], opset=opset), feed, atol=0)


def test_output_type_without_zero_point():
    feed = [random(4, 6), scales(())]
    assert_agree(node_model("QuantizeLinear", feed, ["y"], output_dtype=3), feed, atol=0)


def test_large_integers_lose_nothing_before_the_shift():
    feed = [np.array([2**30 + 1], np.int32), np.array(1, np.float32)]
    assert_agree(node_model("DequantizeLinear", feed, ["y"]), feed)


def test_a_pair_passes_gradients_where_nothing_saturates():
    model = build(
        "(float[3] x, float s) => (float[3] z) {"
        "q = QuantizeLinear(x, s, zero) z = DequantizeLinear(q, s, zero) }",
        zero=np.array(0, np.int8),
    )
    x, s = torch.tensor([0.34, -0.22, 99.0]), torch.tensor(0.1)
    z = module_of(model)(x.requires_grad_(), s.requires_grad_())
    torch.testing.assert_close(z, torch.tensor([0.3, -0.2, 12.7]))
    to_x, to_s = torch.autograd.grad(z.sum(), [x, s])
    torch.testing.assert_close(to_x, torch.tensor([1.0, 1.0, 0.0]))
    # The error of rounding, in steps, and the last step where it saturates.
    torch.testing.assert_close(to_s, torch.tensor((3 - 3.4) + (-2 + 2.2) + 127))


@pytest.mark.parametrize(("shape", "attributes"), GRAINS)
def test_gradients_of_scale_and_of_weights_that_stand_for_integers(shape, attributes):
    weights = torch.from_numpy(random(4, 6, dtype=np.float64)).requires_grad_()
    scale = torch.from_numpy(scales(shape, np.float64)).requires_grad_()
    zero = torch.from_numpy(zero_points(shape, np.int8))

    def function(weights, scale):
        return dequantize(weights, scale, zero, **attributes)

    assert torch.autograd.gradcheck(function, [weights, scale])
    feed = [(100 * weights.detach()).to(torch.int8).numpy(), scale.detach().numpy(), zero.numpy()]
    wide = node_model("DequantizeLinear", feed, ["y"], opset=23, **attributes)
    assert gradients_are_right(wide, feed)


def test_rounded_values_have_the_gradient_of_the_quotient():
    x, scale = torch.tensor([0.34]).requires_grad_(), torch.tensor(0.1).requires_grad_()
    gradients = torch.autograd.grad(quantized_as_floats(x, scale), [x, scale])
    torch.testing.assert_close(gradients, (torch.tensor([10.0]), torch.tensor(-34.0)))


def integers(*shape, seed=0, dtype=np.uint8):
    low = np.iinfo(dtype).min
    return np.random.default_rng(seed).integers(low, low + 256, shape).astype(dtype)


@settings(max_examples=25, deadline=None)
@given(
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([{"pads": [0, 1, 2, 0]}, {"auto_pad": "SAME_UPPER"}, {}]),
    group=st.sampled_from([1, 2]),
)
def test_convolutions_of_integers(stride, dilation, padding, group):
    geometry = {"strides": [stride, stride], "group": group, **padding}
    if "auto_pad" not in padding:
        geometry["dilations"] = [dilation, 1]
    x, w = integers(2, 4, 6, 5), integers(6, 4 // group, 3, 2, seed=1, dtype=np.int8)
    zero = np.array(7, np.uint8)
    feed = [x, w, zero]
    assert_agree(node_model("ConvInteger", feed, ["y"], **geometry), feed)
    bias = np.arange(6, dtype=np.int32)
    scale = np.array(0.02, np.float32)
    feed = [x, scale, zero, w, scales((6,)), np.zeros(6, np.int8), scale, zero, bias]
    assert_agree(node_model("QLinearConv", feed, ["y"], **geometry), feed, atol=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("columns", [(), (4,)])
def test_products_of_integers(dtype, columns):
    a, b = integers(2, 3, 5, dtype=dtype), integers(5, 4, seed=1, dtype=np.int8)
    zero, b_zero = np.array(3, dtype), np.full(columns, 2, np.int8)
    feed = [a, b, zero, b_zero]
    assert_agree(node_model("MatMulInteger", feed, ["y"]), feed)
    scale = np.array(0.02, np.float32)
    feed = [a, scale, zero, b, scales(columns), b_zero, np.array(0.3, np.float32), zero]
    assert_agree(node_model("QLinearMatMul", feed, ["y"]), feed, atol=1)


@pytest.mark.parametrize("shift", [-10, 0, 10])
def test_dynamic_quantization(shift):
    feed = [random(3, 4) + np.float32(shift)]
    assert_agree(node_model("DynamicQuantizeLinear", feed, ["y", "scale", "zero"]), feed)
    assert_agree(node_model("DynamicQuantizeLinear", feed, ["y", "scale", "zero"]), [feed[0] * 0])
