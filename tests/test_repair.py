"""Repair gives every unit the mean and the variance that it had; nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
from classifier import samples
from onnx.numpy_helper import to_array
from text_models import build, differences, function, random, run

from onnx_relief.data import open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.measuring.moments import Channels, moments
from onnx_relief.repair import match_moments

GRAPH = """(float[N,3,6,6] x) => (float[N,5,4,4] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, k1)  n = BatchNormalization (a, s, o, m, v)  r = Relu (n)
    y = Conv (r, k2, b2)
}"""


def network(seed=0, **changed):
    rng = np.random.default_rng(9)
    norm = {name: rng.random(4).astype(np.float32) + 0.5 for name in "somv"}
    kernels = {"k1": random(4, 3, 3, 3, seed=seed + 1), "k2": random(5, 4, 3, 3, seed=seed + 2)}
    return build(GRAPH, **{**norm, **kernels, "b2": random(5, seed=seed), **changed})


def data_for(document, shape=(3, 6, 6)):
    return open_data(samples(shape=shape, labelled=False), input_specs(document.proto))


def repaired(pruned, dense, **options):
    pruned, dense = load(pruned), load(dense)
    return match_moments(
        pruned, dense, options.get("stays", {}), data_for(dense), batch_size=7, provider="cpu"
    ).document


def moments_of(model, names):
    document = load(model)
    where = dict.fromkeys(names, Channels(4, 1))
    return moments(document, where, data_for(document), batch_size=9, provider="cpu")


def test_moments_are_those_of_all_samples_at_once():
    model = network()
    model.graph.output.append(type(model.graph.output[0])(name="a"))
    everything = run(model, samples(shape=(3, 6, 6), labelled=False))[1].astype(np.float64)
    found = moments_of(network(), ["a"])["a"]
    np.testing.assert_allclose(found.mean, everything.mean(axis=(0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.variance, everything.var(axis=(0, 2, 3)), rtol=1e-4)


def test_a_disturbed_network_gets_its_moments_back():
    dense, other = network(), network(k1=random(4, 3, 3, 3, seed=1) * 0.7 + 0.05)
    found = repaired(other, dense).proto
    for name, wanted in moments_of(dense, ["a", "y"]).items():
        now = moments_of(found, [name])[name]
        np.testing.assert_allclose(now.mean, wanted.mean, atol=1e-3)
        np.testing.assert_allclose(now.variance, wanted.variance, rtol=1e-3)


def test_what_is_remembered_between_layers_changes_nothing():
    dense, other = (load(network(k1=random(4, 3, 3, 3, seed=s))) for s in (1, 5))
    much, little = (
        match_moments(
            other, dense, {}, data_for(dense), batch_size=7, provider="cpu", memory=memory
        )
        for memory in (1 << 30, 0)
    )
    for one, same in zip(
        much.document.proto.graph.initializer, little.document.proto.graph.initializer, strict=True
    ):
        np.testing.assert_allclose(to_array(one), to_array(same), rtol=1e-5, atol=1e-6)
    assert differences(much.document.proto, other.proto)


def test_layers_beside_each_other_get_their_moments_back_too():
    graph = """(float[N,3,6,6] x) => (float[N,4,4,4] y) {
        a = Conv (x, k1)  b = Conv (x, k2, b2)  s = Add (a, b)  r = Relu (s)
        y = Conv <pads = [1, 1, 1, 1]> (r, k3)
    }"""
    shapes = {"k1": (4, 3, 3, 3), "k2": (4, 3, 3, 3), "b2": (4,), "k3": (4, 4, 3, 3)}
    dense, other = (
        build(graph, **{n: random(*shape, seed=s + len(n)) for n, shape in shapes.items()})
        for s in (1, 7)
    )
    found = repaired(other, dense).proto
    for name, wanted in moments_of(dense, ["a", "b", "y"]).items():
        now = moments_of(found, [name])[name]
        np.testing.assert_allclose(now.mean, wanted.mean, atol=1e-3)
        np.testing.assert_allclose(now.variance, wanted.variance, rtol=1e-3)


def gathered(model, data, names):
    """Return mean and variance of tensors over all but their last axis, in float64, by name."""
    watched = type(model)()
    watched.CopyFrom(model)
    for name in names:
        watched.graph.output.append(type(model.graph.output[0])(name=name))
    found = zip(names, run(watched, data)[-len(names) :], strict=True)
    rows = {name: v.reshape(-1, v.shape[-1]).astype(np.float64) for name, v in found}
    return {name: (v.mean(axis=0), v.var(axis=0)) for name, v in rows.items()}


@pytest.mark.parametrize("places", [(), (3,), (2, 3)])
def test_products_of_any_rank_get_their_moments_back(places):
    axes = ",".join(["N", *map(str, places)])
    graph = f"""(float[{axes},6] x) => (float[{axes},4] y) {{
        m = MatMul (x, w)  a = Add (m, b)  r = Relu (a)  n = MatMul (r, v)  y = Add (c, n)
    }}"""
    shapes = {"w": (6, 5), "b": (5,), "v": (5, 4), "c": (4,)}
    dense, other = (
        build(graph, **{name: random(*shape, seed=s) for name, shape in shapes.items()})
        for s in (1, 5)
    )
    data = samples(shape=(*places, 6), labelled=False)
    document = load(dense)
    opened = open_data(data, input_specs(dense))
    found = match_moments(load(other), document, {}, opened, batch_size=7, provider="cpu")
    after = found.document.proto
    wanted, now = (gathered(model, data, ["a", "y"]) for model in (dense, after))
    for name, (mean, variance) in wanted.items():
        np.testing.assert_allclose(now[name][0], mean, atol=1e-4)
        np.testing.assert_allclose(now[name][1], variance, rtol=1e-3)


@pytest.mark.parametrize(
    "graph",
    [
        "(float[2,3,6] x) => (float[2,3,4] y) { m = MatMul (x, w)  y = Add (m, b) }",
        "(float[N,6,3] x) => (float[N,4,3] y) { m = MatMul (u, x)  y = Add (m, d) }",
    ],
)
def test_products_whose_units_are_elsewhere_are_left_as_they_are(graph):
    shapes = {"w": (2, 6, 4), "b": (4,), "u": (4, 6), "d": (4, 1)}
    used = {
        name: shape for name, shape in shapes.items() if f"{name})" in graph or f"({name}," in graph
    }
    dense, other = (
        load(build(graph, **{name: random(*shape, seed=s) for name, shape in used.items()}))
        for s in (1, 5)
    )
    shape = (3, 6) if "w" in used else (6, 3)
    found = match_moments(other, dense, {}, data_for(dense, shape), batch_size=2, provider="cpu")
    assert differences(found.document.proto, other.proto) == []
    assert list(found.left.values()) == ["its units are not on the last axis"]
    assert found.notes == (
        "the units of 0 layers have their mean and variance again",
        "1 layer is not repaired: its units are not on the last axis",
    )


def test_a_network_that_needs_no_repair_stays_as_it_is():
    assert differences(repaired(network(), network()).proto, network()) == []


def test_zeros_stay_zero():
    kernels = random(4, 3, 3, 3, seed=1)
    kernels[:, 1] = 0
    found = repaired(network(k1=kernels), network()).proto
    stored = {t.name: t for t in found.graph.initializer}
    array = np.frombuffer(stored["k1"].raw_data, np.float32).reshape(4, 3, 3, 3)
    np.testing.assert_array_equal(array == 0, kernels == 0)


@pytest.mark.parametrize("units", [[0, 2], [1, 2, 3]])
def test_a_layer_that_lost_units_is_compared_with_those_that_stay(units):
    dense = network()
    norm = {
        t.name: np.frombuffer(t.raw_data, np.float32)[units] for t in dense.graph.initializer[:4]
    }
    kernels = {
        "k1": random(4, 3, 3, 3, seed=1)[units] * 2,
        "k2": random(5, 4, 3, 3, seed=2)[:, units],
    }
    layer = next(node.output[0] for node in dense.graph.node if node.input[1] == "k1")
    small = network(**norm, **kernels)
    found = repaired(small, dense, stays={layer: {-3: np.array(units)}})
    wanted = moments_of(dense, ["a"])["a"]
    now = moments_of(found.proto, ["a"])["a"]
    np.testing.assert_allclose(now.mean, wanted.mean[units], atol=1e-3)


def test_dead_units_stay_dead():
    kernels = random(5, 4, 3, 3, seed=2)
    bias = random(5)
    kernels[[1, 3]], bias[[1, 3]] = 0, 0
    found = repaired(network(k2=kernels, b2=bias), network()).proto
    stored = {t.name: np.frombuffer(t.raw_data, np.float32) for t in found.graph.initializer}
    assert not stored["k2"].reshape(5, -1)[[1, 3]].any()
    assert not stored["b2"][[1, 3]].any()


ODD = {
    "shared weight": (
        "[p] h = Gemm (x, w)  [q] y = Gemm (h, w)",
        "other layers share its weight",
    ),
    "bias of another": (
        "[p] h = Gemm (x, w, b)  i = Add (h, b)  y = Relu (i)",
        "it has no bias of its own, and no room for one",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_layers_whose_constants_others_read_are_left_as_they_are(name):
    graph = f"(float[N,4] x) => (float[N,4] y) {{ {ODD[name][0]} }}"
    bias = random(4, seed=2)
    dense, other = (build(graph, w=random(4, 4, seed=s), b=bias) for s in (1, 3))
    pruned, dense = load(other), load(dense)
    found = match_moments(pruned, dense, {}, data_for(dense, (4,)), batch_size=7, provider="cpu")
    assert differences(found.document.proto, other) == []
    assert set(found.left.values()) == {ODD[name][1]}


def test_layers_inside_functions_are_repaired_where_their_constants_are_their_own():
    graph = "(float[N,4] x) => (float[N,4] y) { y = my.layer (x, w, b) }"
    inside = function("layer", "(a, k, c) => (z)", "h = Gemm (a, k, c)  z = Relu (h)")
    dense, other = (
        load(build(graph, functions=inside, w=random(4, 4, seed=s), b=random(4))) for s in (1, 3)
    )
    data = data_for(dense, (4,))
    found = match_moments(other, dense, {}, data, batch_size=7, provider="cpu")
    assert (
        differences(found.document.proto, other.proto) == []
    )  # "h" is no tensor of the main graph
    assert list(found.left.values()) == ["it is inside a body or a function"]
