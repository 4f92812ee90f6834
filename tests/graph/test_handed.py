"""Weights that a loop hands to its body in every step are those that the body could see itself."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from text_models import build, random, run

import onnx_relief
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers

STEP = "g = MatMul (h, {weight})  a = Add (g, x)  n = Tanh (a)  go = Identity (c)"
TYPE = "float[4,4]"
SEEN = f"""(float[N,4] x) => (float[N,4] y) {{
    y = Loop (trips, yes, x) <body = body (int64 i, bool c, float[N,4] h)
        => (bool go, float[N,4] n) {{ {STEP.format(weight="w")} }}>
}}"""
HANDED = """(float[N,4] x) => (float[N,4] y) {{
    {outputs} = Loop (trips, yes, {before}) <body = body (int64 i, bool c, {given})
        => (bool go, {returned}) {{ {step}  {more} }}>
    {after}
}}"""
STATE, OUT = "float[N,4] h", "float[N,4] n"
SAME = {
    "before": "x, w",
    "given": f"{STATE}, {TYPE} v",
    "returned": f"{OUT}, {TYPE} v",
    "outputs": "y, _",
    "more": "",
    "after": "",
}
FORMS = {
    "by name": SAME,
    "before the state": SAME
    | {
        "before": "w, x",
        "given": f"{TYPE} v, {STATE}",
        "returned": f"{TYPE} v, {OUT}",
        "outputs": "_, y",
    },
    "by Identity": SAME
    | {"returned": f"{OUT}, {TYPE} u", "more": "t = Identity (v)  u = Identity (t)"},
}
OTHERS = {
    "changed": SAME | {"returned": f"{OUT}, {TYPE} u", "more": "u = Mul (v, half)"},
    "given out besides": SAME
    | {"returned": f"{OUT}, {TYPE} v, {TYPE} v", "outputs": "y, _, stacked"},
    "given out besides, by Identity": SAME
    | {
        "returned": f"{OUT}, {TYPE} u, {TYPE} v",
        "outputs": "y, _, stacked",
        "more": "u = Identity (v)",
    },
    "read in the end": SAME | {"outputs": "z, last", "after": "y = MatMul (z, last)"},
}
CONSTANTS = {"w": random(4, 4), "trips": np.int64(3), "yes": np.bool_(True)}
X = {"x": random(20, 4)}


def handed(form, **more):
    return build(HANDED.format(step=STEP.format(weight="v"), **form), **CONSTANTS, **more)


def weight_of(model):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "w")


@pytest.mark.parametrize("form", FORMS)
def test_a_handed_weight_is_pruned_like_one_that_is_seen(form):
    models = build(SEEN, **CONSTANTS), handed(FORMS[form])
    np.testing.assert_allclose(*(run(model, X)[0] for model in models), atol=1e-6)
    for chosen in ({"alpha": 0.8}, {"sparsity": 0.5}, {"sparsity": 0.5, "criterion": "wanda"}):
        found = [onnx_relief.prune(model, X, granularity="weight", **chosen) for model in models]
        weights = [weight_of(one.model) for one in found]
        assert 0 < np.count_nonzero(weights[0]) < 16
        np.testing.assert_array_equal(*weights)
        assert found[0].report.dense.layers[0].macs == found[1].report.dense.layers[0].macs == 48
        np.testing.assert_allclose(*(run(one.model, X)[0] for one in found), atol=1e-6)


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_not_the_same_in_every_step_or_read_elsewhere_is_no_weight(form):
    more = {"half": np.float32(0.5)} if form == "changed" else {}
    survey = find_layers(load(handed(OTHERS[form], **more)))
    assert survey.layers == ()


def test_a_handed_weight_is_trained_like_one_that_is_seen():
    models = build(SEEN, **CONSTANTS), handed(FORMS["by Identity"])
    chosen = {"sparsity": 0.5, "criterion": "wanda", "repair": "reconstruct", "repair_epochs": 5}
    found = [onnx_relief.prune(model, X, **chosen) for model in models]
    for one in found:
        assert one.report.repair.after < one.report.repair.before
        assert not any("cannot be trained" in note for note in one.report.repair.notes)
    np.testing.assert_allclose(*(weight_of(one.model) for one in found), rtol=1e-3, atol=1e-4)
