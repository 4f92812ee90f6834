"""Channels in the bodies of If, Loop and Scan: names come back, and real models get smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from inner import branches, handed_by_a_scan, same_names_in_branches
from test_cut import Traced, feed_for
from text_models import assert_outputs_agree, build, random

from onnx_relief.cli import main
from onnx_relief.compaction.compact import compact
from onnx_relief.graph.channels.whole import whole
from onnx_relief.graph.document import load
from onnx_relief.graph.unique_names import with_old_names, with_unique_names
from onnx_relief.graph.walk import understand

CORPUS = Path(__file__).parents[3] / "corpus"


def sizes(model):
    """Return the sizes of all initializers, those of bodies too, by path and name."""
    return {
        (scope.path, name): tuple(tensor.dims)
        for scope in understand(model).scopes
        for name, tensor in scope.initializers.items()
    }


def both_ways(model):
    """Return feeds that take either branch of an If that asks for the sign of a sum."""
    feed = feed_for(model)
    return feed, {name: -array for name, array in feed.items()}


def test_names_that_two_bodies_share_come_back():
    model = same_names_in_branches()
    document, names = with_unique_names(load(model))
    assert sorted(names.values()) == ["h", "o", "out", "r"]
    back = with_old_names(document, names)
    assert back.proto.SerializeToString() == model.SerializeToString()


def test_names_that_stand_for_several_tensors_are_not_followed():
    with pytest.raises(ValueError, match="is the name of several tensors"):
        whole(understand(same_names_in_branches()))


def test_each_branch_loses_its_own_units():
    model = same_names_in_branches()
    for place, (holder, name) in enumerate(
        ((model.graph, "w1"), (model.graph.node[2].attribute[1].g, "w3"))
    ):
        tensor = next(t for t in holder.initializer if t.name == name)
        array = onnx.numpy_helper.to_array(tensor).copy()
        array[:, : place + 2] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    first, second = both_ways(model)
    found = compact(load(model), first, more_feeds=[second], provider="cpu", round_to=1)
    assert found.removed == 5
    assert sizes(found.document.proto) == {
        ("", "zero"): (),
        ("", "w1"): (6, 6),
        ("", "w2"): (6, 5),
        ("y.else_branch", "w3"): (6, 4),
        ("y.else_branch", "w4"): (4, 5),
    }


def test_what_is_cut_is_cut_in_both_branches():
    model = Traced(branches())
    gone = model.gone(model.roots[::3])
    for feed in both_ways(model.document.proto):
        cut, masked = model.cut(gone).proto, model.masked(gone).proto
        assert_outputs_agree(masked, cut, feed, rtol=1e-4, atol=1e-5)


def test_the_command_prunes_what_lies_in_bodies(tmp_path):
    path, data, out = (str(tmp_path / name) for name in ("m.onnx", "x.npz", "out.onnx"))
    onnx.save(same_names_in_branches(), path)
    rows = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    np.savez(data, x=rows)
    prune = f"prune {path} --data {data} -o {out} --granularity channel --ratio .5 --round-to 1 -q"
    assert main(prune.split()) == 0
    after = sizes(onnx.load(out))
    assert (after["", "w1"], after["y.else_branch", "w4"]) == ((6, 4), (4, 5))


def test_the_command_prunes_weights_that_a_loop_hands_to_its_body(tmp_path):
    path, data, out = (str(tmp_path / name) for name in ("m.onnx", "x.npz", "out.onnx"))
    onnx.save(handed_by_a_scan(), path)
    rows = np.random.default_rng(0).standard_normal((32, 6, 4)).astype(np.float32)
    np.savez(data, x=rows)
    prune = f"prune {path} --data {data} -o {out} --granularity channel --ratio .5 --round-to 1 -q"
    assert main(prune.split()) == 0
    after = sizes(onnx.load(out))
    assert [after["", f"w{at}"] for at in range(5)] == [(4, 3), (4, 4), (3, 4), (4, 4), (4, 5)]
    assert after["", "bias"] == (4,)


@pytest.mark.parametrize(
    ("outputs", "stacked", "after"),
    [
        ("h1, last", "", "z = MatMul (h1, last)"),  # in the end
        (
            "h1, _, all",
            ", float[6,6] v",
            "s = ReduceSum (all, zero)  z = MatMul (h1, s)",
        ),  # by step
    ],
)
def test_a_handed_weight_that_is_read_outside_stays(outputs, stacked, after):
    model = build(
        f"""(float[N,6] x) => (float[N,5] y) {{
            {outputs} = Loop (count, , x, w) <body = b (int64 i, bool c, float[N,6] h, float[6,6] v)
                => (bool more, float[N,6] n, float[6,6] v{stacked}) {{
                more = Identity (c)  a = MatMul (h, v)  r = Tanh (a)
                b1 = MatMul (r, w2)  n = Add (h, b1)
            }}>
            {after}  y = MatMul (z, w3)
        }}""",
        count=np.array(2),
        zero=np.array([0]),
        w=random(6, 6),
        w2=random(6, 6, seed=1),
        w3=random(6, 5, seed=2),
    )
    assert Traced(model).roots == []


def test_a_branch_that_does_not_fit_the_data_stays(tmp_path):
    """The other branch wants four rows at once: it cannot be run, and nothing tells its worth."""
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            total = ReduceMax <keepdims = 0> (x)  finite = Less (total, most)
            y = If (finite) <
                then_branch = t () => (float[N,5] a) { h = MatMul (x, w1)  a = MatMul (h, w2) },
                else_branch = e () => (float[N,5] b) {
                    i = MatMul (x, w3)  r = Relu (i)  j = MatMul (r, w4)  k = Tanh (j)
                    four = Reshape (k, rows)  m = MatMul (four, w5)  b = MatMul (m, w6)
                }>
        }""",
        most=np.float32(1e9),
        rows=np.array([-1, 4, 6]),
        w1=random(6, 8),
        w2=random(8, 5, seed=1),
        w3=random(6, 8, seed=2),
        w4=random(8, 6, seed=3),
        w5=random(6, 4, seed=4),
        w6=random(4, 5, seed=5),
    )
    path, data, out = (str(tmp_path / name) for name in ("m.onnx", "x.npz", "out.onnx"))
    onnx.save(model, path)
    np.savez(data, x=random(5, 6))
    prune = f"prune {path} --data {data} -o {out} --granularity channel --ratio .5 --round-to 1 -q"
    assert main([*prune.split(), "--batch-size", "1"]) == 0
    after = sizes(onnx.load(out))
    assert [after["", f"w{at}"] for at in range(1, 7)] == [
        *((6, 4), (4, 5), (6, 8), (8, 6), (6, 4), (4, 5)),
    ]


@pytest.mark.parametrize("name", ["silero-vad", "silero-vad-outer"])
def test_a_voice_detector_is_followed_in_its_branches(name):
    if not (CORPUS / f"{name}.onnx").exists():
        pytest.skip("needs the corpus: tools/fetch_corpus.py")
    samples = np.random.default_rng(0).standard_normal((1, 512)).astype(np.float32) / 10
    feed = {"input": samples, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}
    model = Traced(onnx.load(CORPUS / f"{name}.onnx"), feed=feed)
    gone = model.gone(np.random.default_rng(1).permutation(model.roots)[::2])
    smaller, masked = model.cut(gone).proto, model.masked(gone).proto
    assert smaller.ByteSize() < 0.8 * model.document.proto.ByteSize()
    assert_outputs_agree(masked, smaller, feed, rtol=1e-3, atol=1e-4)
