"""How often weights are applied, learnt from made-up values or from one sample."""

from __future__ import annotations

import numpy as np
import pytest
from classifier import CNN, cnn, mlp, samples
from text_models import build, random, survey

from onnx_relief.data import open_data
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.positions import positions_on_data, positions_on_shapes, shape_of
from onnx_relief.tensors import TensorSpec

FREE = "(float[N,2,H,W] x) => (float[N,4,A,B] y) { [conv] y = Conv (x, k) }"


def positions(model, **shapes):
    document = load(model)
    return positions_on_shapes(find_layers(document), input_specs(document.proto), shapes, "cpu")


def free():
    return build(FREE, k=random(4, 2, 3, 3))


def test_fixed_sizes_are_enough():
    assert positions(cnn()).by_layer == {"conv": 64.0, "fc": 1.0}


def test_free_sizes_need_a_shape():
    found = positions(free())
    assert found.by_layer == {}
    assert found.reason == "needs --shape x=Nx2xNxN"


def test_a_shape_fills_in_free_sizes():
    assert positions(free(), x=(1, 2, 5, 7)).by_layer == {"conv": 3 * 5}


def test_positions_are_per_sample():
    assert positions(free(), x=(3, 2, 5, 7)).by_layer == {"conv": 3 * 5}
    fixed = CNN.replace("float[N,2,8,8]", "float[4,2,8,8]")
    model = build(fixed, k=random(4, 2, 3, 3), b=random(4), w=random(4, 3))
    assert positions(model).by_layer["conv"] == 64


@pytest.mark.parametrize(("name", "shape"), [("x", (1, 3, 5, 5)), ("x", (1, 2, 5)), ("z", (1,))])
def test_a_shape_that_does_not_fit_is_a_sentence(name, shape):
    with pytest.raises(SettingsError, match=r"--shape .*(does not fit the input|names no input)"):
        positions(free(), **{name: shape})


def test_a_model_that_rejects_made_up_values_is_no_error():
    model = build(
        "(float[N,4] x) => (float[N,4] y) { z = Reshape (x, s)  y = MatMul (z, w) }",
        w=random(4, 4),
        s=np.array([3, 5]),
    )
    found = positions(model)
    assert found.by_layer == {}
    assert "does not run on made-up values" in found.reason


def test_zeros_are_tried_where_ones_do_not_work():
    graph = """(int64[N,2] x) => (float[N,2,3] y) {
        e = Gather (table, x)  [fc] y = MatMul (e, w)
    }"""
    model = build(graph, table=random(1, 4), w=random(4, 3))
    assert positions(model).by_layer == {"fc": 2.0}


def test_data_tells_the_same():
    found = survey(CNN, k=random(4, 2, 3, 3), b=random(4), w=random(4, 3))
    inputs = input_specs(found.document.proto)
    data = open_data(samples(shape=(2, 8, 8)), inputs)
    assert positions_on_data(found, data, "cpu").by_layer == {"conv": 64.0, "fc": 1.0}


def test_data_that_does_not_run_is_no_error():
    graph = "(float[N,4] x) => (float[N,4] y) { z = Reshape (x, s)  y = MatMul (z, w) }"
    found = survey(graph, w=random(4, 4), s=np.array([3, 5]))
    data = open_data({"x": np.ones((2, 4), np.float32)}, input_specs(found.document.proto))
    learnt = positions_on_data(found, data, "cpu")
    assert learnt.by_layer == {}
    assert "ONNX Runtime" in learnt.reason


def test_an_unknown_rank_needs_a_shape():
    spec = TensorSpec(name="x", dtype=np.dtype(np.float32), shape=None)
    assert shape_of(spec, None) is None
    assert shape_of(spec, (1, 2)) == (1, 2)


def test_text_cannot_be_made_up():
    model = build(
        """(string[N] t, float[N,6] x) => (float[N,5] y, string[N] u) {
            y = MatMul (x, w1)  u = Identity (t)
        }""",
        w1=random(6, 5),
    )
    assert "cannot be made up" in positions(model).reason
    assert positions(mlp()).reason is None
