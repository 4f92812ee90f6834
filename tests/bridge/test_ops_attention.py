"""Attention against ONNX Runtime, and against the specification where that has no kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridged import assert_agree, gradients_are_right, module_of, node_model, through_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from text_models import random

BATCH, HEADS, QUERIES, KEYS, SIZE = 2, 4, 3, 5, 2
MASKS = [(QUERIES, KEYS), (HEADS, QUERIES, KEYS), (BATCH, 1, QUERIES, KEYS)]


def qkv(groups, *, flat, dtype=np.float32):
    """Return queries, keys and values; `flat` has heads and their size in one axis."""
    shapes = (HEADS, QUERIES, SIZE), (groups, KEYS, SIZE), (groups, KEYS, SIZE + 1)
    found = [random(BATCH, *shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]
    if flat:
        found = [a.swapaxes(1, 2).reshape(BATCH, a.shape[2], -1) for a in found]
    return found


@st.composite
def attention_nodes(draw):
    """Return a model and a feed."""
    groups, flat = draw(st.sampled_from([1, 2, 4])), draw(st.booleans())
    feed = [*qkv(groups, flat=flat), None, None, None]
    attributes = {"is_causal": draw(st.integers(0, 1))}
    if flat:
        attributes |= {"q_num_heads": HEADS, "kv_num_heads": groups}
    if draw(st.booleans()):
        attributes |= {"scale": 0.3, "softcap": draw(st.sampled_from([0.0, 0.5]))}
    past = draw(st.sampled_from([0, 2]))
    if past:
        feed[4:6] = random(BATCH, groups, past, SIZE), random(BATCH, groups, past, SIZE + 1, seed=9)
    shape = draw(st.sampled_from([None, *MASKS]))
    if shape:
        shape = (*shape[:-1], KEYS + past)
        mask = random(*shape, seed=8)
        feed[3] = mask > -0.5 if draw(st.booleans()) else mask
    outputs = ["y", "k", "v"] if past else ["y"]
    return node_model("Attention", feed, outputs, opset=23, **attributes), feed


@settings(max_examples=60, deadline=None)
@given(attention_nodes())
def test_outputs_are_those_of_onnx_runtime(case):
    assert_agree(*case)


@pytest.mark.parametrize(
    "attributes",
    [{"left_window_size": 1}, {"right_window_size": 0, "is_causal": 1}, {"right_window_size": 1}],
)
@pytest.mark.parametrize("lengths", [None, [5, 2]])
def test_windows_and_padding_are_those_of_the_specification(attributes, lengths):
    feed = [*qkv(4, flat=False), *[None] * 3]
    feed.append(lengths and np.array(lengths, np.int64))
    model = node_model("Attention", feed, ["y"], opset=25, **attributes)
    present = [array for array in feed if array is not None]
    names = [value.name for value in model.graph.input]
    (wanted,) = ReferenceEvaluator(model).run(None, dict(zip(names, present, strict=True)))
    (found,) = through_torch(model, feed)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attributes", [{}, {"softcap": 0.5}, {"is_causal": 1}])
@pytest.mark.parametrize("shape", [None, MASKS[0]])
def test_gradients_reach_queries_keys_values_and_mask(attributes, shape):
    feed = [*qkv(2, flat=False, dtype=np.float64), None]
    feed[3] = random(*shape, dtype=np.float64) if shape else None
    model = node_model("Attention", feed, ["y"], opset=23, **attributes)
    assert gradients_are_right(model, feed)


@pytest.mark.parametrize("attributes", [{}, {"softcap": 0.5}])
def test_a_query_that_sees_nothing_gives_zeros_and_no_gradient(attributes):
    mask = np.ones((QUERIES, KEYS), bool)
    mask[1] = False
    feed = [*qkv(4, flat=False), mask]
    model = node_model("Attention", feed, ["y"], opset=23, **attributes)
    tensors = [torch.from_numpy(array) for array in feed]
    q = tensors[0].requires_grad_()
    y = module_of(model)(*tensors)
    (gradient,) = torch.autograd.grad(y.square().sum(), q)
    assert not y[:, :, 1].any()
    assert not gradient[:, :, 1].any()
    assert gradient[:, :, 0].isfinite().all()
    assert gradient[:, :, 0].all()


@pytest.mark.parametrize("boolean", [False, True])
def test_mask_of_one_axis_is_of_keys(boolean):
    mask = random(KEYS) > 0 if boolean else random(KEYS)
    feed, row = [*qkv(4, flat=False), mask], [*qkv(4, flat=False), mask[None]]
    (y,) = through_torch(node_model("Attention", feed, ["y"], opset=24), feed)
    (same,) = through_torch(node_model("Attention", row, ["y"], opset=24), row)
    np.testing.assert_allclose(y, same, rtol=1e-5, atol=1e-6)


def rotary(dtype):
    return [
        random(1, 2, 3, 4, dtype=dtype),
        *(random(1, 3, 2, seed=i, dtype=dtype) for i in (1, 2)),
    ]


def test_rotary_embedding():
    wide, single = rotary(np.float64), rotary(np.float32)
    assert gradients_are_right(node_model("RotaryEmbedding", wide, ["y"], opset=23), wide)
    assert_agree(node_model("RotaryEmbedding", single, ["y"], opset=23), single)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize("past", [True, False])
def test_linear_attention(rule, past):
    def array(*shape, seed=0):
        return 0.3 * random(2, *shape, seed=seed, dtype=np.float64)

    feed = [array(3, 8), array(3, 4, seed=1), array(3, 6, seed=2), None, None, None]
    feed[3] = array(2, 2, 3, seed=3) if past else None
    feed[4] = array(3, 4, seed=4) if "gated" in rule else None
    feed[5] = array(3, 1, seed=5) if "delta" in rule else None
    attributes = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule}
    model = node_model("LinearAttention", feed, ["y", "state"], opset=27, **attributes)
    present = [a for a in feed if a is not None]
    names = [value.name for value in model.graph.input]
    wanted = ReferenceEvaluator(model).run(None, dict(zip(names, present, strict=True)))
    for one, other in zip(through_torch(model, feed), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert gradients_are_right(model, feed)
