"""Squared gradients of weights against differences in float64, on a small network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from text_models import build, random, run

from onnx_relief.data import open_data
from onnx_relief.errors import DataError, UnsupportedError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.measuring.gradients import weight_gradients

pytest.importorskip("torch")
pytest.importorskip("onnx2fx")

GRAPH = """(double[N,4] x) => (double[N,{outputs}] y) {{
    [first] h = MatMul (x, k)
    c = Add (h, b)
    t = Tanh (c)
    [second] y = Gemm <transB = 1> (t, w)
}}"""
ALIKE = {
    "MatMul": "f = Flatten (x) [layer] h = MatMul (f, w) t = Tanh (h)",
    "Gemm": "f = Flatten (x) [layer] h = Gemm <transB = 1> (f, w) t = Tanh (h)",
    "Conv": "[layer] h = Conv (x, w) c = Tanh (h) t = Flatten (c)",
}
STEP = 1e-5
SAMPLES = 6


def network(outputs=1):
    return build(
        GRAPH.format(outputs=outputs),
        k=random(4, 3, seed=1, dtype=np.float64),
        b=random(3, seed=2, dtype=np.float64),
        w=random(outputs, 3, seed=3, dtype=np.float64),
    )


def samples(labelled=False):
    arrays = {"x": random(SAMPLES, 4, seed=4, dtype=np.float64)}
    if labelled:
        arrays["labels"] = np.array([0, 2, 1, 1, 0, 2])
    return arrays


def found(model, arrays, **options):
    data = open_data(arrays, input_specs(model))
    return weight_gradients(load(model), data, provider="cpu", **options)


def differences(model, arrays, name, losses):
    """Return the gradient of each sample's loss by each entry of a weight, by differences."""
    stored = {t.name: t for t in model.graph.initializer}
    weight = onnx.numpy_helper.to_array(stored[name]).copy()
    gradients = np.empty((SAMPLES, weight.size))
    for place in range(weight.size):
        sides = []
        for sign in (1, -1):
            moved = weight.copy()
            moved.reshape(-1)[place] += sign * STEP
            stored[name].CopyFrom(onnx.numpy_helper.from_array(moved, name))
            sides.append(losses(run(model, {"x": arrays["x"]})[0]))
        gradients[:, place] = (sides[0] - sides[1]) / (2 * STEP)
    stored[name].CopyFrom(onnx.numpy_helper.from_array(weight, name))
    return gradients


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)


def test_the_comparison_notices_one_percent():
    with pytest.raises(AssertionError):
        close(np.full(3, 1.01), np.ones(3))


def test_without_labels_it_is_the_square_of_what_the_output_changes_by():
    model, arrays = network(), samples()
    spread = run(model, arrays)[0].std(ddof=1)
    result = found(model, arrays)
    first = (differences(model, arrays, "k", lambda y: y[:, 0] / spread) ** 2).mean(axis=0)
    second = (differences(model, arrays, "w", lambda y: y[:, 0] / spread) ** 2).mean(axis=0)
    close(result["first"][0], first.reshape(4, 3).T[..., None])
    close(result["second"][0], second.reshape(1, 3, 1))


def test_with_labels_it_is_the_square_of_the_gradient_of_the_loss():
    model, arrays = network(outputs=3), samples(labelled=True)
    result = found(model, arrays, by_labels=True)

    def cross_entropy(y):
        chosen = y[np.arange(SAMPLES), arrays["labels"]]
        return np.log(np.exp(y).sum(axis=1)) - chosen

    first = (differences(model, arrays, "k", cross_entropy) ** 2).mean(axis=0)
    second = (differences(model, arrays, "w", cross_entropy) ** 2).mean(axis=0)
    close(result["first"][0], first.reshape(4, 3).T[..., None])
    close(result["second"][0], second.reshape(3, 3, 1))


def test_of_several_outputs_labels_belong_to_the_one_with_as_many_classes():
    arrays, alone = samples(labelled=True), network(outputs=3)
    beside = network(outputs=3)
    wide = onnx.helper.make_tensor_value_info("wide", onnx.TensorProto.DOUBLE, ["N", 9])
    beside.graph.output.insert(0, wide)
    beside.graph.node.append(onnx.helper.make_node("MatMul", ["x", "other"], ["wide"]))
    other = random(4, 9, seed=5, dtype=np.float64)
    beside.graph.initializer.append(onnx.numpy_helper.from_array(other, "other"))
    one, two = (found(model, arrays, by_labels=True)["first"][0] for model in (alone, beside))
    close(two, one)


def test_over_many_signs_several_outputs_and_batches_give_the_sum_of_their_squares():
    model, arrays = network(outputs=3), samples()
    spread = run(model, arrays)[0].std(ddof=1)
    wanted = sum(
        (differences(model, arrays, "k", lambda y, o=o: y[:, o] / spread) ** 2).mean(axis=0)
        for o in range(3)
    )
    runs = [found(model, arrays, batch_size=3, seed=seed)["first"][0] for seed in range(40)]
    mean = np.mean(runs, axis=0)[..., 0].T.reshape(-1)
    assert 0.8 < mean.sum() / wanted.sum() < 1.2
    assert np.corrcoef(mean, wanted)[0, 1] > 0.95


