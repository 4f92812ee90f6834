"""Gradients of our operators against differences, with regard to everything that is a float."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridged import assert_agree, gradients_are_right, module_of, node_model
from text_models import build


def reals(*shape, seed=0):
    """Return float64 numbers that are all different, and no differences near a kink."""
    order = np.random.default_rng(seed).permutation(int(np.prod(shape)))
    return (order.reshape(shape) / order.size - 0.513).astype(np.float64)


def ints(*values):
    return np.array(values, np.int64)


X = reals(2, 3, 4)
PICTURE = reals(1, 2, 4, 5)
SCALES = np.array([1, 1, 1.7, 0.6], np.float32)
ROIS = np.array([[0.3, 1.2, 4.1, 3.3], [2.1, 0.2, 4.4, 2.3]])
CASES = {
    **{
        f"resize {mode}": ("Resize", [PICTURE, None, SCALES], {"mode": mode})
        for mode in ("nearest", "linear", "cubic")
    },
    "resize twice as large": (
        "Resize",
        [PICTURE, None, None, ints(1, 2, 8, 10)],
        {"mode": "linear"},
    ),
    "resize antialias": ("Resize", [PICTURE, None, SCALES], {"mode": "cubic", "antialias": 1}),
    "crop": (
        "Resize",
        [PICTURE, np.array([0, 0, 0.2, -0.1, 1, 1, 0.8, 1.1], np.float32), SCALES],
        {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
    ),
    "transposed, same": (
        "ConvTranspose",
        [PICTURE, reals(2, 3, 3, 2, seed=1), reals(3, seed=2)],
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "transposed, unequal pads": (
        "ConvTranspose",
        [PICTURE, reals(2, 3, 3, 2, seed=1), reals(3, seed=2)],
        {"strides": [2, 2], "pads": [0, 1, 2, 0]},
    ),
    "deform": (
        "DeformConv",
        [PICTURE, reals(2, 2, 2, 2, seed=1), reals(1, 8, 3, 4), reals(2), reals(1, 4, 3, 4)],
        {},
    ),
    "sum columns": ("Col2Im", [reals(1, 8, 12), ints(4, 5), ints(2, 2)], {}),
    "causal": (
        "CausalConvWithState",
        [X, reals(3, 1, 2), reals(3), reals(2, 3, 1)],
        {"activation": "silu", "opset": 27, "outputs": 2},
    ),
    "largest": ("MaxPool", [PICTURE], {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1]}),
    "average": (
        "AveragePool",
        [PICTURE],
        {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "dilations": [1, 2], "ceil_mode": 1},
    ),
    "norm": ("LpPool", [PICTURE], {"kernel_shape": [2, 2], "p": 3}),
    "regions": (
        "RoiAlign",
        [PICTURE, ROIS, ints(0, 0)],
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2},
    ),
    "gather": ("Gather", [X, ints(-1, 0, -1)], {"axis": 1}),
    "gather slices": ("GatherND", [X, ints(0, 1).reshape(2, 1)], {"batch_dims": 1}),
    **{
        f"scatter {how}": (
            "ScatterND",
            [X, ints(0, 1).reshape(1, 2), reals(1, 4, seed=3) + 0.007],
            {"reduction": how},
        )
        for how in ("none", "add", "mul", "max", "min")
    },
    "one hot": ("OneHot", [ints(1, -1, 9), np.array(3), reals(2)], {}),
    "first ones": ("Unique", [X], {"outputs": 4}),
    "slice": ("Slice", [X, ints(-1), ints(0), ints(2), ints(-2)], {}),
    "pad": ("Pad", [X, ints(0, 2, 1, 0, 1, 1)], {"mode": "reflect"}),
    "clip": ("Clip", [X, np.array(-0.2), np.array(0.3)], {}),
    "mean": ("Mean", [X, reals(4, seed=1), reals(3, 1, seed=2)], {}),
    "power": ("Pow", [np.abs(X) + 0.1, reals(4)], {}),
    "top": ("TopK", [X, ints(2)], {"outputs": 2}),
    "running product": ("CumProd", [X, np.array(1)], {"exclusive": 1, "opset": 26}),
    **{
        f"reduce {what}": (f"Reduce{what}", [np.abs(X) + 0.1, ints(0, -1)], {"opset": 18})
        for what in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp")
    },
    "loss": (
        "SoftmaxCrossEntropyLoss",
        [reals(4, 3), ints(0, 1, 2, 1)],
        {"outputs": 2},
    ),
    "spectrum": ("DFT", [reals(2, 6, 1), None, np.array(1)], {"onesided": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_differences(name):
    op_type, feed, options = CASES[name]
    options = {"outputs": 1, **options}
    names = [f"out{i}" for i in range(options.pop("outputs"))]
    assert gradients_are_right(node_model(op_type, feed, names, **options), feed)


@pytest.mark.parametrize("op_type", ["LpPool", "GlobalLpPool", "ReduceL2"])
def test_norm_of_zeros_has_a_finite_gradient(op_type):
    options = {"kernel_shape": [2, 2]} if op_type == "LpPool" else {}
    zeros = np.zeros((1, 1, 2, 2))
    module = module_of(node_model(op_type, [zeros], ["y"], opset=18, **options))
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.abs().sum() == 0


def test_gradients_pass_through_bodies():
    body = "(int64 i, bool c, double[2] s) => (bool d, double[2] t, double[4] u)"
    body += " { d = Identity(c) m = Mul(s, w) t = Clip(m) u = Concat<axis=0>(t, w) }"
    model = build(
        f"""(double[2] x, double[2] w) => (double[2] y, double[3, 4] z) {{
            n = Constant<value_int=3>()
            y, z = Loop<body = b {body}>(n, , x)
        }}"""
    )
    feed = [reals(2), reals(2, seed=1)]
    assert gradients_are_right(model, feed)


LOOPS = {
    "Loop": """n = Constant<value_int=3>()
        y = Loop<body = b (int64 i, bool c, double[2] s) => (bool d, double[2] t) {
            d = Identity(c) m = Mul(s, w) t = Tanh(m)
        }>(n, , x)""",
    "Scan": """e = Unsqueeze(x, zero)
        y = Scan<num_scan_inputs = 1, body = b (double[2] s, double[2] r) => (double[2] t) {
            m = Mul(s, r) t = Tanh(m)
        }>(w, e)""",
}


@pytest.mark.parametrize("name", LOOPS)
def test_gradients_pass_through_loops_with_one_output(name):
    model = build(
        f"(double[2] x, double[2] w) => (double[2] z) {{ {LOOPS[name]} z = Mul(y, w) }}",
        zero=np.array([0]),
    )
    feed = [reals(2), reals(2, seed=1)]
    assert_agree(model, feed)
    assert gradients_are_right(model, feed)


def test_gradients_pass_through_graphs_in_attention():
    model = build(
        """(double[1, 4, 3, 2] q, double[1, 2, 3, 2] k, double[1, 2, 3, 2] v, double[3] w)
            => (double[1, 4, 3, 2] y) {
            y = ai.onnx.preview.FlexAttention<score_mod = g
                (double[1, 4, 3, 3] s) => (double[1, 4, 3, 3] t) { t = Mul(s, w) }>(q, k, v)
        }"""
    )
    feed = [reals(1, 4, 3, 2), reals(1, 2, 3, 2), reals(1, 2, 3, 2, seed=1), reals(3, seed=2)]
    assert gradients_are_right(model, feed)
