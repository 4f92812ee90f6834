"""Our operators against ONNX Runtime, on numbers that no rule is made for."""

from __future__ import annotations

import numpy as np
import pytest
from bridged import assert_agree, node_model
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from text_models import random

OPTIONS = settings(max_examples=60, deadline=None)


def ints(*values):
    return np.array(values, np.int64)


def agree(op_type, feed, *, outputs=1, opset=21, **attributes):
    """Check a node against ONNX Runtime."""
    names = [f"out{i}" for i in range(outputs)]
    assert_agree(node_model(op_type, feed, names, opset=opset, **attributes), feed)


X = random(3, 4, 5, seed=1)
PICTURE = random(2, 3, 6, 7, seed=2)
BOXES = np.random.default_rng(3).random((2, 8, 4)).astype(np.float32)
SCORES = np.random.default_rng(4).random((2, 2, 8)).astype(np.float32)
ROIS = np.array([[0, 1, 5, 4], [2, 2, 2.4, 2.2], [1, 0, 9, 9]], np.float32)
WEIGHTS = np.abs(random(3, seed=4))
CASES = {
    "gather from the end": ("Gather", [X, ints(-1, 0)], {"axis": 1}),
    "gather one from the end": ("Gather", [X, np.array(-1)], {"axis": -1}),
    "gather one of a list": ("Gather", [X[0, 0], np.array(-1)], {}),
    "gather elements": ("GatherElements", [X, np.full((3, 1, 5), -2, np.int32)], {"axis": 1}),
    "gather in batches": ("GatherND", [X, ints(0, -1, 2).reshape(3, 1)], {"batch_dims": 1}),
    "slice backwards": ("Slice", [X, ints(-1, 4), ints(-9, 0), ints(1, 2), ints(-2, -1)], {}),
    "slice of nothing": ("Slice", [X, ints(-9), ints(0), ints(2), ints(-1)], {}),
    "split in unequal parts": ("Split", [random(7, 2)], {"num_outputs": 3, "outputs": 3}),
    "split in one": ("Split", [X, ints(3)], {}),
    "unsqueeze from the end": ("Unsqueeze", [X, ints(-1, -2, 0)], {}),
    "squeeze": ("Squeeze", [random(1, 3, 1, 2), ints(0, -2)], {}),
    "reverse all axes": ("Transpose", [X], {}),
    "pad some axes": ("Pad", [X, ints(1, -1, 0, 2), None, ints(-1, 0)], {}),
    "one hot, out of range": (
        "OneHot",
        [ints(-1, 7, 2), np.array(3), random(2)],
        {"axis": 0},
    ),
    "compress": ("Compress", [X, np.array([False, True])], {}),
    "unique": ("Unique", [np.round(X)], {"outputs": 4, "sorted": 0}),
    "unique rows": ("Unique", [np.round(X[:, :2])], {"outputs": 4, "axis": 1}),
    "running sum": ("CumSum", [X, np.array(-1)], {"exclusive": 1, "reverse": 1}),
    "ties in order": ("TopK", [np.round(X), ints(3)], {"outputs": 2, "axis": 1}),
    "smallest": ("TopK", [X, ints(2)], {"outputs": 2, "axis": 0, "largest": 0}),
    "hardmax": ("Hardmax", [X], {"axis": 1}),
    "hardmax of the rest": ("Hardmax", [X], {"axis": 1, "opset": 11}),
    "mean of other shapes": ("Mean", [random(3, 1), random(4), random(1, 4)], {}),
    "integer power": ("Pow", [ints(1, 2, 3), random(1) ** 2], {}),
    "clip above": ("Clip", [X, None, np.array(0.3, np.float32)], {}),
    "clip nothing": ("Clip", [X], {}),
    "clip what is no number": (
        "Clip",
        [np.array([np.nan, np.inf, -np.inf, 0.5], np.float32), *np.float32([[-1], [1]])],
        {},
    ),
    "clip with bounds crossed": ("Clip", [X, *np.float32([[0.5], [-0.5]])], {"opset": 13}),
    "cut quotients": ("Div", [ints(-7, 7), ints(2, -2)], {}),
    "suppress boxes": (
        "NonMaxSuppression",
        [BOXES, SCORES, ints(3), np.array([0.2], np.float32), np.array([0.1], np.float32)],
        {},
    ),
    "suppress none kept": ("NonMaxSuppression", [BOXES, SCORES], {}),
    "align regions": (
        "RoiAlign",
        [PICTURE, ROIS, ints(0, 1, 1)],
        {"output_height": 2, "output_width": 3, "spatial_scale": 0.7},
    ),
    "align regions, old": (
        "RoiAlign",
        [PICTURE, ROIS, ints(0, 1, 1)],
        {"output_height": 2, "sampling_ratio": 2, "opset": 10},
    ),
    "pool regions": (
        "MaxRoiPool",
        [PICTURE, np.concatenate([ints(0, 1, 1)[:, None], ROIS], 1).astype(np.float32)],
        {"pooled_shape": [2, 3], "spatial_scale": 0.7},
    ),
    "deform": (
        "DeformConv",
        [PICTURE, random(2, 3, 2, 2), random(2, 8, 6, 7), random(2), random(2, 4, 6, 7)],
        {"pads": [1, 0, 0, 1]},
    ),
    "sum columns": (
        "Col2Im",
        [random(1, 12, 8), ints(4, 5), ints(2, 3)],
        {"pads": [0, 1, 1, 0], "dilations": [1, 2], "strides": [1, 1]},
    ),
    "loss": (
        "SoftmaxCrossEntropyLoss",
        [random(4, 3), ints(0, 1, 2, 1), WEIGHTS],
        {"outputs": 2, "ignore_index": 1},
    ),
    "spectrum": ("DFT", [random(2, 6, 4, 1), ints(8).reshape(()), np.array(1)], {"onesided": 1}),
    "inverse spectrum of real numbers": ("DFT", [random(2, 6, 1)], {"inverse": 1}),
    "old resize": (
        "Resize",
        [PICTURE, np.array([1, 1, 0.7, 1.6], np.float32)],
        {"opset": 10},
    ),
    "old resize, whole only in float32": (
        "Resize",
        [random(1, 1, 3, 10), np.array([1, 1, 1, 0.7], np.float32)],
        {"opset": 10},
    ),
    "upsample": ("Upsample", [PICTURE], {"scales": [1.0, 1, 2, 1.5], "mode": "linear", "opset": 7}),
}


