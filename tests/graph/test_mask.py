"""Masking writes zeros where the plan says so, nowhere else, and the model computes with them."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper, numpy_helper
from text_models import (
    assert_outputs_agree,
    build,
    differences,
    full_plan,
    function,
    random,
    random_plan,
    run,
)

from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import load
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.plan import LayerPlan, PrunePlan

DENSE = "(float[N,4] x) => (float[N,3] y) { [layer] y = MatMul(x, w) }"


def masked(model, share=0.5, *, plan=None, **choice):
    """Return a model after a random plan, the plan, and the survey it was made for."""
    found = find_layers(load(model))
    plan = plan or random_plan(found, share, **choice)
    return mask(found, plan, follow_units(found)).proto, plan, found


def kept_rows(plan, found, index=0):
    """Return the mask of a layer's weight in full, (units, inputs, taps)."""
    (entry,), (site,) = plan.layers, found.sites
    return np.broadcast_to(entry.keep[index], site.parts[index].layout.rows)


def initializer(model, name="w"):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


@pytest.mark.parametrize("operands", ["x, w", "w, x"])
def test_matmul_computes_what_numpy_computes_with_masked_weights(operands):
    w, x = random(4, 4), random(4, 4, seed=1)
    model = build(f"(float[N,4] x) => (float y) {{ y = MatMul({operands}) }}", w=w)
    after, plan, found = masked(model)
    keep = kept_rows(plan, found)[:, :, 0]
    expected = x @ (w * keep.T) if operands == "x, w" else (w * keep) @ x
    np.testing.assert_allclose(run(after, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("right", [True, False])
def test_gemm_computes_what_numpy_computes_with_masked_weights(flags, right):
    w, x = random(4, 4), random(4, 4, seed=1)
    b = random(*((4,) if right else (4, 1)), seed=2)
    node = f"Gemm <transA = {flags[0]}, transB = {flags[1]}, alpha = 0.5, beta = 2.0>"
    operands = "x, w, b" if right else "w, x, b"
    model = build(f"(float[4,4] x) => (float y) {{ y = {node} ({operands}) }}", w=w, b=b)
    after, plan, found = masked(model)
    keep, bias = kept_rows(plan, found)[:, :, 0], (b.reshape(4, 1) * plan.layers[0].keep_bias)
    units = w if (not flags[0] if not right else flags[1]) else w.T
    data = x.T if flags[0 if right else 1] else x
    product = data @ (units * keep).T if right else (units * keep) @ data
    expected = 0.5 * product + 2 * (bias.T if right else bias)
    np.testing.assert_allclose(run(after, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)


def test_batched_matmul_computes_what_numpy_computes_with_masked_weights():
    w, x = random(2, 3, 4, 5), random(2, 3, 6, 4, seed=1)
    model = build("(float[2,3,N,4] x) => (float y) { y = MatMul(x, w) }", w=w)
    after, plan, found = masked(model)
    keep = kept_rows(plan, found).reshape(2, 3, 5, 4).swapaxes(2, 3)
    np.testing.assert_allclose(run(after, {"x": x})[0], x @ (w * keep), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution_computes_what_numpy_computes_with_masked_kernels(groups):
    w, b, x = random(4, 4 // groups, 3, 2), random(4, seed=1), random(2, 4, 5, 6, seed=2)
    node = f"Conv <group = {groups}> (x, w, b)"
    after, plan, found = masked(
        build(f"(float[N,4,H,W] x) => (float y) {{ y = {node} }}", w=w, b=b)
    )
    kernels = w * kept_rows(plan, found).reshape(w.shape)
    patches = sliding_window_view(x, (3, 2), axis=(2, 3))
    parts = np.split(np.arange(4), groups)
    maps = [np.einsum("nchwkl,jckl->njhw", patches[:, p], kernels[p]) for p in parts]
    bias = (b * plan.layers[0].keep_bias[:, 0]).reshape(4, 1, 1)
    expected = np.concatenate(maps, axis=1) + bias
    np.testing.assert_allclose(run(after, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolution_computes_what_numpy_computes_with_masked_kernels(groups):
    w, x = random(4, 3, 2, 2), random(2, 4, 5, 6, seed=2)
    node = f"ConvTranspose <group = {groups}, strides = [2, 2]> (x, w)"
    after, plan, found = masked(build(f"(float[N,4,H,W] x) => (float y) {{ y = {node} }}", w=w))
    keep = kept_rows(plan, found).reshape(groups, 3, 4 // groups, 2, 2).swapaxes(1, 2)
    kernels = (w.reshape(keep.shape) * keep).reshape(groups, -1, 3, 2, 2)
    # Stride and kernel are 2, so that every input value makes a tile of its own.
    tiles = np.einsum("ngchw,gcjkl->ngjhkwl", x.reshape(2, groups, -1, 5, 6), kernels)
    expected = tiles.reshape(2, groups * 3, 10, 12)
    np.testing.assert_allclose(run(after, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layer_computes_with_masked_weights(op, gates):
    constants = {
        "w": random(2, gates * 3, 2),
        "r": random(2, gates * 3, 3, seed=1),
        "b": random(2, 2 * gates * 3, seed=2),
    }
    node = f'{op} <hidden_size = 3, direction = "bidirectional"> (x, w, r, b)'
    text = f"(float[T,N,2] x) => (float y) {{ y = {node} }}"
    after, plan, found = masked(build(text, **constants))
    keep_bias = plan.layers[0].keep_bias.reshape(2, gates * 3, 2).swapaxes(1, 2)
    by_hand = {
        "w": constants["w"] * kept_rows(plan, found, 0).reshape(2, -1, 2),
        "r": constants["r"] * kept_rows(plan, found, 1).reshape(2, -1, 3),
        "b": constants["b"] * keep_bias.reshape(2, -1),
    }
    x = random(4, 2, 2, seed=3)
    assert_outputs_agree(after, build(text, **by_hand), {"x": x}, rtol=0, atol=0)


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


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_rows_of_the_masked_model_are_the_masked_rows(seed, share):
    nodes = (
        "a = Transpose <perm = [1, 0, 2]> (w) b = Cast <to = 1> (a) c = Conv <group = 2> (x, b, d) "
        "e = Reshape(v, s) f = ConvTranspose(c, e) y = Relu(f)"
    )
    model = build(
        f"(float[N,4,L] x) => (float y) {{ {nodes} }}",
        w=random(2, 6, 3, dtype=np.float16),
        d=random(6),
        v=random(6 * 2 * 2),
        s=np.array([6, 2, 2]),
    )
    after, plan, found = masked(model, share, seed=seed)
    again = find_layers(load(after))
    for entry, old, new in zip(plan, found.sites, again.sites, strict=True):
        before, rows = found.rows(old.parts[0]), again.rows(new.parts[0])
        np.testing.assert_array_equal(rows, before * entry.keep[0])
    biases = found.rows(found.sites[0].bias) * plan.layers[0].keep_bias
    np.testing.assert_array_equal(again.rows(again.sites[0].bias), biases)


def test_shared_weight_keeps_what_any_of_its_layers_keeps():
    nodes = "t = Transpose(w) h = MatMul(x, w) y = MatMul(h, t)"
    model = build(f"(float[N,3] x) => (float[N,3] y) {{ {nodes} }}", w=random(3, 4))
    after, plan, _ = masked(model)
    first, second = (entry.keep[0][:, :, 0] for entry in plan)
    np.testing.assert_array_equal(initializer(after) != 0, first.T | second)


def test_layer_without_a_plan_keeps_what_it_shares():
    nodes = "h = MatMul(x, w) y = MatMul(h, w)"
    model = build(f"(float[N,3] x) => (float[N,3] y) {{ {nodes} }}", w=random(3, 3))
    after, _, _ = masked(model, 0.0, layers=["h"])
    assert differences(model, after) == []


def test_weights_in_bodies_and_functions_are_changed_at_home():
    dense = function(
        "dense", "(x) => (y)", "w = Constant <value = float[2,2] {1,2,3,4}> () y = MatMul(x, w)"
    )
    body = "g () => (float[N,2] p) <float[2,2] v = {1,2,3,4}> { p = MatMul(h, v) }"
    other = "g () => (float[N,2] q) { r = my.dense(h) q = Relu(r) }"
    model = build(
        "(bool c, float[N,2] x) => (float[N,2] y) { h = my.dense(x) "
        f"y = If (c) <then_branch = {body}, else_branch = {other}> }}",
        functions=dense,
    )
    after, _, _ = masked(model, 0.0)
    assert differences(model, after) == [
        "graph.node[1].attribute[0].g.initializer[0].float_data",
        "functions[0].node[0].attribute[0].t.float_data",
    ]
    for way in (True, False):
        assert not run(after, {"c": np.array(way), "x": random(3, 2)})[0].any()


def test_removed_unit_takes_its_normalisation_along():
    nodes = "a = Conv(x, w, b) n = BatchNormalization(a, g, o, m, v) r = Relu(n) y = Conv(r, u)"
    model = build(
        f"(float[N,2,L] x) => (float y) {{ {nodes} }}",
        **{"w": random(3, 2, 2), "b": random(3), "u": random(2, 3, 2)},
        **{"g": random(3) + 9, "o": random(3) + 9, "m": random(3), "v": random(3) ** 2},
    )
    found = find_layers(load(model))
    first, second = full_plan(found).layers
    gone = np.array([False, True, False])
    entry = replace(
        first,
        keep=(first.keep[0] & ~gone[:, None, None],),
        keep_bias=first.keep_bias & ~gone[:, None],
        removed=gone,
        normalisation=("g", "o"),
    )
    after = mask(found, PrunePlan(layers=(entry, second)), follow_units(found)).proto
    changed = [
        name for name in "wbugomv" if (initializer(after, name) != initializer(model, name)).any()
    ]
    assert changed == [*"wbgo"]
    assert all((initializer(after, name)[1] == 0).all() for name in changed)
    middle = onnx.ModelProto()
    middle.CopyFrom(after)
    middle.graph.output[0].name = "r"
    assert not run(middle, {"x": random(1, 2, 5)})[0][:, 1].any()


def wrong_plans():
    entry = LayerPlan(
        layer="layer",
        alpha=0.5,
        keep=(np.ones((3, 4, 1), bool),),
        keep_bias=np.ones((3, 0), bool),
        removed=np.zeros(3, bool),
    )
    return {
        "unknown layer": replace(entry, layer="other"),
        "fewer units": replace(entry, keep=(np.ones((2, 4, 1), bool),)),
        "other taps": replace(entry, keep=(np.ones((3, 4, 2), bool),)),
        "two weights": replace(entry, keep=entry.keep * 2),
        "a bias": replace(entry, keep_bias=np.ones((3, 1), bool)),
        "more flags": replace(entry, removed=np.zeros(4, bool)),
        "removed output": replace(entry, removed=np.ones(3, bool)),
        "unknown normalisation": replace(entry, normalisation=("gamma",)),
    }


@pytest.mark.parametrize("wrong", wrong_plans())
def test_plan_for_another_model_is_refused(wrong):
    plan = PrunePlan(layers=(wrong_plans()[wrong],))
    with pytest.raises(SettingsError, match="use it with the model it was made for"):
        masked(build(DENSE, w=random(4, 3)), plan=plan)


def test_comparison_of_models_can_fail():
    model = build(DENSE, w=random(4, 3))
    after, _, _ = masked(model)
    with pytest.raises(AssertionError):
        assert_outputs_agree(model, after, {"x": random(2, 4)}, rtol=1e-2, atol=1e-2)
    named = onnx.ModelProto.FromString(model.SerializeToString() + b"\xf8\x07\x01")
    assert differences(model, named) == [" (a field that this ONNX does not know)"]
    after.graph.node[0].name = "other"
    assert differences(model, after) == ["graph.node[0].name", "graph.initializer[0].raw_data"]
