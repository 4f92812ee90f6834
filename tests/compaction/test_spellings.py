"""A network gets equally small however its products are written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import assert_outputs_agree, build, random, run

from onnx_relief.compaction.compact import compact
from onnx_relief.graph.document import load

SPELLINGS = {
    "data first": ('Einsum <equation = "bti,io->bto"> ({x}, {w})', False),
    "weight first": ('Einsum <equation = "oi,bti->bto"> ({w}, {x})', True),
    "any rank": ('Einsum <equation = "...i,io"> ({x}, {w})', False),
}


def feed(*shape):
    return {"x": random(*shape, seed=9)}


def chain(spelling, weights, bias):
    """Three layers, of which the second one's units are added to those of the first one."""
    how, turned = SPELLINGS.get(spelling, ("MatMul ({x}, {w})", False))
    product = [how.format(x=x, w=w) for x, w in (("x", "w1"), ("r", "w2"), ("u", "w3"))]
    text = f"""(float[N,3,6] x) => (float[N,3,4] y) {{
        a = {product[0]}  b = Add (a, b1)  r = Sigmoid (b)  c = {product[1]}  d = Tanh (c)
        s = Add (d, r)  u = HardSwish (s)  y = {product[2]}
    }}"""
    stored = [np.ascontiguousarray(w.T) if turned else w for w in weights]
    return build(text, b1=bias, **dict(zip(("w1", "w2", "w3"), stored, strict=True)))


def sizes(model):
    return sorted(tuple(sorted(tensor.dims)) for tensor in model.graph.initializer)


@given(data=st.data(), spelling=st.sampled_from(sorted(SPELLINGS)))
@settings(max_examples=15, deadline=None)
def test_what_is_dead_or_unread_goes_of_an_einsum_as_of_a_matmul(data, spelling):
    weights = [random(6, 9), random(9, 9, seed=1), random(9, 4, seed=2)]
    for weight in weights:
        for axis in (0, 1):
            idle = data.draw(st.lists(st.integers(0, weight.shape[axis] - 1), max_size=6))
            weight[(slice(None),) * axis + (idle,)] = 0
    bias = random(9, seed=3) * data.draw(st.sampled_from([0, 1]))
    one, other = (
        compact(load(chain(kind, weights, bias)), feed(4, 3, 6), provider="cpu", round_to=1)
        for kind in ("MatMul", spelling)
    )
    assert (other.removed, sizes(other.document.proto)) == (one.removed, sizes(one.document.proto))
    assert other.kept.keys() == {why.replace("MatMul", "Einsum") for why in one.kept}


@pytest.mark.parametrize("idle", [[], [1, 3]])
def test_constants_go_into_the_units_that_stay_of_several_axes(idle):
    """Units of the first layer are constants; of the second one widths are idle in every head."""
    first, second, third = random(6, 8), random(8, 2, 4, seed=1), random(2, 4, 5, seed=2)
    first[:, [2, 5]] = 0
    second[:, :, idle] = 0
    text = """(float[N,6] x) => (float[N,5] y) {
        a = Gemm (x, w1, b1)  r = Sigmoid (a)  h = Einsum <equation = "bi,ihk->bhk"> (r, w2)
        s = Relu (h)  y = Einsum <equation = "bhk,hko->bo"> (s, w3)
    }"""
    model = build(text, w1=first, b1=random(8, seed=3), w2=second, w3=third)
    small = compact(load(model), feed(4, 6), provider="cpu", round_to=1).document.proto
    left = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
    assert left["w1"] == (6, 6)
    assert left["w2"] == (6, 2, 4 - len(idle))
    assert_outputs_agree(model, small, feed(4, 6), rtol=1e-4, atol=1e-5)


def test_a_unit_that_reads_only_zeros_is_dead_though_what_it_reads_stays():
    """The channels that are zero after the first layer are not where they are added up."""
    first, second = random(6, 8), random(8, 7, seed=1)
    first[:, :3] = 0
    second[3:, [0, 4]] = 0
    text = """(float[N,6] x) => (float[N,8] y) {
        a = Einsum <equation = "bi,io->bo"> (x, w1)  r = Relu (a)
        b = Einsum <equation = "bi,io->bo"> (r, w2)  t = Tanh (b)
        c = Einsum <equation = "bi,io->bo"> (t, w3)  y = Add (c, r)
    }"""
    model = build(text, w1=first, w2=second, w3=random(7, 8, seed=2))
    found = compact(load(model), feed(4, 6), provider="cpu", round_to=1)
    assert found.removed == 2
    assert run(found.document.proto, feed(1, 6))[0].shape == (1, 8)
