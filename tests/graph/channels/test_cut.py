"""Cutting channels out is masking them: on every structure, for any choice of groups."""

from __future__ import annotations

import numpy as np
import pytest
from blocks import BLOCKS, FUSED, einsums, fused_encoder, packed_heads
from exported import EXPORTED
from harder_structures import HARDER, grouped_queries
from hypothesis import given, settings
from hypothesis import strategies as st
from inner import INNER
from onnx import helper
from structures import STRUCTURES as FIRST
from structures import attention
from text_models import assert_outputs_agree, build, random
from traps import TRAPS

from onnx_relief.compaction.compact import _gap, compact
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.channels import RULES, cut, leave_one, trace_channels
from onnx_relief.graph.channels.dead import Removal
from onnx_relief.graph.channels.ids import STAYS
from onnx_relief.graph.document import check, load
from onnx_relief.graph.layers import find_layers, uniquely_named
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import TensorHome
from onnx_relief.measuring.observe import observe

HEADS = [(attention, 2), (grouped_queries, 2), (packed_heads, 2), (einsums, 9), (fused_encoder, 20)]
LEAST = {
    "gated": 9,
    "embedding": 13,
    "shared_weights": 9,
    "mixer": 15,
    "packed_attention": 12,
    "rotary": 3,
    "joined_gates": 3,
    "ones_of_all_norms": 17,
}


def feed_for(model, rows=2, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [
            axis.dim_value or (rows if at == 0 else 3) for at, axis in enumerate(kind.shape.dim)
        ]
        numbers = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 9, shape)
        found[value.name] = numbers.astype(dtype)
    return found


class Traced:
    """A model, its ids, and what masking and cutting make of it."""

    def __init__(self, model, outer=False, feed=None):
        survey, _ = uniquely_named(find_layers(load(model)))
        self.document, self.feed = survey.document, feed or feed_for(model)
        observed = observe(survey, self.feed)
        self.trace, self.groups = trace_channels(survey.model, observed, RULES, outer=outer)
        members = [self.groups.of(member.ids) for member in self.trace.members]
        self.floats = [
            TensorHome("", tensor.name)
            for tensor in model.graph.initializer
            if tensor.dims and tensor.data_type in (1, 3) and tensor.name != "scales"
        ]
        self.roots = sorted({int(r) for ids in members for r in ids} - {STAYS})

    def gone(self, roots):
        found = np.zeros(self.trace.pool.size, bool)
        found[list(roots)] = True
        return leave_one(self.trace, self.groups, found)

    def cut(self, gone):
        return cut(self.document, self.trace, self.groups, gone)

    def masked(self, gone):
        constants, values = Constants(self.document), {}
        for member in self.trace.members:
            home = self.trace.whole.home(member.constant)
            array = values.setdefault(home, np.array(constants.stored(home)))
            where = [slice(None)] * array.ndim
            where[member.axis] = gone[self.groups.of(member.ids)]
            array[tuple(where)] = 0
        return write_constants(self.document, values)


STRUCTURES = (*FIRST, *HARDER, *INNER, *BLOCKS, *EXPORTED)
ALL = (*STRUCTURES, *FUSED, *TRAPS)
TRACED = {}


def traced(structure):
    if structure not in TRACED:
        TRACED[structure] = Traced(structure())
    return TRACED[structure]


