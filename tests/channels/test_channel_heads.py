"""Whole heads of attention go, in queries, keys, values and the projection alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from text_models import build, random, run

from onnx_relief.channels.pruning import prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.data import open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.settings import Settings

MINILM = Path(__file__).parents[2] / "corpus" / "minilm-l3.onnx"
HEADS, WIDTH = 4, 6
ATTENTION = """(float[N,5,24] x) => (float[N,5,24] y) {
    target = Constant <value = int64[4] {0, 0, 4, 6}> ()
    back = Constant <value = int64[3] {0, 0, 24}> ()
    q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
    q4 = Reshape (q, target)  k4 = Reshape (k, target)  v4 = Reshape (v, target)
    qh = Transpose <perm = [0, 2, 1, 3]> (q4)
    kh = Transpose <perm = [0, 2, 3, 1]> (k4)
    vh = Transpose <perm = [0, 2, 1, 3]> (v4)
    s = MatMul (qh, kh)  p = Softmax <axis = -1> (s)  a = MatMul (p, vh)
    t = Transpose <perm = [0, 2, 1, 3]> (a)  f = Reshape (t, back)  y = MatMul (f, wo)
}"""


def attention():
    """Return four heads of which the second and the last say next to nothing."""
    strength = np.repeat([1, 0.01, 1, 0.02], WIDTH).astype(np.float32)
    names = {name: random(24, 24, seed=seed) for seed, name in enumerate(("wq", "wk", "wv", "wo"))}
    return build(ATTENTION, opset=17, ir=8, **names | {"wv": names["wv"] * strength})


def cut(model, feed, **channels):
    document = load(model)
    data = open_data(feed, input_specs(document.proto))
    settings = ChannelSettings(ratio=0.5, round_to=1, **channels)
    return prune_channels(document, data, Settings(provider="cpu"), settings)


def constants(proto):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def places(part, whole, axis):
    """Return which slices of `whole` are left in `part`."""
    # The other axis stays as it is; a few of its numbers tell slices apart.
    one, other = (np.moveaxis(array, axis, 0)[:, :16] for array in (part, whole))
    return [int(np.flatnonzero((other == row).all(axis=1))[0]) for row in one]


def whole_heads(kept, width):
    """Return the heads that are kept, which has to be all of each."""
    heads = sorted({place // width for place in kept})
    assert kept == [head * width + place for head in heads for place in range(width)]
    return heads


def test_the_heads_that_say_least_go_everywhere():
    model, x = attention(), random(20, 5, 24, seed=9)
    found = cut(model, {"x": x}, heads=True, repair="none").document.proto
    before, after = constants(model), constants(found)
    for name, axis in (("wq", 1), ("wk", 1), ("wv", 1), ("wo", 0)):
        assert whole_heads(places(after[name], before[name], axis), WIDTH) == [0, 2]
    dense, small = run(model, {"x": x})[0], run(found, {"x": x})[0]
    assert np.abs(dense - small).max() < 0.1 * np.abs(dense).max()


def test_without_the_flag_every_head_gets_narrower():
    model = attention()
    found = constants(cut(model, {"x": random(20, 5, 24)}, repair="none").document.proto)
    kept = places(found["wq"], constants(model)["wq"], 1)
    assert sorted(place // WIDTH for place in kept) == sorted([0, 1, 2, 3] * (WIDTH // 2))


@pytest.mark.corpus
def test_whole_heads_of_a_transformer():
    if not MINILM.exists():
        pytest.skip("no corpus/ folder; tools/fetch_corpus.py makes it")
    ids = np.random.default_rng(0).integers(1000, 20000, (2, 8))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    proto = onnx.load(MINILM)
    found = cut(proto, feed, heads=True, repair="none").document.proto
    before, after = constants(proto), constants(found)
    readers = {node.name: node.input[1] for node in proto.graph.node if node.op_type == "MatMul"}
    seen = 0
    for name, weight in readers.items():
        if "/attention/self/query/" not in name or weight not in before:
            continue
        others = [name.replace("query", one) for one in ("key", "value")]
        out = name.replace("/self/query/", "/output/dense/")
        kept = [places(after[readers[one]], before[readers[one]], 1) for one in (name, *others)]
        kept.append(places(after[readers[out]], before[readers[out]], 0))
        assert all(one == kept[0] for one in kept)
        assert len(whole_heads(kept[0], 32)) == 6
        seen += 1
    assert seen == 3
    run(found, feed)


GROUPED = """(float[N,6,8] x) => (float[N,6,5] y) {{
    q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
    {body}
    h = MatMul (a, wo)  s = Relu (h)  y = MatMul (s, wy)
}}"""
APART = """q4 = Reshape (q, to_q)  k4 = Reshape (k, to_k)  v4 = Reshape (v, to_k)
    qh = Transpose <perm = [0, 2, 1, 3]> (q4)  vh = Transpose <perm = [0, 2, 1, 3]> (v4)"""
TOGETHER = "t = Transpose <perm = [0, 2, 1, 3]> (o)  a = Reshape (t, back)"
WRITTEN = {
    "three axes": "a = Attention <q_num_heads = 4, kv_num_heads = {heads}> (q, k, v)",
    "four axes": f"""{APART}  kh = Transpose <perm = [0, 2, 1, 3]> (k4)
        o = Attention (qh, kh, vh)  {TOGETHER}""",
    "products": f"""{APART}  kh = Transpose <perm = [0, 2, 3, 1]> (k4)  ku = Unsqueeze (kh, two)
        ke = Expand (ku, more)  kr = Reshape (ke, keys)  vu = Unsqueeze (vh, two)
        ve = Expand (vu, more)  vr = Reshape (ve, values)  l = MatMul (qh, kr)
        m = Mul (l, half)  p = Softmax <axis = -1> (m)  o = MatMul (p, vr)  {TOGETHER}""",
}


def grouped(heads, written, seed):
    """Return four heads of queries that share so many keys and values, and samples of one size."""
    wide = {"wq": (8, 16), "wk": (8, 4 * heads), "wv": (8, 4 * heads), "wo": (16, 8), "wy": (8, 5)}
    weights = {name: random(*wide[name], seed=seed + at) / 2 for at, name in enumerate(wide)}
    sizes = {"to_q": [0, 0, 4, 4], "to_k": [0, 0, heads, 4], "back": [0, 0, 16], "two": [2]}
    sizes |= {"more": [1, 1, 4 // heads, 1, 1], "keys": [0, 4, 4, -1], "values": [0, 4, -1, 4]}
    body = WRITTEN[written].replace("{heads}", str(heads))
    text = GROUPED.format(body=body)
    constants = {name: np.array(value) for name, value in sizes.items() if name in body}
    if "half" in body:
        constants["half"] = np.float32(0.5)
    return build(text, opset=23, ir=10, **weights, **constants)


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("seed", [4, 6, 15])
def test_attention_loses_the_same_widths_however_it_is_written(heads, seed):
    loud = 4.0 ** random(32, 1, 8, seed=seed + 50)  # samples and features differ in size
    x = random(32, 6, 8, seed=seed + 60) * loud
    found = [
        constants(cut(grouped(heads, written, seed), {"x": x}, repair="none").document.proto)
        for written in WRITTEN
    ]
    for other in found[1:]:
        for name in ("wq", "wk", "wv", "wo"):
            np.testing.assert_array_equal(other[name], found[0][name])


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("written", ["three axes", "four axes"])
def test_whole_heads_of_an_attention_node_go(heads, written):
    model, x = grouped(heads, written, 0), random(32, 6, 8)
    found = cut(model, {"x": x}, heads=True, repair="none").document.proto
    assert constants(found)["wq"].shape[1] == 8
    assert run(found, {"x": x})[0].shape == (32, 6, 5)
