"""Least squares on whole models: what can be recovered is, zeros stay, other layers are left."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import build, differences, random, run

from onnx_relief.data import open_data
from onnx_relief.data.held_out import Split, held_out
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.repair import repair
from onnx_relief.repair.bias import match_moments
from onnx_relief.repair.least_squares import least_squares
from onnx_relief.repair.pairs import pairs_of
from onnx_relief.repair.refit import RIDGES
from onnx_relief.repair.stages import depths, ends

SAMPLES = 40


def refitted(pruned, dense, x, *, judge=None, stays=None, origin=None, batch_size=7):
    pruned, dense = load(pruned), load(dense)
    origin = None if origin is None else load(origin)
    data, tried = (
        None if one is None else open_data({"x": one}, input_specs(dense.proto))
        for one in (x, judge)
    )
    split = held_out(data) if tried is None else Split(data, tried)
    return least_squares(
        pruned, dense, stays or {}, split, batch_size=batch_size, provider="cpu", origin=origin
    )


def constants(model):
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def error(model, dense, x):
    one, other = (run(m, {"x": x})[0].astype(np.float64) for m in (model, dense))
    return np.square(one - other).sum() / np.square(other).sum()


def twice(shape, *, axis=1, seed=5):
    """Return data in which every second channel is twice the one before it."""
    x = random(SAMPLES, *shape, seed=seed)
    second = [slice(None)] * x.ndim
    first = list(second)
    first[axis], second[axis] = slice(0, None, 2), slice(1, None, 2)
    x[tuple(second)] = 2 * x[tuple(first)]
    return x


# Of every two inputs that say the same one is dropped: the other can make up for it exactly.
LAYERS = {
    "conv": ("Conv <strides = [2, 1], pads = [1, 0, 1, 0]> (x, w, b)", (6, 4, 3, 3), 1),
    "dilated": ("Conv <dilations = [2, 1], pads = [0, 1, 1, 0]> (x, w)", (6, 4, 3, 2), 1),
    "padded": ('Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w)', (6, 4, 3, 2), 1),
    "grouped": ("Conv <group = 2, pads = [1, 1, 1, 1]> (x, w, b)", (6, 2, 3, 3), 1),
    "transposed": ("ConvTranspose <group = 2, strides = [2, 2]> (x, w, b)", (4, 3, 3, 3), 0),
    "gemm": ("Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", (4, 6), 0),
    "flipped gemm": ("Gemm <transB = 1> (x, w)", (6, 4), 1),
    "matmul": ("MatMul (x, w)", (4, 6), 0),
    "einsum": ('Einsum <equation = "nd,ed->ne"> (x, w)', (6, 4), 1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_another_input_can_make_up_for_is_recovered(name):
    text, shape, axis = LAYERS[name]
    size = (4, 6, 5) if len(shape) == 4 else (4,)
    ranks = ",".join(map(str, size))
    graph = f"(float[N,{ranks}] x) => (float y) {{ [l] y = {text} }}"
    weight = random(*shape, seed=1)
    masked = weight.copy()
    dropped = [slice(None)] * len(shape)
    dropped[axis] = slice(1, None, 2)
    masked[tuple(dropped)] = 0
    dense, pruned = (build(graph, w=w, b=random(6, seed=2)) for w in (weight, masked))
    x = twice(size)
    found = refitted(pruned, dense, x)
    assert found.layers == ("l",)
    assert error(pruned, dense, x) > 0.05
    assert error(found.document.proto, dense, x) < 1e-6
    np.testing.assert_array_equal(constants(found.document.proto)["w"] == 0, masked == 0)


@given(
    groups=st.sampled_from([1, 2]),
    inputs=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    samples=st.sampled_from([3, 9, 30]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_a_convolution_gets_the_weights_that_numpy_finds(
    groups, inputs, kernel, strides, dilations, pads, samples, seed
):
    text = (
        f"Conv <group = {groups}, strides = {list(strides)}, dilations = {list(dilations)}, "
        f"pads = {pads}> (x, w)"
    )
    graph = f"(float[N,{groups * inputs},5,7] x) => (float y) {{ [l] y = {text} }}"
    weight = random(2 * groups, inputs, *kernel, seed=seed)
    keep = np.random.default_rng(seed).random(weight.shape) < 0.6
    dense, pruned = build(graph, w=weight), build(graph, w=weight * keep)
    # With a border, 63 places: of maps with more than 64, not all are looked at.
    x = random(samples, groups * inputs, 5, 7, seed=seed + 1)
    judge = random(samples, groups * inputs, 5, 7, seed=seed + 2)
    found = constants(refitted(pruned, dense, x, judge=judge).document.proto)["w"]
    # Kernels of a single one show what a convolution reads.
    entries = inputs * kernel[0] * kernel[1]
    ones = np.tile(np.eye(entries, dtype=np.float32), (groups, 1)).reshape(-1, inputs, *kernel)
    read = run(build(graph, w=ones), {"x": x})[0].reshape(samples, groups, entries, -1)
    lacks = (run(dense, {"x": x})[0] - run(pruned, {"x": x})[0]).reshape(samples, groups, 2, -1)
    assert any(
        np.allclose(found, weight * keep + change, rtol=1e-3, atol=2e-4)
        for change in _changes(read, lacks, keep)
    )


def _changes(read, lacks, keep):
    """Yield the change of all weights for every ridge, from numpy.linalg.lstsq in float64."""
    yield np.zeros(keep.shape)
    _, groups, entries, _ = read.shape
    for ridge in RIDGES[:-1]:
        change = np.zeros((groups, 2, entries))
        for group, unit in np.ndindex(groups, 2):
            alive = keep.reshape(groups, 2, -1)[group, unit]
            x = read[:, group].transpose(0, 2, 1).reshape(-1, entries).astype(np.float64)
            r = lacks[:, group, unit].reshape(-1).astype(np.float64)
            x, r = x - x.mean(axis=0), r - r.mean()
            pull = np.diag(np.sqrt(ridge * np.square(x).sum(axis=0))[alive])
            rows = np.concatenate([x[:, alive], pull])
            answers = np.concatenate([r, np.zeros(alive.sum())])
            change[group, unit, alive] = np.linalg.lstsq(rows, answers, rcond=None)[0]
        yield change.reshape(keep.shape)


NETWORK = """(float[N,4,6,6] x) => (float[N,3] y) {
    [first] a = Conv <pads = [1, 1, 1, 1]> (x, k1)  n = BatchNormalization (a, s, o, m, v)
    r = Relu (n)  [second] c = Conv (r, k2, b2)  q = Relu (c)  g = GlobalAveragePool (q)
    f = Flatten (g)  [third] y = Gemm (f, w3)
}"""


def network(**changed):
    rng = np.random.default_rng(9)
    norm = {name: rng.random(6).astype(np.float32) + 0.5 for name in "somv"}
    kernels = {"k1": random(6, 4, 3, 3, seed=1), "k2": random(8, 6, 3, 3, seed=2)}
    rest = {"b2": random(8, seed=3), "w3": random(8, 3, seed=4)}
    return build(NETWORK, **{**norm, **kernels, **rest, **changed})


def masked_network(share=0.5):
    rng = np.random.default_rng(1)
    dense = constants(network())
    return network(
        **{k: dense[k] * (rng.random(dense[k].shape) < share) for k in ("k1", "k2", "w3")}
    )


# Inputs that have something to do with each other, as those of real models have.
X = np.cumsum(random(60, 4, 6, 6, seed=8), axis=2) + random(60, 1, 6, 6, seed=9)


def test_a_masked_network_comes_closer_to_the_dense_one():
    found = refitted(masked_network(), network(), X[:50])
    assert found.layers == ("first", "second", "third")
    assert error(found.document.proto, network(), X[50:]) < 0.3 * error(
        masked_network(), network(), X[50:]
    )


def test_zeros_stay_zeros_and_nothing_is_added_before_a_normalisation():
    pruned = masked_network()
    found = constants(refitted(pruned, network(), X).document.proto)
    before = constants(pruned)
    for name in ("k1", "k2", "w3"):
        np.testing.assert_array_equal(found[name] == 0, before[name] == 0)
    changed = {name for name in before if not np.array_equal(found[name], before[name])}
    assert changed == {"k1", "m", "k2", "b2", "w3"}
    assert set(found) - set(before) == {"y_bias"}


def test_a_network_that_lost_nothing_stays_as_it_is():
    found = refitted(network(), network(), X)
    assert differences(found.document.proto, network()) == []
    assert found.layers == ()


def test_layers_before_the_first_loss_keep_their_bytes():
    kernels = constants(network())["k2"].copy()
    kernels[:, 2] = 0
    pruned = network(k2=kernels)
    found = constants(refitted(pruned, network(), X).document.proto)
    for name in ("k1", "m", "s", "o", "v"):
        assert found[name].tobytes() == constants(pruned)[name].tobytes()
    assert not np.array_equal(found["k2"], kernels)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_size_of_batches_does_not_matter(batch_size):
    one, other = (
        constants(refitted(masked_network(), network(), X, batch_size=size).document.proto)
        for size in (batch_size, 60)
    )
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-2, atol=1e-3)


def test_few_samples_give_the_same_in_any_order():
    one, other = (
        constants(refitted(masked_network(), network(), x).document.proto)
        for x in (X[:7], X[:7][::-1].copy())
    )
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-2, atol=1e-3)


def test_a_network_that_lost_units_follows_those_that_stay():
    dense = constants(network())
    units = [0, 2, 3, 5]
    small = network(
        **{name: dense[name][units] for name in "somv"},
        k1=dense["k1"][units],
        k2=dense["k2"][:, units],
    )
    found = refitted(small, network(), X[:50], stays={"a": {-3: np.array(units)}})
    assert found.left == {"first": "it gives what it gives in the dense model"}
    raw = error(small, network(), X[50:])
    assert error(found.document.proto, network(), X[50:]) < 0.3 * raw


BIASED = """(float[N,4,5,5] x) => (float[N,6,5,5] y) {{
    c = Reshape (b, shape)  [l] h = Conv ({reads})  y = Add (h, c)
}}"""


@pytest.mark.parametrize("repaired", [least_squares, match_moments])
def test_a_bias_in_the_node_and_one_after_it_are_of_one_layer(repaired):
    values = {"b": random(6, seed=2), "shape": np.array([1, 6, 1, 1])}
    weight, masked, inside = random(6, 4, 1, 1, seed=1), random(6, 4, 1, 1, seed=1), random(6)
    masked[:, 1::2] = 0
    dense = load(build(BIASED.format(reads="x, w"), w=weight, **values))
    pruned = load(build(BIASED.format(reads="x, w, inside"), w=masked, inside=inside, **values))
    x = twice((4, 5, 5))
    data = open_data({"x": x}, input_specs(dense.proto))
    given = data if repaired is match_moments else Split(data, data)
    document = repaired(pruned, dense, {}, given, batch_size=7, provider="cpu").document
    outputs = [run(m.proto, {"x": x})[0].mean(axis=(0, 2, 3)) for m in (document, dense)]
    np.testing.assert_allclose(*outputs, atol=1e-4)


@pytest.mark.parametrize(("left", "short"), [(0.5, None), (0.01, "1 unit"), (0.0, "1 unit")])
def test_a_variance_that_cannot_be_restored_is_not_said_to_be(left, short):
    graph = "(float[N,4] x) => (float[N,3] y) { y = Gemm (x, w, b) }"
    weight, fewer = random(4, 3, seed=1), random(4, 3, seed=1)
    fewer[:, 1] *= left
    models = [load(build(graph, w=w, b=random(3))) for w in (fewer, weight)]
    data = open_data({"x": twice((4,))}, input_specs(models[0].proto))
    told = match_moments(*models, {}, data, batch_size=7, provider="cpu").notes
    but = f"; {short} that changed too much only in part" if short else ""
    assert told == (f"the units of 1 layer have their mean and variance again{but}",)


WHOLE, HALF, LOST = [[1], [1]], [[1], [0]], [[0, 1]]


@pytest.mark.parametrize(
    ("pruned", "fitted", "judged", "reason"),
    [
        (WHOLE, abs(random(50, 2)), abs(random(9, 2)), "it gives what it gives in the dense model"),
        (HALF, LOST * 50, LOST * 9, "no change of its weights brings"),
        (HALF, [[-1, 1]] * 50, LOST * 9, "NaN or infinity"),
    ],
)
def test_a_layer_that_stays_as_it_is_is_told_with_the_reason(pruned, fitted, judged, reason):
    graph = "(float[N,2] x) => (float[N,1] y) { r = Sqrt (x)  [layer] y = MatMul (r, w) }"
    models = [load(build(graph, w=np.array(w, "f"))) for w in (pruned, WHOLE)]
    inputs = input_specs(models[0].proto)
    split = Split(*(open_data({"x": np.array(x, "f")}, inputs) for x in (fitted, judged)))
    found = least_squares(*models, {}, split, batch_size=7, provider="cpu")
    assert found.layers == ()
    assert found.notes[1].startswith(f"1 layer is not refitted: {reason}")


def test_a_reason_is_said_of_each_layer_where_there_are_several():
    assert refitted(network(), network(), X).notes == (
        "least squares refitted 0 layers",
        "3 layers are not refitted, each because it gives what it gives in the dense model",
    )


@pytest.mark.parametrize("cut", [False, True])
def test_weights_that_made_up_for_others_go_back_where_held_out_samples_want_them_to(cut):
    """The third input is zero in all samples that are fitted to, so nothing else tells of it."""
    graph = """(float[N,6] x) => (float[N,3] y) {
        [first] h = Gemm (x, w)  [last] y = Gemm (h, v)
    }"""
    x, judge, v = random(40, 6, seed=1), random(20, 6, seed=2), random(6, 3, seed=3)
    x[:, 2] = 0
    eye, stays = np.eye(6, dtype=np.float32), np.arange(6) != 5
    wrong = v.copy()
    wrong[2] += 5
    dense = build(graph, w=eye, v=v)
    if cut:
        pruned, origin = (build(graph, w=eye[:, stays], v=one[stays]) for one in (wrong, v))
    else:
        pruned, origin = build(graph, w=eye, v=wrong * stays[:, None]), None
    left = {"h": {-1: np.flatnonzero(stays)}} if cut else {}
    found = refitted(pruned, dense, x, judge=judge, stays=left, origin=origin)
    assert "last" in found.layers
    np.testing.assert_allclose(constants(found.document.proto)["v"][2], v[2], atol=1e-4)
    if cut:  # nobody knows what its weights were
        plain = refitted(pruned, dense, x, judge=judge, stays=left)
        assert (constants(plain.document.proto)["v"][2] > v[2] + 4).all()


def test_units_that_nobody_tells_of_are_left_alone():
    dense = constants(network())
    small = network(
        **{name: dense[name][1:] for name in "somv"}, k1=dense["k1"][1:], k2=dense["k2"][:, 1:]
    )
    found = refitted(small, network(), X)
    assert found.left == {"first": "it is not known which of its units were cut"}
    assert found.notes[1] == "1 layer is not refitted: it is not known which of its units were cut"


def test_dead_units_stay_dead():
    dense = constants(network())
    kernels, bias = dense["k2"].copy(), dense["b2"].copy()
    kernels[[1, 4]], bias[[1, 4]] = 0, 0
    pruned = network(k2=kernels, b2=bias)
    found = constants(refitted(pruned, network(), X).document.proto)
    assert not found["k2"][[1, 4]].any()
    assert not found["b2"][[1, 4]].any()


SHARED = "(float[N,4] x) => (float[N,4] y) { [a] h = Gemm (x, w)  [b] y = Gemm (h, w) }"
TURNED = """(float[N,4] x) => (float[N,4] y, float[N,4] z) {
    [a] y = Gemm (x, w)  [b] z = Gemm <transB = 1> (x, w)
}"""
SCALED = """(float[N,4] x) => (float[N,4] y, float[N,4] z) {
    [a] y = Gemm (x, w)  [b] z = Gemm <alpha = 2.0> (x, w)
}"""
TWINS = """(float[N,6] x, float[N,6] u) => (float[N,5] y, float[N,5] z) {
    [a] y = Gemm (x, w, b)  [b] z = Gemm (u, w, b)
}"""
ALONE = "(float[N,6] x) => (float[N,5] y) { [a] y = Gemm (x, w, b) }"
LEVELS = """(float[N,3,8,8] x) => (float[N,5,8,8] y, float[N,5,4,4] z) {
    [small] d = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, k0)  r = Relu (d)
    [one] a = Conv <pads = [1, 1, 1, 1]> (x, k1, b1)  s = Relu (a)
    [two] b = Conv <pads = [1, 1, 1, 1]> (r, k1, b1)  t = Relu (b)
    [high] y = Conv (s, k2)
    [low] z = Conv (t, k2)
}"""
QUANTISED = """(float[N,4,6,5] x) => (float y) {
    w = DequantizeLinear <axis = 0> (q, scale, zero)
    c = DequantizeLinear (b, tiny)
    [a] y = Conv (x, w, c)
}"""
BARE = """(float[N,4] x) => (float[N,4] y) {
    u = QuantizeLinear (x, scale)  r = DequantizeLinear (u, scale)
    w = DequantizeLinear (q, scale)  [a] y = Gemm (x, w)
}"""
INSIDE = """(float[N,4] x) => (float[N,4] y) {
    [if] y = If (c) <
        then_branch = t () => (float[N,4] p) { [a] p = MatMul (x, w) },
        else_branch = e () => (float[N,4] q) { q = Identity (x) }
    >
}"""


@pytest.mark.parametrize(
    ("graph", "weights", "reason"),
    [
        (SHARED, {"w": random(4, 4)}, "layers share its weight that read it otherwise, one"),
        (TURNED, {"w": random(4, 4)}, "layers share its weight that read it otherwise, one"),
        (SCALED, {"w": random(4, 4)}, "layers share its weight that read it otherwise, one"),
        (INSIDE, {"w": random(4, 4), "c": np.array(True)}, "its inputs are inside a body"),
    ],
)
def test_layers_that_cannot_be_refitted_are_left_with_a_reason(graph, weights, reason):
    dense = build(graph, **weights)
    pruned = build(graph, **{**weights, **{k: v // 2 * 2 for k, v in weights.items() if v.ndim}})
    found = refitted(pruned, dense, random(20, 4))
    assert found.layers == ()
    assert found.left
    assert all(text.startswith(reason) for text in found.left.values())
    assert differences(found.document.proto, pruned) == []


def quantised(**changed):
    """Return a convolution whose kernels and biases are stored as integers."""
    draw = np.random.default_rng(0)
    stored = {
        "q": draw.integers(-40, 40, (6, 4, 3, 3)).astype(np.int8),
        "scale": (0.01 + draw.random(6) / 50).astype(np.float32),
        "zero": np.array([3, 0, -5, 7, 0, 1], np.int8),
        "b": draw.integers(-90000, 90000, 6).astype(np.int32),
        "tiny": np.float32(1e-5),
    }
    return build(QUANTISED, **{**stored, **changed})


def test_weights_and_biases_stored_as_integers_are_refitted_and_rounded():
    dense = quantised()
    before = constants(dense)
    zero = before["zero"][:, None, None]
    masked = before["q"].copy()
    masked[:, 1::2] = zero[:, None]
    pruned = quantised(q=masked)
    x = twice((4, 6, 5)) + 1
    found = refitted(pruned, dense, x)
    assert found.layers == ("a",)
    after = constants(found.document.proto)
    assert after["q"].dtype == np.int8
    assert after["b"].dtype == np.int32
    assert np.array_equal(after["q"][:, 1::2], masked[:, 1::2])
    assert masked.min() <= after["q"].min() < after["q"].max() <= masked.max()
    assert not np.array_equal(after["b"], before["b"])
    assert error(pruned, dense, x) > 0.1
    assert error(found.document.proto, dense, x) < 0.3 * error(pruned, dense, x)


@pytest.mark.parametrize("integers", [False, True])
def test_a_layer_of_integers_is_given_no_bias_of_floats(integers):
    graph = BARE.replace("Gemm (x", "Gemm (r") if integers else BARE
    stored = {"q": np.arange(-8, 8, dtype=np.int8).reshape(4, 4), "scale": np.float32(0.1)}
    dense = build(graph, **stored)
    masked = stored["q"].copy()
    masked[1] = 0
    pruned = build(graph, **{**stored, "q": masked})
    found = refitted(pruned, dense, random(20, 4) + 1).document.proto
    (node,) = [node for node in found.graph.node if node.op_type == "Gemm"]
    assert len(node.input) == (2 if integers else 3)


def test_inputs_that_are_always_zero_and_few_samples_do_no_harm():
    x = X[:9].copy()
    x[:, 1] = 0
    found = constants(refitted(masked_network(0.7), network(), x).document.proto)
    assert all(np.isfinite(values).all() for values in found.values())


def test_layers_of_a_function_are_refitted_where_it_is_called():
    from text_models import function

    graph = "(float[N,4] x) => (float[N,6] y) { y = my.layer (x, w, b) }"
    called = function("layer", "(a, k, c) => (z)", "h = MatMul (a, k)  z = Add (h, c)")
    weight, masked = random(4, 6, seed=1), random(4, 6, seed=1)
    masked[1::2] = 0
    dense, pruned = (build(graph, functions=called, w=w, b=random(6)) for w in (weight, masked))
    x = twice((4,))
    found = refitted(pruned, dense, x)
    assert len(found.layers) == 1
    assert error(found.document.proto, dense, x) < 1e-6


JOINED = """(float[N,4,6,6] x) => (float[N,4,6,6] y) {
    [way] s = Conv (x, k1)  [branch] a = Conv <pads = [1, 1, 1, 1]> (s, k2)
    n = BatchNormalization (a, g, o, m, v)  y = Add (n, s)
}"""


def test_the_end_of_a_block_makes_up_for_what_the_way_around_it_lost():
    rng = np.random.default_rng(3)
    norm = {name: rng.random(4).astype(np.float32) + 0.5 for name in "gomv"}
    kernels = {"k1": random(4, 4, 1, 1, seed=1), "k2": random(4, 4, 3, 3, seed=2)}
    # One channel of four is lost on the way around, and says the same as another one.
    lossy = kernels["k1"].copy()
    kernels["k1"][3] = lossy[3] = lossy[2]
    lossy[3] = 0
    dense, pruned = (
        build(JOINED, **norm, **kernels),
        build(JOINED, **norm, **{**kernels, "k1": lossy}),
    )
    found = refitted(pruned, dense, X)
    assert "branch" in found.layers
    assert error(pruned, dense, X) > 0.1
    assert error(found.document.proto, dense, X) < 1e-5


SATURATED = """(float[N,4] x) => (float[N,1] y, float[N,1] z) {
    [first] h = MatMul (x, w1)  [head] l = Gemm (h, w2, b2)  y = Sigmoid (l)
    r = Relu (h)  [later] q = MatMul (r, w3)  s = Relu (q)  [plain] z = MatMul (s, w4)
}"""


def saturated(*, whole):
    """Return a model whose `head` mostly gives numbers that Sigmoid makes zero of.

    Where a is 1 and not 0, the head gives -40 + 10 c + 2 d. Pruned, it has lost c, and `first` one
    of two inputs that say the same.
    """
    w1 = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    w2 = np.array([[-40], [10], [2]], np.float32)
    w3, w4 = abs(random(3, 4, seed=5)), random(4, 1, seed=6)
    if not whole:
        w1[3], w2[1], w3[0], w4[1] = 0, 0, 0, 0
    return build(SATURATED, w1=w1, w2=w2, b2=np.zeros(1, np.float32), w3=w3, w4=w4)


def saturating(count=400):
    rng = np.random.default_rng(3)
    a, d = rng.random(count) < 0.9, rng.standard_normal(count)
    return np.stack([a, a * d, d / 2, d / 2], axis=1).astype(np.float32)


def test_what_makes_up_for_numbers_that_a_sigmoid_makes_nothing_of_is_left_out():
    dense, pruned = (load(saturated(whole=whole)) for whole in (True, False))
    split = held_out(open_data({"x": saturating()}, input_specs(dense.proto)))
    found = repair("least-squares", pruned, dense, {}, split, batch_size=16, provider="cpu")
    assert not found.undone
    assert found.notes == (
        "least squares refitted 3 layers",
        "1 layer is not refitted: without it the model's outputs are nearer to those of the dense "
        "model",
    )
    assert found.after < 0.5 * found.before
    was, new = constants(pruned.proto), constants(found.document.proto)
    assert was["w2"].tobytes() == new["w2"].tobytes()
    assert was["b2"].tobytes() == new["b2"].tobytes()
    for name in ("w1", "w3", "w4"):
        assert not np.array_equal(was[name], new[name])


def test_the_last_layers_are_those_that_no_other_reads_and_that_are_no_outputs():
    assert ends(find_layers(load(saturated(whole=True)))) == {"head"}
    assert ends(find_layers(load(network()))) == set()
    inside = build(INSIDE, w=random(4, 4), c=np.array(True))
    assert ends(find_layers(load(inside))) == set()


def test_layers_that_share_a_weight_are_refitted_as_one_that_reads_what_all_of_them_read():
    rng = np.random.default_rng(3)
    x, u = rng.normal(size=(2, 60, 6)).astype(np.float32)
    weights = {"w": random(6, 5), "b": np.zeros(5, np.float32)}
    u *= np.linalg.norm(x @ weights["w"]) / np.linalg.norm(u @ weights["w"])  # both count the same
    fewer = {**weights, "w": weights["w"] * (rng.random((6, 5)) < 0.6)}

    def change(graph, feed):
        pruned, dense = (load(build(graph, **each)) for each in (fewer, weights))
        data = open_data(feed, input_specs(dense.proto))
        return least_squares(pruned, dense, {}, Split(data, data), batch_size=16, provider="cpu")

    both = change(TWINS, {"x": x, "u": u})
    one = change(ALONE, {"x": np.concatenate([x, u])})
    assert both.layers == ("a", "b")
    for name in weights:
        ours, theirs = (constants(each.document.proto)[name] for each in (both, one))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        assert not np.allclose(ours, fewer[name])


@pytest.mark.parametrize("batch_size", [16, 60])
def test_of_layers_that_share_a_weight_the_loud_one_has_no_more_say(batch_size):
    """Errors count relative to what each gives, as numpy finds them in float64."""
    rng = np.random.default_rng(4)
    x, u = rng.normal(size=(2, 60, 6))
    x[:, ::2] += x[:, 1::2]
    u[:, ::2] -= u[:, 1::2]
    u *= 5
    weight, bias = random(6, 5), random(5, seed=1)
    keep = rng.random((6, 5)) < 0.6
    pruned, dense = (load(build(TWINS, w=w, b=bias)) for w in (weight * keep, weight))
    feed = {"x": x.astype(np.float32), "u": u.astype(np.float32)}
    data = open_data(feed, input_specs(dense.proto))
    split = Split(data, data)
    found = least_squares(pruned, dense, {}, split, batch_size=batch_size, provider="cpu")
    both, own = constants(found.document.proto), np.linalg.norm
    sizes = [np.full(60, own(one @ weight + bias)) for one in (x, u)]
    rows, size = np.concatenate([x, u]), np.concatenate(sizes)[:, None]
    target = (rows @ weight + bias) / size
    for unit in range(5):
        read = np.concatenate([rows[:, keep[:, unit]], np.ones((120, 1))], axis=1) / size
        *expected, moved = np.linalg.lstsq(read, target[:, unit], rcond=None)[0]
        np.testing.assert_allclose(both["w"][keep[:, unit], unit], expected, rtol=0.02, atol=0.01)
        assert both["b"][unit] == pytest.approx(moved, rel=0.02, abs=0.05)


def test_levels_of_other_depths_are_refitted_together():
    weights = {
        "k0": random(3, 3, 3, 3),
        "k1": random(4, 3, 3, 3, seed=1),
        "b1": random(4, seed=2),
        "k2": random(5, 4, 1, 1, seed=3),
    }
    dense = build(LEVELS, **weights)
    keep = np.random.default_rng(0).random((4, 3, 3, 3)) < 0.5
    pruned = build(LEVELS, **{**weights, "k1": weights["k1"] * keep})
    x, other = (random(60, 3, 1, 1, seed=s) + 0.2 * random(60, 3, 8, 8, seed=s) for s in (4, 5))
    found, others = refitted(pruned, dense, x), {"x": other}
    assert set(found.layers) == {"one", "two", "high", "low"}
    assert not constants(found.document.proto)["k1"][~keep].any()
    for place in range(2):
        apart = [
            np.square(run(each, others)[place] - run(dense, others)[place]).mean()
            for each in (found.document.proto, pruned)
        ]
        assert apart[0] < 0.5 * apart[1]


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_heads_one_after_another_are_each_at_one_depth(heads):
    lines = ["d0 = MatMul (x, a0)", "[s1] d1 = MatMul (x, a1)", "[s2] d2 = MatMul (d1, a2)"]
    for level in range(3):
        for head in range(heads):
            lines.append(f"d{level}{'h' * (head + 1)} = MatMul (d{level}{'h' * head}, w{head})")
    given = [f"d{level}{'h' * heads}" for level in range(3)]
    outputs = ", ".join(f"float[N,4] {name}" for name in given)
    weights = {name: random(4, 4) for name in ("a0", "a1", "a2")}
    weights |= {f"w{head}": random(4, 4, seed=head) for head in range(heads)}
    graph = f"(float[N,4] x) => ({outputs}) {{ {' '.join(lines)} }}"
    survey = find_layers(load(build(graph, **weights)))
    pairs, _ = pairs_of(survey, survey, {}, memory=1 << 20)
    depth, apart = depths(survey, pairs)
    assert not apart
    assert sum(len(pair.others) == 2 for pair in pairs) == heads
    for head in range(heads):
        assert {depth[f"d{level}{'h' * (head + 1)}"] for level in range(3)} == {3 + head}


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_groups_that_wait_for_each_other_are_as_deep_as_the_last_makes_them(groups):
    """Of group i one layer reads the data and one what the first layer of group i - 1 gives.

    The first group of the file waits for all others, so a group that comes in moves all before it.
    """
    first = [f"[q{i}] q{i} = MatMul (x, w{i})" for i in reversed(range(groups))]
    reads = ["d", *(f"q{i}" for i in range(groups - 1))]
    then = [f"[p{i}] p{i} = MatMul ({read}, w{i})" for i, read in enumerate(reads)]
    lines = [*first, "[deep] d = MatMul (x, v)", *then]
    outputs = ", ".join(f"float[N,4] {one}{i}" for i in range(groups) for one in "pq")
    weights = {"v": random(4, 4), **{f"w{i}": random(4, 4, seed=i) for i in range(groups)}}
    graph = f"(float[N,4] x) => ({outputs}) {{ {' '.join(lines)} }}"
    survey = find_layers(load(build(graph, **weights)))
    pairs, _ = pairs_of(survey, survey, {}, memory=1 << 20)
    depth, apart = depths(survey, pairs)
    assert not apart
    for i in range(groups):
        assert depth[f"q{i}"] == depth[f"p{i}"] == i + 2


TWICE = "(float[N,6] x) => (float[N,5] y, float[N,5] z) {{ u = Tanh (x) {} }}"
READ_ALIKE = {
    "[a] y = Gemm <transB = 1> (x, w)  t = Transpose (w)  [b] z = MatMul (u, t)": True,
    "[a] y = Gemm <transB = 1> (x, w, b)  [b] z = Gemm <transB = 1> (u, w, b)": True,
    "[a] y = Gemm <transB = 1> (x, w, b)  [b] z = Gemm <transB = 1> (u, w, c)": False,
    "[a] y = Gemm <transB = 1> (x, w)  [b] z = Gemm <alpha = 0.5, transB = 1> (u, w)": False,
    "[a] y = Gemm <transB = 1> (x, w)  k = Unsqueeze (w, last) "
    "v = Unsqueeze (u, last)  [b] s = Conv (v, k)  z = Squeeze (s, last)": False,
}


@pytest.mark.parametrize("body", READ_ALIKE)
def test_only_layers_that_read_a_weight_alike_are_refitted_together(body):
    weight = random(5, 6)
    others = {"b": random(5, seed=1), "c": random(5, seed=2), "last": np.array([2])}
    dense = build(TWICE.format(body), w=weight, **others)
    keep = np.random.default_rng(0).random(weight.shape) < 0.5
    pruned = build(TWICE.format(body), w=weight * keep, **others)
    found = refitted(pruned, dense, random(200, 3, seed=3) @ random(3, 6, seed=4))
    assert set(found.layers) == (set("ab") if READ_ALIKE[body] else set())
    assert set(found.left) == set("ab") - set(found.layers)
    # A weight that several layers read gets no bias for one of them.
    assert constants(found.document.proto).keys() == constants(dense).keys()


def test_a_symmetric_weight_that_is_read_both_ways_is_left_alone():
    graph = """(float[N,6] x) => (float[N,6] y, float[N,6] z) {
        u = Tanh (x)  [a] y = MatMul (x, w)  t = Transpose (w)  [b] z = MatMul (u, t) }"""
    weight = random(6, 6) + random(6, 6).T
    keep = np.random.default_rng(0).random((6, 6)) < 0.5
    dense, pruned = (build(graph, w=w) for w in (weight, weight * (keep & keep.T)))
    found = refitted(pruned, dense, random(200, 6, seed=3))
    assert found.layers == ()


def test_integers_with_scales_of_their_own_are_left_alone():
    graph = """(float[N,6] x) => (float[N,5] y, float[N,5] z) { u = Tanh (x)
        v = DequantizeLinear (w, s)  [a] y = MatMul (x, v)
        k = DequantizeLinear (w, half)  [b] z = MatMul (u, k) }"""
    weight = np.random.default_rng(0).integers(-99, 99, (6, 5)).astype(np.int8)
    scales = {"s": np.float32(0.02), "half": np.float32(0.01)}
    dense, pruned = (build(graph, w=w, **scales) for w in (weight, weight * (weight % 2)))
    found = refitted(pruned, dense, random(200, 6, seed=3))
    assert found.layers == ()
