"""Data files of models that lost channels: what no tensor has any more is left out."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from text_models import build, random, run

import onnx_relief as relief
from onnx_relief.graph import external

GRAPH = """(float[N,40] x, float[N,6] u) => (float[N,3] y, float[N,50] z) {
    h = MatMul (x, a)  r = Relu (h)  y = MatMul (r, b)  z = MatMul (u, c)
}"""


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """Let models keep their data files that are small enough to become one file."""
    monkeypatch.setattr("onnx_relief.graph.inside._ROOM", 0)


def stored(folder):
    """Write a model of which one hidden unit is dead, its data in a file with a gap in it."""
    folder.mkdir()
    first = random(40, 30, seed=1)
    first[:, 7] = 0
    model = build(GRAPH, a=first, b=random(30, 3, seed=2), c=random(6, 50, seed=3))
    data = b""
    for tensor in model.graph.initializer:
        data += b"\1" * 100  # nobody's
        said = {"location": "m.data", "offset": len(data), "length": len(tensor.raw_data)}
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in said.items():
            tensor.external_data.add(key=key, value=str(value))
    for tensor in model.graph.initializer:
        tensor.external_data.add(key="checksum", value=hashlib.sha1(data).hexdigest())
    (folder / "m.data").write_bytes(data)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def held(path):
    proto = onnx.load(path, load_external_data=False)
    return {t.name: external.entries(t) for t in proto.graph.initializer if external.is_external(t)}


@pytest.mark.parametrize("masked", [False, True])
def test_what_was_cut_leaves_the_data_file(tmp_path, masked):
    path, out = stored(tmp_path / "in"), tmp_path / "out" / "small.onnx"
    out.parent.mkdir()
    feed = {"x": random(20, 40, seed=5), "u": random(20, 6, seed=6)}
    before = path
    if masked:  # edits of what stays and of what goes
        before = tmp_path / "masked.onnx"
        relief.prune(path, feed, sparsity=0.3, granularity="weight", repair="none").save(before)
    found = relief.compact(before, feed, round_to=1)
    found.save(out)
    small = held(out)
    assert list(small) == ["c"]
    data = out.parent / "m.data"
    assert data.stat().st_size == int(small["c"]["length"]) == 6 * 50 * 4
    assert small["c"]["checksum"] == hashlib.sha1(data.read_bytes()).hexdigest()
    for one, other in zip(run(str(before), feed), run(str(out), feed), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_where_nothing_is_cut_a_data_file_stays_as_it_is(tmp_path):
    path, out = stored(tmp_path / "in"), tmp_path / "out" / "small.onnx"
    out.parent.mkdir()
    feed = {"x": random(20, 40, seed=5), "u": random(20, 6, seed=6)}
    relief.prune(path, feed, alpha=1.0, granularity="weight").save(out)
    assert (out.parent / "m.data").read_bytes() == (path.parent / "m.data").read_bytes()


def test_repairs_reach_what_was_not_cut(tmp_path):
    path, out = stored(tmp_path / "in"), tmp_path / "out" / "small.onnx"
    out.parent.mkdir()
    feed = {"x": random(90, 40, seed=5), "u": random(90, 6, seed=6)}
    feed["u"][:, 3] = feed["u"][:, 4]
    chosen = {"ratio": 0.3, "round_to": 1, "repair": "least-squares"}
    masked, alone = tmp_path / "masked.onnx", onnx.load(path)
    plan = {"sparsity": 0.5, "granularity": "weight", "only": ["z"], "repair": "none"}
    relief.prune(path, feed, **plan).save(masked)
    relief.prune_channels(masked, feed, **chosen).save(out)
    inline = relief.prune(alone, feed, **plan).model
    expected = relief.prune_channels(inline, feed, **chosen).model
    for one, other in zip(run(expected, feed), run(str(out), feed), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
