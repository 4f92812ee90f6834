"""A small network with data, as several tests of what surrounds the method need it."""

from __future__ import annotations

import numpy as np
import onnx
from text_models import build, random

MLP = """(float[N,6] x) => (float[N,3] y) {
    [first] h = MatMul (x, w1)
    a = Relu (h)
    [second] y = MatMul (a, w2)
}"""
CNN = """(float[N,2,8,8] x) => (float[N,3] y) {
    [conv] c = Conv <pads = [1, 1, 1, 1]> (x, k, b)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    [fc] y = MatMul (f, w)
}"""


def mlp(**changed):
    """Return y = relu(x w1) w2 with 6 inputs, 5 hidden units and 3 classes."""
    return build(MLP, **{"w1": random(6, 5, seed=1), "w2": random(5, 3, seed=2), **changed})


def cnn():
    """Return a network with one convolution of 4 units, 3 x 3, and a linear layer."""
    kernels, bias, weight = random(4, 2, 3, 3, seed=1), random(4, seed=2), random(4, 3, seed=3)
    return build(CNN, k=kernels, b=bias, w=weight)


def written(folder, model, name="model.onnx"):
    """Write a model and return its path."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def samples(count=40, shape=(6,), labelled=True):
    """Return arrays by name: inputs, and labels from 0 to 2."""
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((count, *shape)).astype(np.float32)}
    if labelled:
        arrays["labels"] = rng.integers(0, 3, count)
    return arrays


def data_file(folder, name="data.npz", **options):
    """Write samples as an .npz file and return its path."""
    path = folder / name
    np.savez(path, **samples(**options))
    return path


def weights(model):
    """Return all initializers by name."""
    proto = onnx.load(model) if not isinstance(model, onnx.ModelProto) else model
    return {w.name: onnx.numpy_helper.to_array(w) for w in proto.graph.initializer}


def contents(folder):
    """Return the bytes of every file below a folder, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