def test_the_order_of_samples_does_not_matter():
    model, arrays = network(outputs=3), samples()
    turned = {"x": arrays["x"][::-1].copy()}
    one, other = found(model, arrays), found(model, turned)
    np.testing.assert_allclose(one["first"][0], other["first"][0], rtol=1e-9)


def test_neither_does_it_where_some_samples_are_the_same():
    model, several = network(outputs=3), {"x": samples()["x"][[0, 1, 0, 2, 0, 1]]}
    turned = {"x": several["x"][::-1].copy()}
    one, other = (found(model, arrays, batch_size=SAMPLES) for arrays in (several, turned))
    np.testing.assert_allclose(one["first"][0], other["first"][0], rtol=1e-9)


@pytest.mark.parametrize("labelled", [False, True])
def test_samples_that_are_the_same_do_not_add_up(labelled):
    model, arrays = network(outputs=3), samples(labelled)
    same = {name: np.repeat(values[1:2], 16, axis=0) for name, values in arrays.items()}
    shares = []
    for seed in range(60):
        one, many = (
            found(model, same, by_labels=labelled, seed=seed, batch_size=size)["first"][0].sum()
            for size in (1, 16)
        )
        shares.append(many / one)
    assert 0.6 < np.mean(shares) < 1.5


@pytest.mark.parametrize("kind", ["Gemm", "Conv"])
def test_a_layer_counts_the_same_however_it_is_written(kind):
    results = []
    for one in ("MatMul", kind):
        graph = f"(float[N,4,1,1] x) => (float[N,2] y) {{ {ALIKE[one]} y = MatMul (t, v) }}"
        weight = random(3, 4, seed=1)
        stored = {"MatMul": weight.T, "Gemm": weight, "Conv": weight[..., None, None]}[one]
        arrays = {"x": random(SAMPLES, 4, 1, 1, seed=4)}
        results.append(found(build(graph, w=stored, v=random(3, 2, seed=5)), arrays)["layer"][0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4)


QUANTIZED = """(float[N,3,5,5] x) => (float[N,2] y) {
    k = DequantizeLinear <axis = 0> (kq, ks, kz)
    [conv] c = Conv (x, k)
    t = Tanh (c)
    f = Flatten (t)
    w = DequantizeLinear (wq, ws)
    wt = Transpose <perm = [1, 0]> (w)
    [dense] y = MatMul (f, wt)
}"""
PLAIN = "[conv] c = Conv (x, k) t = Tanh (c) f = Flatten (t) [dense] y = MatMul (f, w)"


def test_weights_stored_as_integers_have_the_gradient_of_what_they_stand_for():
    draw = np.random.default_rng(0)
    kernels = draw.integers(-127, 127, (4, 3, 3, 3)).astype(np.int8)
    shifts, scales = np.arange(4, dtype=np.int8), random(4, seed=1) / 300
    dense, scale = draw.integers(-127, 127, (2, 36)).astype(np.int8), np.float32(0.003)
    quantized = build(QUANTIZED, kq=kernels, ks=scales, kz=shifts, wq=dense, ws=np.array(scale))
    wide = (kernels - shifts[:, None, None, None].astype(np.float32)) * scales[:, None, None, None]
    graph = f"(float[N,3,5,5] x) => (float[N,2] y) {{ {PLAIN} }}"
    plain = build(graph, k=wide, w=dense.T * scale)
    arrays = {"x": random(SAMPLES, 3, 5, 5, seed=4)}
    one, other = found(quantized, arrays), found(plain, arrays)
    for layer in ("conv", "dense"):
        np.testing.assert_allclose(one[layer][0], other[layer][0], rtol=1e-4)


def test_integers_that_two_layers_read_with_different_scales_have_no_gradient():
    graph = """(float[N,4] x) => (float[N,4] y) {
        v = DequantizeLinear (q, s1)
        w = DequantizeLinear (q, s2)
        [first] h = MatMul (x, v)
        t = Tanh (h)
        [second] h2 = MatMul (t, w)
        [third] y = MatMul (h2, k)
    }"""
    stored = np.random.default_rng(0).integers(-127, 127, (4, 4)).astype(np.int8)
    floats = {"s1": np.array(0.01, np.float32), "k": random(4, 4, seed=5)}
    arrays = {"x": random(SAMPLES, 4, seed=4)}
    differing = build(graph, q=stored, s2=np.array(0.02, np.float32), **floats)
    assert set(found(differing, arrays)) == {"third"}
    alike = build(graph, q=stored, s2=np.array(0.01, np.float32), **floats)
    assert set(found(alike, arrays)) == {"first", "second", "third"}


def test_labels_are_asked_for_and_have_to_fit():
    with pytest.raises(DataError, match="needs labels"):
        found(network(outputs=3), samples(), by_labels=True)
    with pytest.raises(DataError, match="score for every class"):
        found(network(outputs=2), samples(labelled=True), by_labels=True)


@pytest.mark.parametrize(
    "graph",
    [
        "(float[N,4] x) => (int64[N] y) { h = MatMul (x, w) y = ArgMax <axis=1, keepdims=0> (h) }",
        "(float[N,4] x) => (bool[N,3] y) { h = MatMul (x, w) y = Greater (h, zero) }",
        """(float[N,4] x) => (float[N,3] y) {
            h = MatMul (x, w) p = Greater (h, zero) y = Cast <to=1> (p)
        }""",
    ],
    ids=["integers", "truth values", "floats that no weight moves"],
)
@pytest.mark.parametrize("labelled", [False, True])
def test_a_model_without_an_output_to_follow_is_refused(graph, labelled):
    model = build(graph, w=random(4, 3, seed=1), zero=np.zeros((), np.float32))
    arrays = {"x": random(SAMPLES, 4, seed=4)}
    arrays |= {"labels": np.zeros(SAMPLES, np.int64)} if labelled else {}
    with pytest.raises(UnsupportedError, match="no output of floats"):
        found(model, arrays, by_labels=labelled)


def test_outputs_that_are_no_floats_do_not_count():
    graph = """(float[N,4] x) => (int64[N] c, float[N,3] y, bool[N,3] p) {
        [layer] y = MatMul (x, w)
        c = ArgMax <axis = 1, keepdims = 0> (y)
        p = Greater (y, zero)
    }"""
    constants = {"w": random(4, 3, seed=1), "zero": np.zeros((), np.float32)}
    alone = "(float[N,4] x) => (float[N,3] y) { [layer] y = MatMul (x, w) }"
    arrays = {"x": random(SAMPLES, 4, seed=4)}
    for size in (1, 4):
        several = found(build(graph, **constants), arrays, batch_size=size)
        one = found(build(alone, w=constants["w"]), arrays, batch_size=size)
        np.testing.assert_array_equal(several["layer"][0], one["layer"][0])


BESIDE = {
    "a number": ("double s", "s = ReduceMean <keepdims = 0> (y)"),
    "time first": ("double[2,N] s", "s = Transpose <perm = [1, 0]> (y)"),
}


def beside(kind, rows="N"):
    """Return a model that gives something beside its scores whose first axis is not the batch."""
    output, node = BESIDE[kind]
    return build(
        f"""(double[{rows},4] x) => (double[{rows},2] y, {output}) {{
            [first] h = MatMul (x, k)
            t = Tanh (h)
            [second] y = MatMul (t, w)
            {node}
        }}""".replace("N", rows),
        k=random(4, 3, seed=1, dtype=np.float64),
        w=random(3, 2, seed=3, dtype=np.float64),
    )


@pytest.mark.parametrize("kind", BESIDE)
def test_where_an_output_has_no_row_for_each_sample_samples_go_one_by_one(kind):
    model, arrays = beside(kind), samples()
    one, several = found(model, arrays), found(model, arrays, batch_size=4)
    for layer in ("first", "second"):
        np.testing.assert_allclose(several[layer][0], one[layer][0], rtol=1e-9)


@pytest.mark.parametrize("kind", BESIDE)
def test_a_fixed_batch_may_give_outputs_without_a_row_for_each_sample(kind):
    arrays = {"x": random(5, 4, seed=4, dtype=np.float64)}  # the last batch is filled up
    result = found(beside(kind, rows="4"), arrays, batch_size=4)
    assert all((result[layer][0] > 0).all() for layer in ("first", "second"))


@pytest.mark.parametrize("kind", BESIDE)
def test_labels_do_not_mind_outputs_without_a_row_for_each_sample(kind):
    arrays = samples(labelled=True)
    arrays["labels"] = arrays["labels"] % 2
    alone = beside(kind)
    del alone.graph.output[1:]
    one = found(alone, arrays, by_labels=True, batch_size=3)
    other = found(beside(kind), arrays, by_labels=True, batch_size=3)
    np.testing.assert_allclose(other["first"][0], one["first"][0], rtol=1e-9)


def test_one_number_from_one_sample_is_followed():
    model, arrays = beside("a number"), {"x": random(1, 4, seed=4, dtype=np.float64)}
    del model.graph.output[0]
    assert (found(model, arrays)["first"][0] > 0).all()


def test_a_complete_feed_may_have_several_labels():
    arrays = samples(labelled=True)
    model = network(outputs=3)
    data = open_data([arrays], input_specs(model))
    result = weight_gradients(load(model), data, by_labels=True, provider="cpu")
    assert (result["first"][0] > 0).all()
