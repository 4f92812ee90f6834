"""Compaction from the outside: the command, the flag, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from classifier import cnn, data_file, mlp, written
from text_models import assert_outputs_agree, build, differences, random

from onnx_relief import shrinking
from onnx_relief.cli import main
from onnx_relief.compaction import compact
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.channels.dead import Removal
from onnx_relief.graph.document import load


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
