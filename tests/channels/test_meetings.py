"""Queries and keys are worth what they say together, sample by sample and head by head."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build, random, run

from onnx_relief.channels.pruning import prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.data import open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.settings import Settings

EINSUM = """(float[N,6,8] x) => (float[N,6,5] y) {
    q = Einsum <equation = "btd,dhk->bthk"> (x, wq)
    k = Einsum <equation = "btd,dhk->bthk"> (x, wk)
    v = Einsum <equation = "btd,dhk->bthk"> (x, wv)
    a = Einsum <equation = "bqhk,bshk->bhqs"> (q, k)  p = Softmax <axis = -1> (a)
    o = Einsum <equation = "bhqs,bshk->bqhk"> (p, v)
    y = Einsum <equation = "bqhk,hkd->bqd"> (o, wo)
}"""
MATMUL = """(float[N,6,8] x) => (float[N,6,5] y) {
    q0 = MatMul (x, wq)  q1 = Reshape (q0, s)  q = Transpose <perm = [0, 2, 1, 3]> (q1)
    k0 = MatMul (x, wk)  k1 = Reshape (k0, s)  k = Transpose <perm = [0, 2, 3, 1]> (k1)
    v0 = MatMul (x, wv)  v1 = Reshape (v0, s2)  v = Transpose <perm = [0, 2, 1, 3]> (v1)
    a = MatMul (q, k)  p = Softmax <axis = -1> (a)
    o = MatMul (p, v)  o1 = Transpose <perm = [0, 2, 1, 3]> (o)
    o2 = Reshape (o1, s3)  y = MatMul (o2, wo)
}"""


def cut(model, x, ratio, criterion="obs"):
    document = load(model)
    data = open_data({"x": x}, input_specs(document.proto))
    channels = ChannelSettings(ratio=ratio, round_to=1, repair="none")
    return prune_channels(document, data, Settings(criterion=criterion), channels).document.proto


def error(one, other, x):
    pairs = zip(run(one, {"x": x}), run(other, {"x": x}), strict=True)
    return max(np.square(a - b).mean() / a.var() for a, b in pairs)


@pytest.mark.parametrize("written", ["einsum", "matmul"])
def test_a_width_that_says_nothing_in_any_head_goes_first(written):
    """Its queries are large where keys are next to nothing, and the other way round."""
    wq, wk = random(8, 2, 4, seed=1) / 2, random(8, 2, 4, seed=2) / 2
    for head, factor in ((0, 4), (1, 0.001)):
        wq[:, head, :2] *= factor
        wk[:, head, :2] *= 0.004 / factor
    weights = {"wq": wq, "wk": wk, "wv": random(8, 2, 3, seed=3), "wo": random(2, 3, 5, seed=4)}
    model = build(EINSUM, **weights)
    if written == "matmul":
        flat = {name: weights[name].reshape(8, -1) for name in ("wq", "wk", "wv")}
        shapes = {"s": [0, 0, 2, 4], "s2": [0, 0, 2, 3], "s3": [0, 0, 6]}
        arrays = {name: np.array(shape) for name, shape in shapes.items()}
        model = build(MATMUL, **flat, wo=weights["wo"].reshape(-1, 5), **arrays)
    x = random(100, 6, 8, seed=5)
    small = cut(model, x, 0.5)
    stored = next(one for one in small.graph.initializer if one.name == "wq")
    kept = np.frombuffer(stored.raw_data, np.float32).reshape(8, 2, -1)
    np.testing.assert_array_equal(kept, wq[:, :, 2:])


@pytest.mark.parametrize("criterion", ["obs", "relief"])
def test_what_channels_say_to_keys_counts_beside_what_a_layer_reads(criterion):
    """Of channels 0 and 1 the layer reads nothing and the keys much, of the last two little."""
    wq, wk, wr = random(8, 8, seed=1) / 2, random(8, 8, seed=2) / 2, random(8, 5, seed=3)
    wr[:2] = 0
    wr[6:] *= 0.01
    wk[:, 6:] *= 0.001
    model = build(
        """(float[N,6,8] x) => (float[N,6,5] y, float[N,6,5] z) {
            q = MatMul (x, wq)  k = MatMul (x, wk)  t = Transpose <perm = [0, 2, 1]> (k)
            a = MatMul (q, t)  p = Softmax <axis = -1> (a)  v = MatMul (x, wv)
            y = MatMul (p, v)  z = MatMul (q, wr)
        }""",
        wq=wq,
        wk=wk,
        wr=wr,
        wv=random(8, 5, seed=4),
    )
    x = random(100, 6, 8, seed=5)
    assert error(model, cut(model, x, 0.25, criterion), x) < 1e-3
