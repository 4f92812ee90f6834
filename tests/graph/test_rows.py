"""Rows of a layer go back into the file, whatever numbers it stores, and come out as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from text_models import only_layer, random

from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.rows import as_stored, can_be_set, write_rows

FORMS = {
    "as it is": ("", "w", (6, 4)),
    "transposed": ("w = Transpose <perm = [1, 0]> (k)", "k", (4, 6)),
    "per unit": ("w = DequantizeLinear <axis = 1> (k, units, zeros)", "k", (6, 4)),
    "per input": ("w = DequantizeLinear <axis = 0> (k, inputs)", "k", (6, 4)),
    "in blocks": (
        "w = DequantizeLinear <axis = 0, block_size = 3> (k, blocks)",
        "k",
        (6, 4),
    ),
    "transposed before": (
        "t = Transpose <perm = [1, 0]> (k) w = DequantizeLinear <axis = 1> (t, units)",
        "k",
        (4, 6),
    ),
    "transposed after": (
        "d = DequantizeLinear <axis = 0> (k, units, zeros) w = Transpose <perm = [1, 0]> (d)",
        "k",
        (4, 6),
    ),
}
UNITS = np.array([0.5, 0.25, 1.0, 2.0], np.float32)
INPUTS = np.array([0.5, 0.25, 1.0, 2.0, 4.0, 0.125], np.float32)
BLOCKS = np.array([[0.5, 0.25, 1.0, 2.0], [0.25, 4.0, 0.5, 1.0]], np.float32)
# For the rows (units, inputs, 1).
STEPS = {
    "per unit": UNITS[:, None, None],
    "per input": INPUTS[None, :, None],
    "in blocks": np.repeat(BLOCKS, 3, axis=0).T[..., None],
    "transposed before": UNITS[:, None, None],
    "transposed after": UNITS[:, None, None],
}


def layer(form):
    text, name, shape = FORMS[form]
    stored = random(*shape, seed=1)
    if "Dequantize" in text:
        stored = np.random.default_rng(0).integers(-100, 100, shape).astype(np.int8)
    zeros = np.array([0, 3, -7, 20], np.int8)
    graph = f"(float[N,6] x) => (float[N,4] y) {{ {text} [layer] y = MatMul (x, w) }}"
    constants = {name: stored, "units": UNITS, "inputs": INPUTS, "blocks": BLOCKS, "zeros": zeros}
    return only_layer(graph, **constants)


@pytest.mark.parametrize("form", FORMS)
@given(
    st.data(),
    hnp.arrays(np.float64, (4, 6, 1), elements=st.floats(-10, 10, width=32)),
)
def test_what_is_written_is_read_again_to_half_a_step(form, data, change):
    survey, site = layer(form)
    (part,) = site.parts
    assert can_be_set(part)
    step = STEPS.get(form)
    before = survey.rows(part).astype(np.float64)
    scale = data.draw(st.sampled_from([0.1, 1.0]))
    wanted = np.where(change > 0, before + scale * change, 0.0)
    document = write_rows(survey.document, survey, {"layer": wanted}, {})
    after = find_layers(document)
    found = after.rows(after.sites[0].parts[0]).astype(np.float64)
    assert not found[wanted == 0].any()
    if step is None:
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        return
    old = survey.constants.stored(part.view.home)
    new = after.constants.stored(part.view.home)
    assert new.dtype == old.dtype
    assert old.min() <= new.min() <= new.max() <= old.max()
    inside = (as_stored(survey.constants, part, before) == old).all() & (
        (new > old.min()) & (new < old.max())
    ).reshape(old.shape)
    rows = part.layout.to_rows(part.view.as_seen(inside.reshape(-1)))
    gap = np.abs(found - wanted) / np.broadcast_to(step, wanted.shape)
    assert (gap[rows] <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
def test_a_bias_may_become_anything_its_type_holds(shape):
    graph = """(float[N,6] x) => (float[N,4] y) {
        b = DequantizeLinear (q, s)
        [layer] y = Gemm (x, w, b)
    }"""
    stored = {"q": np.zeros(shape, np.int32), "s": np.float32(1e-4), "w": random(6, 4)}
    survey, _ = only_layer(graph, **stored)
    shift = np.array([1.0, -20.0, 300.0, 1e9])
    after = find_layers(write_rows(survey.document, survey, {}, {"layer": shift}))
    found = after.rows(after.sites[0].bias).reshape(-1)
    np.testing.assert_allclose(found[:3], shift[:3], atol=1e-4)
    np.testing.assert_allclose(found[3], (2**31 - 1) * 1e-4, rtol=1e-6)


def test_a_bias_of_few_bits_does_not_wrap_around():
    graph = """(float[N,6] x) => (float[N,4] y) {
        c = Cast <to = 6> (q)  b = DequantizeLinear (c, s)
        [layer] y = Gemm (x, w, b)
    }"""
    stored = {"q": np.array([1, 5, -30, 120], np.int8), "s": np.float32(0.01), "w": random(6, 4)}
    survey, _ = only_layer(graph, **stored)
    after = find_layers(write_rows(survey.document, survey, {}, {"layer": np.ones(4)}))
    found = after.rows(after.sites[0].bias).reshape(-1)
    np.testing.assert_allclose(found, [1.01, 1.05, 0.7, 1.27], atol=0.006)


def test_what_reads_as_it_did_keeps_its_digits():
    graph = """(float[N,6] x) => (float[N,4] y) {
        w = DequantizeLinear <axis = 1> (k, t)  b = DequantizeLinear (q, s)
        [layer] y = Gemm (x, w, b)
    }"""
    stored = {
        "q": np.array([2**30 + 1, 2**30 + 2, 3, 2**31 - 1], np.int32),
        "s": np.float32(1e-9),
        "k": np.random.default_rng(0).integers(-9, 9, (6, 4)).astype(np.int8),
        "t": np.array([0.0, 1.0, 0.5, 0.1], np.float32),
    }
    survey, site = only_layer(graph, **stored)
    rows = survey.rows(site.parts[0]).astype(np.float64)
    same = write_rows(survey.document, survey, {"layer": rows}, {"layer": np.zeros(4)})
    assert same.proto.SerializeToString() == survey.document.proto.SerializeToString()


def test_what_reads_as_it_did_keeps_its_bits():
    survey, site = layer("per unit")
    (part,) = site.parts
    same = write_rows(survey.document, survey, {"layer": survey.rows(part)}, {})
    assert same.proto.SerializeToString() == survey.document.proto.SerializeToString()
