"""A relay gives what running the whole models would, however far it has gone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import build, random

from onnx_relief.data import open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.repair.relay import Relay, between, frontier
from onnx_relief.runtime import open_at

PLENTY = 1 << 30
# A branch around two layers, a body that reads from outside, a node with two outputs, one of which
# is needed further on, and a shape that is computed from constants.
WINDING = """(float[N,4] x, float[N,2] side) => (float[N,6] y)
{
    a = MatMul (x, w1)
    b = Relu (a)
    left, right = Split <num_outputs = 2, axis = 1> (b)
    c = MatMul (left, w2)
    wide = Concat <axis = 0> (minus, six)
    yes = Equal (three, three)
    d = If (yes) <
        then_branch = t () => (float[N,3] then_out) { then_out = Add (right, left) },
        else_branch = e () => (float[N,3] else_out) { else_out = Sub (right, left) }
    >
    joined = Concat <axis = 1> (c, side, d)
    e = MatMul (joined, w3)
    y = Reshape (e, wide)
}"""
LAYERS = ("a", "c", "e")
TENSORS = ("a", "b", "left", "right", "c", "d", "joined", "e", "y")


def winding():
    return load(
        build(
            WINDING,
            w1=random(4, 6, seed=1),
            w2=random(3, 1, seed=2),
            w3=random(6, 6, seed=3),
            minus=np.array([-1]),
            six=np.array([6]),
            three=np.array(3),
        )
    )


def data(document, count=11):
    arrays = {"x": random(count, 4, seed=4), "side": random(count, 2, seed=5)}
    return open_data(arrays, input_specs(document.proto))


def whole(document, samples, names, batch_size):
    session = open_at(document, names, provider="cpu")
    return [session.run(batch.feed) for batch in samples.batches(batch_size)]


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.allclose(found[name], array, rtol=1e-5, atol=1e-6), name


@settings(deadline=None, max_examples=40)
@given(
    wanted=st.sets(st.sampled_from(TENSORS), min_size=1),
    went=st.lists(st.integers(0, 2), max_size=2),
    budget=st.sampled_from([0, 300, PLENTY]),
    batch_size=st.integers(1, 12),
)
def test_it_gives_what_the_whole_models_give(wanted, went, budget, batch_size):
    document = winding()
    samples = data(document)
    relay = Relay(samples, batch_size=batch_size, budget=budget, provider="cpu")
    far = 0
    for far in sorted(went):
        relay.go_on((document, document), (LAYERS[far:], LAYERS[far:]))
    # What is behind is no longer given.
    names = sorted(name for name in wanted if TENSORS.index(name) >= TENSORS.index(LAYERS[far]))
    names = [name for name in names if name not in ("b", "left", "right", "d")] or ["y"]
    walked = list(relay.walk((document, document), (names, ["y"]), samples.size))
    expected = whole(document, samples, [*names, *({"y"} - {*names})], batch_size)
    assert len(walked) == len(expected)
    for (ours, dense), full in zip(walked, expected, strict=True):
        same(ours, {name: full[name] for name in names})
        same(dense, {"y": full["y"]})


def test_it_does_not_go_back_to_the_samples(monkeypatch):
    document = winding()
    relay = Relay(data(document), batch_size=4, budget=PLENTY, provider="cpu")
    relay.go_on((document, document), (LAYERS[1:], LAYERS[1:]))
    monkeypatch.setattr(Relay, "_batches", lambda _self: pytest.fail("the samples are read again"))
    assert len(list(relay.walk((document, document), (["c"], ["e"]), 100))) == 3
    assert len(list(relay.walk((document, document), (["c"], ["e"]), 5))) == 2


def test_layers_that_change_behind_it_are_run_anew_where_nothing_could_be_kept():
    document = winding()
    samples = data(document)
    relay = Relay(samples, batch_size=4, budget=0, provider="cpu")
    relay.go_on((document, document), (LAYERS[1:], LAYERS[1:]))
    other = load(document.proto)
    weight = next(t for t in other.proto.graph.initializer if t.name == "w1")
    weight.raw_data = (2 * random(4, 6, seed=1)).tobytes()
    ours, dense = next(iter(relay.walk((other, document), (["a"], ["a"]), 100)))
    assert np.allclose(ours["a"], 2 * dense["a"], rtol=1e-5)


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (LAYERS, {"x", "side"}),
        # What `d` is made of is not ahead, so that `d` is known itself.
        (LAYERS[1:], {"left", "d", "side"}),
        (LAYERS[2:], {"joined"}),
        ((), set()),
    ],
)
def test_the_frontier_is_what_is_read_from_beyond(ahead, expected):
    assert set(frontier(winding().proto.graph, ahead)) == expected


def test_what_is_known_needs_no_session():
    known = {"joined": random(2, 6)}
    stretch = between(winding(), known, ["joined"], provider="cpu")
    assert stretch.session is None
    assert stretch.run(known)["joined"] is known["joined"]
