"""Layers that share a weight agree on it, and units are not taken from under somebody's feet."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import function, random, random_plan, survey

from onnx_relief.agreement import agree_on_shared_weights, outlooks
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.plan import PrunePlan

SHARED = {
    "direct": "t = Identity(w) h = MatMul(x, w) y = MatMul(h, t)",
    "transposed": "t = Transpose(w) h = MatMul(x, w) y = MatMul(h, t)",
    "three": "a = MatMul(x, w) h = Gemm <transB = 1> (a, w) y = MatMul(w, h)",
    "with bias": "h = Gemm(x, w, b) y = Gemm <transB = 1> (h, w, b)",
    "calls": "h = my.dense(x) y = my.dense(h)",
    "kernels": "c = Unsqueeze(w, last) h = Conv(z, c) g = Conv(h, c) y = MatMul(x, w)",
}
DENSE = function(
    "dense",
    "(x) => (y)",
    "w = Constant <value = float[3,3] {1,2,3,4,5,6,7,8,9}> () y = MatMul(x, w)",
)


def found_in(nodes):
    inputs = "(float[N,3] x, float[N,3,L] z)"
    constants = {"w": random(3, 3), "b": random(3), "last": np.array([2])}
    return survey(f"{inputs} => (float y) {{ {nodes} }}", functions=DENSE, **constants)


def by_layer(plan):
    return {entry.layer: entry for entry in plan}


@pytest.mark.parametrize("how", SHARED)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_agreed_plan_says_what_the_masked_model_holds(how, seed, share):
    found = found_in(SHARED[how])
    plan = by_layer(random_plan(found, share, seed=seed))
    agreed = agree_on_shared_weights(found, plan)
    flows = follow_units(found)
    masked = mask(found, PrunePlan(layers=tuple(agreed.values())), flows)
    as_before = mask(found, PrunePlan(layers=tuple(plan.values())), flows)
    assert masked.proto == as_before.proto
    again = find_layers(masked)
    for site in again.sites:
        entry = agreed[site.layer.name]
        np.testing.assert_array_equal(again.rows(site.parts[0]) != 0, entry.keep[0])
        if site.bias:
            np.testing.assert_array_equal(again.rows(site.bias) != 0, entry.keep_bias)


def test_shared_weight_of_a_layer_without_a_plan_is_kept_whole():
    found = found_in(SHARED["transposed"])
    plan = by_layer(random_plan(found, 0.0, layers=["y"]))
    agreed = agree_on_shared_weights(found, plan)
    assert set(agreed) == {"y"}
    assert agreed["y"].keep[0].all()


def test_plans_that_share_nothing_stay_as_they_are():
    found = survey(
        "(float[N,3] x) => (float y) { h = MatMul(x, w) y = MatMul(h, v) }",
        w=random(3, 3),
        v=random(3, 3),
    )
    plan = by_layer(random_plan(found, 0.5))
    assert agree_on_shared_weights(found, plan) == plan


def activity(reads):
    return SimpleNamespace(signals=(SimpleNamespace(reads=np.asarray(reads, float)),))


CHAIN = (
    "(float[N,2,4] x) => (float y) { [a] h = Conv(x, w, b) "
    "n = BatchNormalization(h, g, o, m, g2) r = Relu(n) f = Flatten(r) [c] y = Gemm(f, k) }"
)


def chain():
    constants = {name: random(3, seed=i) for i, name in enumerate(["b", "g", "o", "m", "g2"])}
    return survey(CHAIN, w=random(3, 2, 1), k=random(12, 5), **constants)


def test_outlook_says_who_reads_the_units_and_what_they_saw():
    found = chain()
    views = outlooks(
        found, follow_units(found), {"c": activity([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2])}
    )
    assert set(views) == {"a"}
    (link,) = views["a"].links
    assert (link.reader, link.block, link.groups, link.fixed) == ("c", 4, 1, False)
    assert np.flatnonzero(link.active).tolist() == [4, 11]
    assert (views["a"].keeps_zero, views["a"].normalisation) == (True, ("g", "o"))


def test_reader_that_was_not_measured_may_have_seen_anything():
    found = chain()
    (link,) = outlooks(found, follow_units(found), {})["a"].links
    assert link.active.all()


def test_layers_that_share_a_weight_or_bias_have_no_outlook():
    nodes = "[a] h = Gemm(x, w, b) [c] i = Gemm(h, v, b) [d] j = MatMul(i, u) [e] y = MatMul(j, u)"
    found = survey(
        f"(float[N,3] x) => (float y) {{ {nodes} }}",
        **{name: random(3, 3) for name in "wvu"},
        b=random(3),
    )
    views = outlooks(found, follow_units(found), {})
    assert set(views) == set()


def test_reader_that_shares_its_weight_is_marked():
    nodes = "[a] h = MatMul(x, w) [d] i = MatMul(h, u) [e] y = MatMul(i, u)"
    found = survey(f"(float[N,3] x) => (float y) {{ {nodes} }}", w=random(3, 3), u=random(3, 3))
    (link,) = outlooks(found, follow_units(found), {})["a"].links
    assert (link.reader, link.fixed) == ("d", True)