@pytest.mark.parametrize("structure", ALL)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_cutting_is_masking(structure, data):
    model = traced(structure)
    some = st.sets(st.sampled_from(model.roots)) if model.roots else st.just(set())
    gone = model.gone(data.draw(some))
    smaller = model.cut(gone)
    check(smaller)
    feed = feed_for(model.document.proto, rows=3, seed=1)
    assert_outputs_agree(model.masked(gone).proto, smaller.proto, feed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("structure", ALL)
def test_all_but_one_can_go(structure):
    model = traced(structure)
    gone = model.gone(model.roots)
    feed = feed_for(model.document.proto, rows=3, seed=1)
    smaller = model.cut(gone).proto
    assert_outputs_agree(model.masked(gone).proto, smaller, feed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_any_single_group_can_go(structure):
    model = traced(structure)
    for root in model.roots:
        smaller = model.cut(model.gone([root]))
        check(smaller)
    assert len(model.roots) >= LEAST.get(structure.__name__, 4)


def test_zeros_stay_where_they_are_if_all_that_read_them_lose_as_many():
    graph = """(float[N,6] x, float[N,6] z) => (float[N,5] y) {
        a = Gemm (x, w0, zeros)  b = Gemm (z, w0, zeros)  d = Sub (a, b)  y = MatMul (d, w1)
    }"""
    values = {"w0": random(6, 7), "zeros": np.zeros(7, np.float32), "w1": random(7, 5)}
    model = Traced(build(graph, **values))
    smaller = model.cut(model.gone(model.roots[:2])).proto
    sizes = {tensor.name: tensor.dims[-1] for tensor in smaller.graph.initializer}
    assert sizes == {"w0": 5, "zeros": 5, "w1": 5}
    assert list(smaller.graph.node) == list(model.document.proto.graph.node)


@pytest.mark.parametrize(("structure", "heads"), HEADS)
def test_whole_heads_can_go(structure, heads):
    model = Traced(structure(), outer=True)
    assert len(model.roots) == heads
    for root in model.roots:
        gone = model.gone([root])
        feed = feed_for(model.document.proto, rows=3, seed=1)
        smaller = model.cut(gone).proto
        assert_outputs_agree(model.masked(gone).proto, smaller, feed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("structure", ALL)
def test_cutting_nothing_changes_nothing(structure):
    model = traced(structure)
    same = model.cut(model.gone([]))
    assert same.proto.SerializeToString() == model.document.proto.SerializeToString()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_compaction_finds_what_was_masked_and_is_done_then(structure, monkeypatch):
    # Of the smallest models some are longer without a channel: a size of its own has a name.
    monkeypatch.setattr("onnx_relief.compaction.shrinking.bytes_of", lambda _: 0)
    model = traced(structure)
    gone = model.gone(model.roots[::2])
    masked = model.masked(gone)
    found = compact(masked, model.feed, provider="cpu", round_to=1)
    assert found.removed >= len({r for r in model.roots if gone[r]})
    again = compact(found.document, model.feed, provider="cpu", round_to=1)
    assert again.removed == 0
    assert again.document.proto.SerializeToString() == found.document.proto.SerializeToString()


@pytest.mark.parametrize("structure", ALL)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1 << 16))
def test_what_is_proven_dead_is_dead(structure, seed):
    """Any rows and columns of any constant may be zero: `compact` proves its result equal."""
    model, rng = traced(structure), np.random.default_rng(seed)
    constants, values = Constants(model.document), {}
    for home in model.floats:
        array = values.setdefault(home, np.array(constants.stored(home)))
        axis = int(rng.integers(array.ndim))
        gone = np.flatnonzero(rng.random(array.shape[axis]) < 0.4)
        array[(slice(None),) * axis + (gone,)] = 0
    masked = write_constants(model.document, values)
    found = compact(masked, model.feed, provider="cpu", round_to=1)
    again = compact(found.document, model.feed, provider="cpu", round_to=1)
    assert again.document.proto.SerializeToString() == found.document.proto.SerializeToString()


def test_what_is_wrongly_taken_for_dead_is_refused(monkeypatch):
    model = traced(STRUCTURES[0])
    gone = model.gone(model.roots[:1])
    monkeypatch.setattr("onnx_relief.compaction.shrinking.removable", lambda *_: Removal(gone))
    with pytest.raises(UnsupportedError, match="would differ"):
        compact(model.document, model.feed, provider="cpu")


def test_numbers_that_became_nan_are_a_difference():
    one = np.array([1.0, np.nan], np.float32)
    assert _gap(one, one.copy()) == 0
    assert _gap(one, np.array([np.nan, np.nan], np.float32)) == np.inf
    assert _gap(one, np.array([1.0, 2.0], np.float32)) == np.inf
