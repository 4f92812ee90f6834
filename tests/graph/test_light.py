"""A model without its weights is the same model once they are put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from text_models import build, random

from onnx_relief.graph.light import without_weights
from onnx_relief.runtime import open_session

FOLDER = Path(__file__).parents[2] / "models"
MODELS = ("lenet-5", "lenet-300-100", "fashion-keras")


@pytest.mark.parametrize("name", MODELS)
def test_weights_put_back_give_the_model(name):
    proto = onnx.load(FOLDER / f"{name}.onnx")
    light = without_weights(proto)
    assert light.weights
    assert light.proto.ByteSize() < 50_000
    for tensor in light.proto.graph.initializer:
        if tensor.name in light.weights:
            values = numpy_helper.from_array(light.weights[tensor.name], tensor.name)
            tensor.CopyFrom(values)
    assert light.proto == proto


def test_what_nothing_or_a_body_reads_stays():
    text = """(float[N,64] x, bool c) => (float[N,64] y) {
        h = MatMul(x, plain)
        y = If (c) <then_branch = t () => (float z) { z = MatMul(h, inner) },
                    else_branch = e () => (float z) { z = Relu(h) }>
    }"""
    proto = build(text, plain=random(64, 64), inner=random(64, 64), idle=random(64, 64))
    light = without_weights(proto)
    assert set(light.weights) == {"plain"}
    feed = {"x": random(3, 64), "c": np.array(True)}
    assert open_session(proto).run(feed)["y"].shape == (3, 64)


def test_small_and_exotic_tensors_stay():
    proto = build("(float[N,2] x) => (float[N,2] y) { y = MatMul(x, w) }", w=random(2, 2))
    big = onnx.helper.make_tensor("b", onnx.TensorProto.BFLOAT16, [64, 64], np.zeros(4096))
    proto.graph.initializer.append(big)
    proto.graph.node.append(onnx.helper.make_node("Cast", ["b"], ["f"], to=1))
    light = without_weights(proto)
    assert not light.weights
    assert light.proto == proto
