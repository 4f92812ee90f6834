"""What the runtime cannot be asked about shapes: devices, and opsets that it no longer runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridged import module_of, node_model, through_torch
from text_models import build, random

from onnx_relief.bridge.ops import indexing, shaping

NOWHERE = torch.empty(2, 3, device="meta")
LENGTHS = torch.tensor([2, 3])


@pytest.mark.parametrize(
    "made",
    [
        shaping.shape(NOWHERE),
        shaping.size(NOWHERE),
        indexing.eye_like(NOWHERE),
        indexing.gather(NOWHERE, torch.tensor([1])),
        indexing.gather_nd(NOWHERE, torch.tensor([[1, 0]])),
    ],
)
def test_what_is_made_lies_where_the_tensor_does(made):
    assert made.device == NOWHERE.device


def test_shape_of_a_constant_lies_where_the_shape_does():
    made = shaping.constant_of_shape(LENGTHS, value=1.0, dtype=torch.float32)
    assert made.device == LENGTHS.device
    assert made.shape == (2, 3)


@pytest.mark.parametrize("op_type", ["ScatterND", "ScatterElements"])
def test_updates_of_less_precision_are_scattered(op_type):
    module = module_of(
        build(
            f"""(float[3, 4] x, float[4, 4] w, int64[1, 4] i) => (float[3, 4] y) {{
                m = MatMul(x, w) top = Constant<value_ints=[0]>()
                row = Gather<axis=0>(m, top)
                y = {op_type}(x, {"top_1" if op_type == "ScatterND" else "i"}, row)
            }}""",
            top_1=np.array([[1]]),
        )
    )
    x, w = torch.ones(3, 4), torch.eye(4)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x, w, torch.ones(1, 4, dtype=torch.int64))
    assert found.dtype == torch.float32
    assert found.tolist() == x.tolist()


X = random(2, 3, 4)
OLD = {
    "reshape": ("Reshape", [X], {"opset": 1, "shape": [0, -1]}, X.reshape(2, -1)),
    "squeeze": ("Squeeze", [X[None]], {"opset": 1, "axes": [0]}, X),
    "unsqueeze": ("Unsqueeze", [X], {"opset": 11, "axes": [-1, 0]}, X[None, ..., None]),
    "slice": ("Slice", [X], {"opset": 1, "starts": [1], "ends": [9], "axes": [2]}, X[..., 1:]),
    "pad": (
        "Pad",
        [X],
        {"opset": 1, "paddings": [0, 0, 1, 0, 0, 0], "value": 2.0},
        np.pad(X, [(0, 0), (0, 0), (1, 0)], constant_values=2),
    ),
    "concat": ("Concat", [X, X], {"opset": 1}, np.concatenate([X, X], 1)),
    "cast": ("Cast", [X], {"opset": 5, "to": "DOUBLE"}, X.astype(np.float64)),
    "top": ("TopK", [X], {"opset": 1, "k": 1, "axis": 0}, X.max(0, keepdims=True)),
    "add to channels": (
        "Add",
        [X, random(3)],
        {"opset": 6, "axis": 1, "broadcast": 1},
        X + random(3)[:, None],
    ),
    "multiply to the last axes": (
        "Mul",
        [X, random(3, 4)],
        {"opset": 1, "broadcast": 1, "consumed_inputs": [0, 0]},
        X * random(3, 4),
    ),
    "upsample": (
        "Upsample",
        [X[None]],
        {"opset": 1, "height_scale": 2.0, "width_scale": 1.0},
        X[None].repeat(2, axis=2),
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_old_opsets_are_read_as_they_were_meant(name):
    op_type, feed, options, wanted = OLD[name]
    found = through_torch(node_model(op_type, feed, ["y"], **options), feed)[0]
    np.testing.assert_array_equal(found, wanted)
