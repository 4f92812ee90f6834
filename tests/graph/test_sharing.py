"""A weight that something else reads is refused; layers may share one with each other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from text_models import build, function, random, survey

from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers

FOREIGN = {
    "h = MatMul(x, w) e = Gather(w, i) y = Concat <axis = 0> (h, e)": "Gather 'e' reads it too",
    "h = MatMul(x, w) n = ReduceL2(w) y = Add(h, n)": "ReduceL2 'n' reads it too",
    "h = MatMul(x, w) y = my.Other(h, w)": "Other 'y' reads it too",
    "t = Transpose(w) h = MatMul(x, t) y = Mul(h, w)": "Mul 'y' reads it too",
    "t = Transpose(w) h = MatMul(x, t) y = Mul(h, t)": "Mul 'y' reads it too",
    "t = Transpose(w) h = MatMul(x, w) y = Mul(h, t)": "Transpose 't' reads it too",
    "y = Conv(w, w)": "Conv 'y' reads it too",
}
SHARED = {
    "h = MatMul(x, w) y = MatMul(h, w)": 2,
    "t = Transpose(w) h = MatMul(x, w) y = MatMul(h, t)": 2,
    "t = Transpose(w) h = MatMul(x, t) y = MatMul(h, t)": 2,
    "h = Gemm(x, w) g = Gemm <transB = 1> (h, w) y = MatMul(w, g)": 3,
}


def found_in(nodes, outputs="", **constants):
    text = f"(float[N,2] x, int64[M] i) => (float y{outputs}) {{ {nodes} }}"
    return survey(text, **({"w": random(2, 2)} | constants))


@pytest.mark.parametrize("nodes", FOREIGN)
def test_foreign_reader_is_named(nodes):
    shape = (2, 2, 2) if "Conv" in nodes else (2, 2)
    found = found_in(nodes, w=random(*shape))
    assert not found.sites
    reasons = [r.reason for r in found.refusals if "for this layer alone" in r.reason]
    assert len(reasons) == 1
    assert FOREIGN[nodes] in reasons[0]
    assert "weight w cannot be changed" in reasons[0]


@pytest.mark.parametrize("nodes", ["y = MatMul(x, w)", "v = Identity(w) y = MatMul(x, v)"])
def test_weight_that_is_an_output_of_the_graph_is_refused(nodes):
    found = found_in(nodes, outputs=", float[2,2] w")
    assert not found.sites
    assert found.refusals[0].reason.endswith("'w' is also an output of the graph")


@pytest.mark.parametrize("nodes", SHARED)
def test_layers_may_share_a_weight(nodes):
    found = found_in(nodes)
    assert len(found.sites) == SHARED[nodes]
    assert not found.refusals


def test_refused_layer_is_foreign_to_the_layers_that_share_with_it():
    found = found_in("h = MatMul(x, w) g = MatMul(h, w) t = Transpose(w) y = Mul(g, t)")
    assert not found.sites
    assert [refusal.node for refusal in found.refusals if refusal.op == "MatMul"] == ["h", "g"]


def test_refusal_spreads_through_a_chain_of_shared_weights():
    # u is shared by a and the LSTM, r by the LSTM and the Gather: neither can be changed.
    nodes = "a = Relu(x) h = LSTM <hidden_size = 2> (s, u, r) e = Gather(r, i) g = RNN(h, u, p)"
    constants = {"u": random(1, 8, 2), "r": random(1, 8, 2), "s": random(3, 4, 2)}
    found = found_in(nodes + " y = Relu(e)", **constants, p=random(1, 8, 8))
    assert not found.sites
    assert {r.op for r in found.refusals} == {"LSTM", "RNN", "Gather"}


def test_weight_read_outside_its_body_is_refused_inside():
    body = "g () => (float[N,2] p) { p = MatMul(x, w) }"
    other = "g () => (float[N,2] q) { q = Relu(x) }"
    nodes = f"h = If (c) <then_branch = {body}, else_branch = {other}> "
    text = "(bool c, float[N,2] x, int64[M] i) => (float y) {"
    alone = survey(f"{text} {nodes} y = Relu(h) }}", w=random(2, 2))
    shared = survey(
        f"{text} {nodes} e = Gather(w, i) y = Concat <axis = 0> (h, e) }}", w=random(2, 2)
    )
    assert (len(alone.sites), len(shared.sites)) == (1, 0)
    assert "Gather 'e' reads it too" in shared.refusals[-1].reason


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Gemm(x, w, b) e = Gather(b, i) y = Sub(h, e)",
        "g = MatMul(x, w) h = Add(g, b) y = Mul(h, b)",
        "h = Gemm(x, w, b) y = Add(h, b)",
        "h = Gemm(x, w, b) e = Identity(b) y = Sub(h, e)",
    ],
)
def test_bias_that_is_read_elsewhere_is_left_out_and_its_layer_stays(nodes):
    (site,) = found_in(nodes, b=random(2, seed=1)).sites
    assert (site.bias, site.layer.bias) == (None, None)


def test_two_layers_may_share_a_bias():
    found = found_in("h = Gemm(x, w, b) y = Gemm(h, v, b)", v=random(2, 2), b=random(2))
    assert [site.layer.bias.name for site in found.sites] == ["b", "b"]


def test_call_that_makes_no_layer_is_a_foreign_reader():
    dense = function(
        "dense", "(x) => (y)", "w = Constant <value = float[2,2] {1,2,3,4}> () y = MatMul(x, w)"
    )
    both = found_in("a = my.dense(x) y = my.dense(a)", functions=dense)
    one = found_in("a = my.dense(x) b = my.dense(w) y = Mul(a, b)", functions=dense)
    assert len(both.sites) == 2
    assert not one.sites
    assert "cannot be changed for this layer alone" in one.refusals[-1].reason


def test_one_tensor_with_two_zero_points_is_refused():
    nodes = (
        "a = DequantizeLinear(q, s, p) h = MatMul(x, a) b = DequantizeLinear(q, s, {}) "
        "y = MatMul(h, b)"
    )
    constants = {"q": np.ones((2, 2), np.int8), "s": np.float32(1), "p": np.int8(1)}
    assert len(found_in(nodes.format("p"), **constants).sites) == 2
    other = found_in(nodes.format("r"), **constants, r=np.int8(2))
    assert not other.sites
    assert "another shape or zero point" in other.refusals[0].reason


@pytest.mark.parametrize(("points", "layers"), [([1, 2], 2), ([2, 1], 0)])
def test_zero_points_per_row_are_compared_where_they_are_stored(points, layers):
    nodes = (
        "a = DequantizeLinear <axis = 0> (q, s, p) h = MatMul(x, a) t = Transpose(q) "
        "b = DequantizeLinear <axis = 1> (t, s, r) y = MatMul(h, b)"
    )
    constants = {"q": np.ones((2, 2), np.int8), "s": np.float32([1, 2])}
    constants |= {"p": np.int8([1, 2]), "r": np.int8(points)}
    assert len(found_in(nodes, **constants).sites) == layers


def test_one_fill_value_for_two_shapes_is_refused():
    fill = function(
        "fill", "(x, s) => (y)", "w = ConstantOfShape <value = float[1] {2}> (s) y = MatMul(x, w)"
    )
    calls = "a = my.fill(x, s) y = my.fill(a, {})"
    shapes = {"s": np.array([2, 2]), "t": np.array([2, 5])}
    assert len(found_in(calls.format("s"), functions=fill, **shapes).sites) == 2
    assert not found_in(calls.format("t"), functions=fill, **shapes).sites


def test_scale_that_a_layer_uses_as_its_bias_is_no_step_on_the_way():
    nodes = "d = DequantizeLinear <axis = 1> (q, b) h = MatMul(x, d) y = Add(h, b)"
    (site,) = found_in(nodes, q=np.ones((2, 2), np.int8), b=random(2)).sites
    assert site.bias is None


def test_weights_that_share_bytes_of_a_data_file_are_left_alone(tmp_path):
    proto = build(
        "(float[N,4] x) => (float[N,4] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }",
        a=random(4, 4),
        b=random(4, 4),
    )
    onnx.save(
        proto, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    tied = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for tensor in tied.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "0" if entry.key == "offset" else entry.value
    onnx.save(tied, tmp_path / "tied.onnx")
    assert len(find_layers(load(tmp_path / "m.onnx")).sites) == 2
    found = find_layers(load(tmp_path / "tied.onnx"))
    assert not found.sites
    assert all("'a' and 'b' share its bytes" in refusal.reason for refusal in found.refusals)
