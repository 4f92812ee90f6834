"""Whole units go when nothing reads them or nothing but zero comes out of them, and no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import assert_outputs_agree, build, random, random_plan

from onnx_relief.agreement import outlooks
from onnx_relief.graph.document import load
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.plan import LayerPlan, PrunePlan
from onnx_relief.selection.units import Link, Outlook, remove_units

SIZES = {"a": (5, 4), "b": (6, 5), "c": (3, 6)}
MLP = build(
    "(float[N,4] x) => (float[N,3] y) { [a] h = Gemm <transB = 1> (x, wa, ba) r = Relu(h) "
    "[b] i = Gemm <transB = 1> (r, wb, bb) s = Relu(i) [c] y = Gemm <transB = 1> (s, wc, bc) }",
    **{f"w{name}": random(*size, seed=1) for name, size in SIZES.items()},
    **{f"b{name}": random(size[0], seed=2) for name, size in SIZES.items()},
)
CONVS = build(
    "(float[N,2,8,8] x) => (float[N,3] y) { [a] h = Conv(x, wa, ba) "
    "n = BatchNormalization(h, g, o, m, v) r = Relu(n) "
    "[d] j = Conv <group = 4> (r, wd, bd) k = LeakyRelu(j) "
    "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (k) "
    "[b] i = Conv(p, wb) t = Tanh(i) f = Flatten(t) [c] y = Gemm(f, wc, bc) }",
    **{"wa": random(4, 2, 3, 3), "ba": random(4), "g": random(4), "o": random(4)},
    **{"m": random(4), "v": random(4) ** 2, "wd": random(8, 1, 1, 1), "bd": random(8)},
    **{"wb": random(5, 8, 2, 2), "wc": random(5 * 4, 3), "bc": random(3)},
)


def layer_plan(name, keep, keep_bias=None, alpha=0.5):
    keep = np.asarray(keep, bool)
    units = len(keep)
    bias = np.zeros((units, 1)) if keep_bias is None else np.asarray(keep_bias).reshape(units, 1)
    return LayerPlan(
        layer=name,
        alpha=alpha,
        keep=(keep.reshape(units, -1, 1),),
        keep_bias=bias.astype(bool),
        removed=np.zeros(units, bool),
    )


def link(reader, inputs, *, block=1, groups=1, active=None, fixed=False):
    active = np.ones(inputs, bool) if active is None else np.asarray(active, bool)
    return Link(reader=reader, block=block, groups=groups, active=active, fixed=fixed)


def removed(model, share, seed, layers=None):
    """Return a survey, a random plan, and the same plan with units removed."""
    found = find_layers(load(model))
    plan = random_plan(found, share, seed=seed, layers=layers)
    flows = follow_units(found)
    gone = remove_units({p.layer: p for p in plan}, outlooks(found, flows, {}))
    return found, plan, PrunePlan(layers=tuple(gone.values()))


@pytest.mark.parametrize("model", [MLP, CONVS], ids=["mlp", "convolutions"])
@given(share=st.floats(0, 0.6), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_removal_changes_no_output(model, share, seed):
    found, plan, after = removed(model, share, seed)
    flows = follow_units(found)
    before_proto, proto = (mask(found, p, flows).proto for p in (plan, after))
    shape = (3, 4) if model is MLP else (2, 2, 8, 8)
    x = random(*shape, seed=seed)
    assert_outputs_agree(before_proto, proto, {"x": x}, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("model", [MLP, CONVS], ids=["mlp", "convolutions"])
@given(share=st.floats(0, 0.9), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_removal_only_removes_and_a_second_time_finds_nothing(model, share, seed):
    found, plan, after = removed(model, share, seed)
    views = outlooks(found, follow_units(found), {})
    again = remove_units({p.layer: p for p in after}, views)
    for old, new in zip(plan, after, strict=True):
        assert not (new.keep[0] & ~old.keep[0]).any()
        assert not (new.keep_bias & ~old.keep_bias).any()
        assert not new.keep[0][new.removed].any()
        assert not new.keep_bias[new.removed].any()
        assert again[new.layer] is new or np.array_equal(again[new.layer].keep[0], new.keep[0])
        assert np.array_equal(again[new.layer].removed, new.removed)
    assert not after.for_layer("c").removed.any()


def by_hand(keeps, biases):
    """Remove from an MLP what nothing reads and what is zero, one by one until nothing changes."""
    keeps, biases = [k.copy() for k in keeps], [b.copy() for b in biases]
    changed = True
    while changed:
        changed = False
        for layer in range(len(keeps) - 1):
            for unit in range(len(keeps[layer])):
                reads, makes = keeps[layer + 1][:, unit], keeps[layer][unit]
                live = makes.any() or biases[layer][unit]
                if not reads.any() and live:
                    makes[:], biases[layer][unit], changed = False, False, True
                if reads.any() and not live:
                    reads[:], changed = False, True
    return keeps, biases


@given(share=st.floats(0, 0.7), seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_fixed_point_is_the_one_found_by_hand(share, seed):
    _, plan, after = removed(MLP, share, seed)
    keeps, biases = by_hand([p.keep[0][:, :, 0] for p in plan], [p.keep_bias[:, 0] for p in plan])
    for keep, bias, entry in zip(keeps, biases, after, strict=True):
        np.testing.assert_array_equal(entry.keep[0][:, :, 0], keep)
        np.testing.assert_array_equal(entry.keep_bias[:, 0], bias)


def test_unread_unit_goes_with_its_bias_and_normalisation():
    plans = {
        "a": layer_plan("a", np.ones((2, 3)), [1, 1]),
        "b": layer_plan("b", [[1, 0], [1, 0]]),
    }
    view = Outlook(links=(link("b", 2),), keeps_zero=False, normalisation=("gamma", "beta"))
    after = remove_units(plans, {"a": view})["a"]
    assert after.removed.tolist() == [False, True]
    assert after.keep_bias[:, 0].tolist() == [True, False]
    assert after.normalisation == ("gamma", "beta")
    assert not plans["a"].removed.any()


def test_unit_stays_while_one_of_two_readers_reads_it():
    plans = {
        "a": layer_plan("a", np.ones((3, 3))),
        "b": layer_plan("b", [[1, 0, 0]]),
        "c": layer_plan("c", [[0, 1, 0]]),
    }
    view = Outlook(links=(link("b", 3), link("c", 3)), keeps_zero=True)
    assert remove_units(plans, {"a": view})["a"].removed.tolist() == [False, False, True]


@pytest.mark.parametrize("alpha", [1.0, None])
def test_reader_that_is_left_alone_reads_everything(alpha):
    plans = {"a": layer_plan("a", np.ones((2, 3)))}
    if alpha:
        plans["b"] = layer_plan("b", np.ones((2, 2)), alpha=alpha)
    view = Outlook(links=(link("b", 2),), keeps_zero=True)
    assert not remove_units(plans, {"a": view})["a"].removed.any()


def test_layer_with_alpha_one_loses_nothing():
    plans = {
        "a": layer_plan("a", np.ones((2, 3)), alpha=1.0),
        "b": layer_plan("b", [[1, 0], [0, 0]]),
        "c": layer_plan("c", np.ones((2, 2)), alpha=1.0),
    }
    views = {
        "a": Outlook(links=(link("b", 2, active=[1, 0]),), keeps_zero=True),
        "b": Outlook(links=(link("c", 2),), keeps_zero=True),
    }
    after = remove_units(plans, views)
    assert (after["a"], after["c"]) == (plans["a"], plans["c"])


@pytest.mark.parametrize(("keeps_zero", "gone"), [(True, [False, True]), (False, [False, False])])
def test_dead_unit_goes_with_the_connections_to_it(keeps_zero, gone):
    plans = {"a": layer_plan("a", np.ones((2, 3)), [1, 1]), "b": layer_plan("b", np.ones((2, 2)))}
    view = Outlook(links=(link("b", 2, active=[1, 0]),), keeps_zero=keeps_zero)
    after = remove_units(plans, {"a": view})
    assert after["a"].removed.tolist() == gone
    assert after["b"].keep[0][0, :, 0].tolist() == [not one for one in gone]


def test_unit_is_dead_only_if_all_its_readers_saw_zero():
    plans = {name: layer_plan(name, np.ones((2, 2))) for name in "abc"}
    links = (link("b", 2, active=[0, 0]), link("c", 2, active=[0, 1]))
    after = remove_units(plans, {"a": Outlook(links=links, keeps_zero=True)})
    assert after["a"].removed.tolist() == [True, False]


def test_bias_alone_keeps_a_unit_alive():
    keep = [[0, 0], [0, 0], [1, 0]]
    plans = {
        "a": layer_plan("a", keep, [1, 0, 0]),
        "b": layer_plan("b", np.ones((2, 3))),
    }
    after = remove_units(plans, {"a": Outlook(links=(link("b", 3),), keeps_zero=True)})
    assert after["a"].removed.tolist() == [False, True, False]
    assert after["b"].keep[0][0, :, 0].tolist() == [True, False, True]


def test_normalisation_moves_a_silent_unit_away_from_zero():
    plans = {"a": layer_plan("a", [[0, 0]]), "b": layer_plan("b", np.ones((2, 1)))}
    view = Outlook(links=(link("b", 1),), keeps_zero=True, normalisation=("gamma", "beta"))
    after = remove_units(plans, {"a": view})
    assert not after["a"].removed.any()
    assert after["b"] is plans["b"]


def test_flattened_unit_is_a_block_of_inputs():
    keep = np.zeros((2, 6), bool)
    keep[0, 3] = True
    plans = {"a": layer_plan("a", np.ones((3, 1))), "b": layer_plan("b", keep)}
    view = Outlook(links=(link("b", 6, block=2),), keeps_zero=True)
    assert remove_units(plans, {"a": view})["a"].removed.tolist() == [True, False, True]


def test_each_group_of_a_reader_reads_its_own_units():
    # Reader units 0 and 1 read inputs 0 and 1; 2 and 3 read inputs 2 and 3.
    keep = [[1, 0], [0, 0], [0, 0], [0, 1]]
    plans = {"a": layer_plan("a", np.ones((4, 1))), "b": layer_plan("b", keep)}
    view = Outlook(links=(link("b", 4, groups=2),), keeps_zero=True)
    assert remove_units(plans, {"a": view})["a"].removed.tolist() == [False, True, True, False]
    dead = Outlook(links=(link("b", 4, groups=2, active=[0, 1, 1, 1]),), keeps_zero=True)
    assert not remove_units(plans, {"a": dead})["b"].keep[0][0].any()


def test_connections_of_a_weight_that_another_layer_uses_too_stay():
    plans = {"a": layer_plan("a", [[0, 0], [1, 1]]), "b": layer_plan("b", np.ones((2, 2)))}
    view = Outlook(links=(link("b", 2, fixed=True),), keeps_zero=True)
    assert remove_units(plans, {"a": view}) == plans


def test_layers_that_nobody_reads_are_left_alone():
    plans = {"a": layer_plan("a", [[0, 0], [1, 1]])}
    assert remove_units(plans, {"a": Outlook(links=(), keeps_zero=True)}) == plans


def test_plan_with_removed_units_gives_a_whole_convolution_away():
    """Nothing is read of the middle: all before it goes, and the last bias is the answer."""
    found = find_layers(load(CONVS))
    full = {p.layer: p for p in random_plan(found, 1.0)}
    full["c"] = replace(full["c"], keep=(np.zeros_like(full["c"].keep[0]),))
    after = remove_units(full, outlooks(found, follow_units(found), {}))
    assert all(after[name].removed.all() for name in "adb")
    proto = mask(found, PrunePlan(layers=tuple(after.values())), follow_units(found)).proto
    text = "(float[N,2,8,8] x) => (float[N,3] y) { y = Identity(b) }"
    zeros = build(text, b=random(1, 3))
    assert_outputs_agree(zeros, proto, {"x": random(1, 2, 8, 8)}, rtol=0, atol=0)