REDUCTIONS = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"]


@pytest.mark.parametrize("name", CASES)
def test_operator_agrees_with_the_runtime(name):
    op_type, feed, options = CASES[name]
    agree(op_type, feed, **options)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("value", [None, np.array(1.5, np.float32)])
def test_every_border_agrees_with_the_runtime(mode, value):
    agree("Pad", [X, ints(1, 0, 2, 2, 1, 0), value], mode=mode)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scattering_agrees_with_the_runtime(reduction):
    agree("ScatterND", [X, ints(0, 1, -1, -2).reshape(2, 2), random(2, 5)], reduction=reduction)
    index = ints(0, -1, 1, -2).reshape(2, 2, 1)
    agree("ScatterElements", [X, index, random(2, 2, 1)], axis=1, reduction=reduction)


@pytest.mark.parametrize("what", REDUCTIONS)
@pytest.mark.parametrize("axes", [None, ints(), ints(-1, 0)])
@pytest.mark.parametrize("stay", [0, 1])
def test_reductions_agree_with_the_runtime(what, axes, stay):
    x = np.abs(X) + 0.1
    for noop in (0, 1):
        agree(f"Reduce{what}", [x, axes], opset=18, keepdims=stay, noop_with_empty_axes=noop)
    old = {} if axes is None or not len(axes) else {"axes": axes.tolist()}
    agree(f"Reduce{what}", [x], opset=11, keepdims=stay, **old)


@st.composite
def resizes(draw):
    """Return inputs and attributes of Resize."""
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    rank = 2 if mode == "cubic" else draw(st.integers(1, 2))
    coordinates = ["half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"]
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": draw(
            st.sampled_from([*coordinates, "pytorch_half_pixel"])
        ),
    }
    if mode == "nearest":
        rounding = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
        attributes["nearest_mode"] = draw(st.sampled_from(rounding))
        # Where a neighbour is picked, the last digit of this one decides too often.
        assume(attributes["coordinate_transformation_mode"] != "half_pixel_symmetric")
    else:
        attributes["antialias"] = draw(st.integers(0, 1))
    if mode == "cubic":
        attributes["exclude_outside"] = draw(st.integers(0, 1))
        attributes["cubic_coeff_a"] = draw(st.sampled_from([-0.5, -0.75]))
    lengths = draw(st.lists(st.integers(2, 8), min_size=rank, max_size=rank))
    x = random(1, 2, *lengths)
    if draw(st.booleans()):
        factors = st.sampled_from([0.5, 0.6, 0.75, 1, 1.5, 2, 2.5, 3])
        scales = draw(st.lists(factors, min_size=rank, max_size=rank))
        return [x, None, np.array([1, 1, *scales], np.float32)], attributes
    policies = ["stretch", "not_larger", "not_smaller"]
    attributes["keep_aspect_ratio_policy"] = draw(st.sampled_from(policies))
    attributes["axes"] = list(range(2, 2 + rank))
    sizes = draw(st.lists(st.integers(2, 9), min_size=rank, max_size=rank))
    return [x, None, None, ints(*sizes)], attributes


