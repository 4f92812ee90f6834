"""Zeros are written wherever and however a weight is kept, and nothing beside them changes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from text_models import build, differences, initializer, kept_rows, masked, random, run

from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.plan import PrunePlan


def constant_node(**attribute):
    (name, value), *_ = attribute.items()
    return helper.make_node("Constant", [], ["w"], **{name: value})


def kept_in(*, node=None, sparse=None, dense=None, prefix=""):
    """Return a model of one layer whose weight (4, 3) is kept in one of the possible ways."""
    model = build(f"(float[N,4] x) => (float[N,3] y) {{ {prefix} y = MatMul(x, w) }}")
    if node is not None:
        model.graph.node.insert(0, node)
    if sparse is not None:
        model.graph.sparse_initializer.append(sparse)
    if dense is not None:
        model.graph.initializer.append(dense)
    return model


W = random(4, 3)
HOLED = W * (np.arange(12).reshape(4, 3) % 3 > 0)


def sparse_tensor(linear):
    where = np.flatnonzero(HOLED) if linear else np.argwhere(HOLED)
    values = numpy_helper.from_array(HOLED[HOLED != 0], "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(where), HOLED.shape)


def fill_node():
    fill = numpy_helper.from_array(np.array([0.5], np.float32))
    return helper.make_node("ConstantOfShape", ["shape"], ["w"], value=fill)


KEPT = {
    "raw": (kept_in(dense=numpy_helper.from_array(W, "w")), W, "graph.initializer[0].raw_data"),
    "typed": (
        kept_in(dense=helper.make_tensor("w", 1, W.shape, W)),
        W,
        "graph.initializer[0].float_data",
    ),
    "constant": (
        kept_in(node=constant_node(value=numpy_helper.from_array(W))),
        W,
        "graph.node[0].attribute[0].t.raw_data",
    ),
    "sparse, linear": (kept_in(sparse=sparse_tensor(True)), HOLED, "graph.sparse_initializer[0]"),
    "sparse, coordinates": (
        kept_in(sparse=sparse_tensor(False)),
        HOLED,
        "graph.sparse_initializer[0]",
    ),
    "sparse constant": (
        kept_in(node=constant_node(sparse_value=sparse_tensor(False))),
        HOLED,
        "graph.node[0].attribute[0].sparse_tensor",
    ),
    "list of numbers": (
        kept_in(
            prefix="s = Constant <value_ints = [4, 3]> () w = Reshape(v, s)",
            node=helper.make_node("Constant", [], ["v"], value_floats=W.reshape(-1).tolist()),
        ),
        W,
        "graph.node[0].attribute[0].floats",
    ),
    "fill value": (
        kept_in(prefix="shape = Constant <value_ints = [4, 3]> ()", node=None),
        np.full((4, 3), 0.5, np.float32),
        "graph.node[1]",
    ),
}
KEPT["fill value"][0].graph.node.insert(1, fill_node())


@pytest.mark.parametrize("how", KEPT)
def test_zeros_go_where_the_data_is_and_nothing_else_changes(how):
    model, w, field = KEPT[how]
    after, plan, found = masked(model)
    onnx.checker.check_model(after)
    changed = differences(model, after)
    assert changed
    assert all(path.startswith(field) for path in changed)
    x = random(2, 4, seed=1)
    expected = x @ (w * kept_rows(plan, found)[:, :, 0].T)
    np.testing.assert_allclose(run(after, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", KEPT)
def test_masking_twice_is_masking_once_and_leaves_the_input_alone(how):
    model = KEPT[how][0]
    before = model.SerializeToString(deterministic=True)
    once, plan, found = masked(model)
    assert found.document.proto.SerializeToString(deterministic=True) == before
    twice, _, _ = masked(once, plan=plan)
    assert differences(once, twice) == []
    again, _, _ = masked(model, plan=PrunePlan.from_json(plan.to_json()))
    assert differences(once, again) == []


@pytest.mark.parametrize("how", KEPT)
def test_plan_that_keeps_everything_changes_nothing(how):
    model = KEPT[how][0]
    after, _, _ = masked(model, 1.0)
    assert differences(model, after) == []


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("raw", [True, False])
def test_zeros_are_positive_and_other_bits_stay_in_any_float_type(dtype, raw):
    w = np.array([[-0.0, np.nan, 3], [-np.inf, 1e-7, -1]]).astype(dtype)
    stored = numpy_helper.from_array(w, "w")
    if not raw:
        stored = helper.make_tensor("w", stored.data_type, w.shape, w)
    model = build("(float[N,2] x) => (float[N,3] y) { y = MatMul(x, w) }", w=stored)
    after, plan, found = masked(model, seed=3)
    keep = kept_rows(plan, found)[:, :, 0].T
    bits = np.dtype(f"u{w.dtype.itemsize}")
    expected = np.where(keep, w.view(bits), 0)
    np.testing.assert_array_equal(initializer(after).view(bits), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [0, 1])
def test_dropped_int8_weights_become_the_zero_point(dtype, axis):
    q = (np.arange(12).reshape(3, 4) * 7).astype(dtype)
    constants = {
        "q": q,
        "s": random(q.shape[axis], seed=1) ** 2 + 0.1,
        "z": np.arange(q.shape[axis]).astype(dtype) + 5,
    }
    text = (
        "(float[N,4] x) => (float[N,3] y) { "
        f"d = DequantizeLinear <axis = {axis}> (q, s, z) w = Transpose(d) y = MatMul(x, w) }}"
    )
    model = build(text, **constants)
    after, plan, found = masked(model)
    assert differences(model, after) == ["graph.initializer[0].raw_data"]
    keep = kept_rows(plan, found)[:, :, 0]
    points = np.expand_dims(constants["z"], 1 - axis)
    np.testing.assert_array_equal(initializer(after, "q"), np.where(keep, q, points))
    wide = (q.astype(np.float32) - points) * np.expand_dims(constants["s"], 1 - axis) * keep
    x = random(2, 4)
    np.testing.assert_allclose(run(after, {"x": x})[0], x @ wide.T, rtol=1e-4, atol=1e-4)


def test_dropped_weights_in_blocks_become_the_zero_point_of_their_block():
    q = np.arange(16, dtype=np.uint8).reshape(4, 4)
    constants = {
        "q": q,
        "s": random(2, 4) ** 2 + 1,
        "z": np.arange(8, dtype=np.uint8).reshape(2, 4),
    }
    node = "w = DequantizeLinear <axis = 0, block_size = 2> (q, s, z)"
    model = build(f"(float[N,4] x) => (float[N,4] y) {{ {node} y = MatMul(x, w) }}", **constants)
    after, plan, found = masked(model)
    keep = kept_rows(plan, found)[:, :, 0].T
    points = np.repeat(constants["z"], 2, axis=0)
    np.testing.assert_array_equal(initializer(after, "q"), np.where(keep, q, points))
    (site,) = (again := find_layers(load(after))).sites
    np.testing.assert_array_equal(again.rows(site.parts[0])[:, :, 0].T[~keep], 0)
