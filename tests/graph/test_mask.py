"""Masking writes zeros where the plan says so, nowhere else, and the model computes with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from text_models import (
    assert_outputs_agree,
    build,
    differences,
    full_plan,
    function,
    initializer,
    kept_rows,
    masked,
    random,
    run,
)

from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import load
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.plan import LayerPlan, PrunePlan

DENSE = "(float[N,4] x) => (float[N,3] y) { [layer] y = MatMul(x, w) }"


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
