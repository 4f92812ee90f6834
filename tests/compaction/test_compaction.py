"""Compaction from the outside: the command, the flag, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from classifier import cnn, data_file, mlp, written
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import assert_outputs_agree, build, differences, random

from onnx_relief.cli import main
from onnx_relief.compaction import shrinking
from onnx_relief.compaction.compact import compact
from onnx_relief.compaction.shrinking import shrink
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.channels.dead import Removal
from onnx_relief.graph.document import load
from onnx_relief.graph.save import save
from onnx_relief.graph.sparse_store import store_sparse


def dead_units(model, weight, units):
    """Write zeros into all that some units of a hidden layer get."""
    for tensor in model.graph.initializer:
        if tensor.name == weight:
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[:, units] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, weight))
    return model


def feed(shape=(4, 6)):
    return {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def test_dead_units_of_weights_in_sparse_form_are_cut(tmp_path):
    dense = written(tmp_path, dead_units(mlp(), "w1", [1, 3]))
    model, out = tmp_path / "sparse.onnx", tmp_path / "small.onnx"
    proto = onnx.load(dense)
    for tensor in [one for one in proto.graph.initializer if one.name in ("w1", "w2")]:
        proto.graph.initializer.remove(tensor)
        values = onnx.numpy_helper.to_array(tensor).reshape(-1)
        places = np.flatnonzero(values)
        sparse = proto.graph.sparse_initializer.add(dims=tensor.dims)
        sparse.values.CopyFrom(onnx.numpy_helper.from_array(values[places], tensor.name))
        sparse.indices.CopyFrom(onnx.numpy_helper.from_array(places.astype(np.int64), ""))
    onnx.save(proto, model)
    assert main(f"compact {model} -o {out}".split()) == 0
    graph = onnx.load(out).graph
    held = [*graph.initializer, *graph.sparse_initializer]
    assert sorted(list(one.dims) for one in held)[-1] == [6, 3]
    assert_outputs_agree(onnx.load(dense), onnx.load(out), feed(), rtol=1e-5, atol=1e-6)


def test_weights_that_are_mostly_zeros_stay_sparse_when_they_are_cut():
    rng = np.random.default_rng(0)
    array = np.where(rng.random((64, 96)) < 0.03, rng.standard_normal((64, 96)), 0)
    array[:, 20:] = 0
    graph = (
        "(float[N,64] x) => (float[N,5] y) { h = MatMul (x, w)  r = Relu (h)  y = MatMul (r, v) }"
    )
    model = build(graph, w=array.astype(np.float32), v=random(96, 5))
    sparse = store_sparse(load(model))[0]
    found = shrink(sparse, {"x": random(4, 64)}, round_to=1)
    assert found.removed >= 76
    assert len(found.document.proto.graph.sparse_initializer) == 1
    assert_outputs_agree(model, found.document.proto, {"x": random(4, 64)}, rtol=1e-5, atol=1e-5)


def test_the_command_cuts_dead_units_and_says_so(tmp_path, capsys):
    model = written(tmp_path, dead_units(mlp(), "w1", [1, 3]))
    out = tmp_path / "small.onnx"
    assert main(f"compact {model} -o {out} --json".split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["groups"], told["removed"]) == (5, 2)
    assert_outputs_agree(onnx.load(model), onnx.load(out), feed(), rtol=1e-5, atol=1e-6)
    assert {t.name: list(t.dims) for t in onnx.load(out).graph.initializer} == {
        "w1": [6, 3],
        "w2": [3, 3],
    }


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            "",
            "is cut: fewer are dead or unread, if any, than multiples that runtimes like need; --",
        ),
        ("--round-to 1", "is dead or unread\n"),
    ],
)
def test_where_nothing_is_cut_the_command_does_not_say_that_it_is(tmp_path, capsys, flags, told):
    model = written(tmp_path, mlp())
    assert main(f"compact {model} -o {tmp_path / 'same.onnx'} {flags}".split()) == 0
    assert told in capsys.readouterr().out.replace("-\n", "-").replace(" \n", " ")


def test_a_model_without_dead_units_stays_as_it_is():
    found = compact(load(mlp()), feed(), provider="cpu")
    assert found.removed == 0
    assert differences(mlp(), found.document.proto) == []


def test_pruning_with_compact_gives_what_compacting_later_gives(tmp_path):
    model, data = written(tmp_path, cnn()), data_file(tmp_path, shape=(2, 8, 8))
    masked, later, once = (tmp_path / f"{name}.onnx" for name in ("masked", "later", "once"))
    prune = f"prune {model} --data {data} --alpha .35 -q"
    assert main(f"{prune} -o {masked}".split()) == 0
    assert main(f"compact {masked} -o {later} -q".split()) == 0
    assert main(f"{prune} --compact -o {once}".split()) == 0
    assert differences(onnx.load(later), onnx.load(once)) == []
    assert once.stat().st_size < masked.stat().st_size


def test_metadata_names_and_opset_survive():
    model = dead_units(mlp(), "w1", [0])
    model.metadata_props.add(key="labels", value="a,b,c")
    model.graph.node[1].doc_string = "the activation"
    found = compact(load(model), feed(), provider="cpu").document.proto
    assert found.metadata_props == model.metadata_props
    assert found.opset_import == model.opset_import
    assert [node.doc_string for node in found.graph.node] == ["", "the activation", ""]
    assert found.graph.input == model.graph.input
    assert found.graph.output == model.graph.output


def test_a_layer_that_is_dead_altogether_keeps_one_unit():
    model = dead_units(mlp(), "w1", slice(None))
    found = compact(load(model), feed(), provider="cpu").document.proto
    assert list(found.graph.initializer[0].dims) == [6, 1]
    assert_outputs_agree(model, found, feed(), rtol=0, atol=0)


def test_a_cut_that_would_change_an_output_is_refused(monkeypatch):
    wrong = np.array([False, True] + [False] * 8)
    monkeypatch.setattr(shrinking, "removable", lambda *_: Removal(wrong))
    with pytest.raises(UnsupportedError, match=r"output 'y' would differ by"):
        compact(load(mlp()), feed(), provider="cpu")


def test_models_that_draw_random_numbers_are_cut_where_a_bias_is_put_in():
    graph = """(float[N,6] x) => (float[N,3] y) { h = MatMul (x, v)  a = Add (h, b)  r = Relu (a)
        m = MatMul (r, w)  n = RandomNormalLike (m)  y = Add (m, n) }"""
    parts = {"v": random(6, 16, seed=1), "w": random(16, 3, seed=2), "b": np.ones(16, np.float32)}
    model = dead_units(build(graph, **parts), "v", [1, 5, 7])
    found = compact(load(model), feed(), provider="cpu", round_to=1)
    assert found.removed == 3
    assert [node.op_type for node in found.document.proto.graph.node].index("RandomNormalLike") == 5
    assert found.difference < 1e-5


def test_nothing_is_written_where_shapes_are_not_known(tmp_path, capsys):
    graph = "(float[N,T] x) => (float[N,3] y) { y = MatMul (x, w) }"
    model, out = written(tmp_path, build(graph, w=random(6, 3))), tmp_path / "small.onnx"
    assert main(f"compact {model} -o {out}".split()) == 2
    assert "--shape" in capsys.readouterr().err
    assert not out.exists()
    assert main(f"compact {model} -o {out} --shape x=2x6".split()) == 0


def test_retrained_and_iterated_models_can_be_compacted_at_once(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs the extra [retrain]")
    monkeypatch.chdir(tmp_path)
    written(tmp_path, dead_units(mlp(), "w1", [1, 3]))
    data_file(tmp_path)
    training = "model.onnx --data data.npz --epochs 1 --batch-size 8 -q"
    assert main(f"retrain {training} --compact -o small.onnx".split()) == 0
    assert main(f"iterate {training} --iterations 1 --alpha .9 --compact".split()) == 0
    small = onnx.load("small.onnx").graph.initializer[0]
    best = onnx.load("model.iterate/best.compact.onnx").graph.initializer[0]
    assert list(small.dims) == [6, 3]
    assert list(best.dims)[1] <= 3


def wide(units, dead, seed=0):
    """Return a chain of layers with so many units, of which some are dead."""
    rng = np.random.default_rng(seed)
    first, second = random(6, units), random(units, units, seed=1)
    first[:, rng.choice(units, dead, replace=False)] = 0
    second[:, rng.choice(units, dead, replace=False)] = 0
    text = """(float[N,6] x) => (float[N,3] y) {
        a = MatMul (x, w1)  r = Relu (a)  b = MatMul (r, w2)  s = Relu (b)  y = MatMul (s, w3)
    }"""
    return build(text, w1=first, w2=second, w3=random(units, 3, seed=2))


def widths(document):
    return [tensor.dims[1] for tensor in document.proto.graph.initializer]


@pytest.mark.parametrize(
    ("round_to", "left"), [(1, 29), (4, 32), (5, 30), (8, 32), (64, 64), (None, 32)]
)
def test_some_dead_units_stay_so_that_widths_are_multiples(round_to, left):
    found = compact(load(wide(64, 35)), feed(), provider="cpu", round_to=round_to)
    assert widths(found.document) == [left, left, 3]
    again = compact(found.document, feed(), provider="cpu", round_to=round_to)
    assert again.document.proto.SerializeToString() == found.document.proto.SerializeToString()


@given(units=st.integers(1, 70), share=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_auto_rounds_by_a_quarter_at_most_and_only_once(units, share):
    model = wide(units, min(units - 1, int(share * units)))
    exact = widths(shrink(load(model), feed(), round_to=1).document)
    auto = shrink(load(model), feed()).document
    for needed, left in zip(exact[:2], widths(auto)[:2], strict=True):
        assert needed <= left <= max(needed * 1.25, 1)
    assert widths(shrink(auto, feed()).document) == widths(auto)


@given(seed=st.integers(0, 1 << 16))
@settings(max_examples=15, deadline=None)
def test_nine_tenths_of_zeros_and_compacted_is_no_bigger_file(seed):
    rng = np.random.default_rng(seed)

    def mostly_zero(*shape):
        some = rng.random(shape) < 0.1
        some &= (rng.random(shape[0]) < rng.random()).reshape(-1, *[1] * (len(shape) - 1))
        return np.where(some, random(*shape, seed=seed), 0).astype(np.float32)

    model = build(
        """(float[N,2,6,6] x) => (float[N,3] y) {
            a = Conv (x, k0, b0)  r = Relu (a)  c = Conv <group = 2> (r, k1)  s = Sigmoid (c)
            f = Flatten (s)  h = MatMul (f, w1)  g = Tanh (h)  y = Gemm (g, w2)
        }""",
        k0=mostly_zero(4, 2, 3, 3),
        b0=random(4),
        k1=mostly_zero(6, 2, 3, 3),
        w1=np.ascontiguousarray(mostly_zero(5, 24).T),
        w2=mostly_zero(5, 3),
    )
    found = compact(load(model), feed((2, 2, 6, 6)), provider="cpu")
    assert found.document.proto.ByteSize() <= model.ByteSize()


def test_inspect_predicts_what_compact_leaves(tmp_path, capsys):
    model, out = written(tmp_path, wide(64, 35)), tmp_path / "small.onnx"
    assert main(f"inspect {model} --json".split()) == 0
    predicted = json.loads(capsys.readouterr().out)["after_compaction"]
    assert main(f"inspect {model}".split()) == 0
    line = f"after compaction: {predicted['parameters']:,} parameters, 1,312 MACs"
    assert line in capsys.readouterr().out
    assert main(f"compact {model} -o {out} -q".split()) == 0
    assert main(f"inspect {out} --json".split()) == 0
    after = json.loads(capsys.readouterr().out)
    assert (after["cost"]["parameters"], after["macs"]) == (
        predicted["parameters"],
        predicted["macs"],
    )
    assert predicted["unknown"] is None


def test_inspect_says_why_it_cannot_predict_and_nothing_of_dense_models(tmp_path, capsys):
    graph = "(float[N,T] x) => (float[N,3] y) { y = MatMul (x, w) }"
    masked = random(6, 3)
    masked[2] = 0
    assert main(f"inspect {written(tmp_path, build(graph, w=masked))}".split()) == 0
    assert "after compaction: not known, an input has a free size" in capsys.readouterr().out
    assert main(f"inspect {written(tmp_path, mlp())} --json".split()) == 0
    assert json.loads(capsys.readouterr().out)["after_compaction"] is None


def test_a_model_with_a_data_file_becomes_one_file_that_is_smaller(tmp_path):
    """A data file would be saved whole, with the bytes of all that was cut."""
    model, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    proto = wide(64, 35)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(random(3), "bias"))
    proto.graph.node[-1].output[0] = "h"
    proto.graph.node.append(onnx.helper.make_node("Add", ["h", "bias"], ["y"]))
    onnx.save_model(
        proto, model, save_as_external_data=True, location="model.bin", size_threshold=0
    )
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    found = compact(load(model), feed(), provider="cpu")
    assert not found.document.has_external_data
    save(found.document, small)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.bin", "small.onnx"}
    assert small.stat().st_size < before / 2
    assert_outputs_agree(onnx.load(model), onnx.load(small), feed(), rtol=1e-5, atol=1e-6)


def test_a_dense_model_with_a_data_file_stays_as_it_is(tmp_path):
    model = tmp_path / "model.onnx"
    onnx.save_model(
        mlp(), model, save_as_external_data=True, location="model.bin", size_threshold=0
    )
    document = load(model)
    found = compact(document, feed(), provider="cpu").document
    assert found.proto.SerializeToString() == document.proto.SerializeToString()