@OPTIONS
@given(resizes())
def test_every_resize_agrees_with_the_runtime(case):
    feed, attributes = case
    agree("Resize", feed, **attributes)


@OPTIONS
@given(st.data())
def test_crop_and_resize_agrees_with_the_runtime(data):
    corners = [data.draw(st.integers(-4, 20)) / 16 for _ in range(4)]
    roi = np.array([0, 0, *corners[:2], 1, 1, *corners[2:]], np.float32)
    sizes = ints(2, 3, *(data.draw(st.sampled_from([1, 2, 5, 9])) for _ in range(2)))
    mode = data.draw(st.sampled_from(["nearest", "linear"]))
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": mode}
    agree("Resize", [PICTURE, roi, None, sizes], extrapolation_value=3.0, **attributes)


def numbers(rank, low, high):
    return st.lists(st.integers(low, high), min_size=rank, max_size=rank)


@st.composite
def transposed(draw):
    """Return inputs and attributes of ConvTranspose."""
    rank, group = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel, strides = draw(numbers(rank, 1, 4)), draw(numbers(rank, 1, 3))
    dilations, lengths = draw(numbers(rank, 1, 2)), draw(numbers(rank, 2, 5))
    attributes = {"strides": strides, "dilations": dilations, "group": group}
    if draw(st.booleans()):
        attributes["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
    whole = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(lengths, strides, kernel, dilations, strict=True)
    ]
    way = draw(st.sampled_from(["plain", "pads", "shape", "same"]))
    if way == "pads":
        most = [max((w - 1) // 2, 0) for w in whole]
        attributes["pads"] = [draw(st.integers(0, min(m, 2))) for m in most * 2]
    if way == "shape":
        attributes["output_shape"] = [draw(st.integers(max(1, w - 3), w)) for w in whole]
    if way == "same" or (way == "shape" and draw(st.booleans())):
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    bias = random(2 * group, seed=2) if draw(st.booleans()) else None
    weight = random(2 * group, 2, *kernel, seed=3)
    return [random(2, 2 * group, *lengths), weight, bias], attributes


@OPTIONS
@given(transposed())
def test_every_transposed_convolution_agrees_with_the_runtime(case):
    feed, attributes = case
    agree("ConvTranspose", feed, **attributes)


@st.composite
def poolings(draw):
    """Return an operator that pools, its input and attributes; every window fits."""
    op_type = draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    rank = draw(st.integers(1, 3))
    kernel = draw(numbers(rank, 2, 4))
    attributes = {"kernel_shape": kernel, "strides": draw(numbers(rank, 1, 3))}
    way = draw(st.sampled_from(["plain", "pads", "same", "valid"]))
    if way == "pads":
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    if way in ("plain", "pads"):
        attributes["dilations"] = draw(numbers(rank, 1, 2))
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    else:
        same = st.sampled_from(["SAME_UPPER", "SAME_LOWER"])
        attributes["auto_pad"] = draw(same) if way == "same" else "VALID"
    if way == "same":  # ONNX Runtime refuses the negative pads of longer strides
        pairs = zip(attributes["strides"], kernel, strict=True)
        attributes["strides"] = [min(stride, size) for stride, size in pairs]
    if op_type == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    if op_type == "LpPool":
        attributes["p"] = draw(st.integers(1, 3))
    if op_type == "MaxPool":
        attributes["storage_order"] = draw(st.integers(0, 1))
        attributes["outputs"] = draw(st.integers(1, 2))
    return op_type, random(2, 3, *draw(numbers(rank, 7, 9))), attributes


@OPTIONS
@given(poolings())
def test_every_pooling_agrees_with_the_runtime(case):
    op_type, x, attributes = case
    agree(op_type, [x], opset=22, **attributes)


def test_unpooling_agrees_with_the_runtime():
    indices = ints(0, 6, 13, 15).reshape(1, 1, 2, 2)
    agree("MaxUnpool", [random(1, 1, 2, 2), indices], kernel_shape=[2, 2], strides=[2, 2])
