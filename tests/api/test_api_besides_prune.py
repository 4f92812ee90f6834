"""The Python API of `inspect`, `evaluate`, `compare`, `compact` and `prune_channels`."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from classifier import cnn, data_file, mlp, samples, weights, written
from text_models import build, differences, random, run

import onnx_relief as relief
from onnx_relief.cli import main


def test_inspect_tells_layers_and_their_readers():
    found = relief.inspect(mlp())
    assert [layer.name for layer in found.layers] == ["first", "second"]
    assert found.layers[0].readers == ("second",)
    assert found.cost.macs == 45
    assert json.loads(found.to_json())["layers"][0]["cost"]["weights"] == 30


def test_inspect_takes_data_instead_of_a_shape():
    graph = "(float[N,2,H,W] x) => (float[N,4,A,B] y) { y = Conv (x, k) }"
    model = build(graph, k=random(4, 2, 3, 3))
    assert relief.inspect(model).cost.macs is None
    assert relief.inspect(model, samples(shape=(2, 5, 5))).cost.macs == 72 * 9


def test_evaluate_judges_one_model_or_two():
    alone = relief.evaluate(mlp(), samples())
    beside = relief.evaluate(mlp(), samples(), against=mlp())
    assert alone.value == beside.dense == beside.pruned


def test_compare_without_data_tells_sizes():
    found = relief.compare(mlp(), mlp(w1=random(6, 5) * 0))
    assert (found.evaluation, found.latency) == (None, None)
    assert (found.first.nonzero, found.second.nonzero) == (45, 15)
    assert json.loads(found.to_json())["second"]["effective_macs"] == 15


def test_compare_with_data_tells_differences():
    found = relief.compare(mlp(), mlp(w2=random(5, 3, seed=9)), samples())
    assert found.evaluation.differences[0].largest > 0
    assert len(found.latency.timings) == 2


def half_dead():
    """Return a model of which half of the hidden units are dead."""
    model = mlp()
    tensor = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[:, ::2] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model


def test_compacting_in_python_is_what_the_command_does(tmp_path):
    model = half_dead()
    found = relief.compact(model, round_to=1)
    assert model.SerializeToString() == half_dead().SerializeToString()
    assert found.removed == 3
    feed = {"x": samples()["x"]}
    np.testing.assert_allclose(run(found.model, feed)[0], run(model, feed)[0], rtol=1e-5, atol=1e-6)
    found.save(tmp_path / "small.onnx")
    path = written(tmp_path, model)
    assert main(f"compact {path} -o {tmp_path / 'told.onnx'} --round-to 1 -q".split()) == 0
    assert (tmp_path / "told.onnx").read_bytes() == (tmp_path / "small.onnx").read_bytes()
    assert differences(relief.compact(path, samples(), round_to=1).model, found.model) == []


def test_compacting_needs_to_know_sizes():
    model = build("(float[N,T] x) => (float[N,3] y) { y = MatMul (x, w) }", w=random(6, 3))
    with pytest.raises(relief.DataError, match="cannot be made up"):
        relief.compact(model)
    assert relief.compact(model, shapes={"x": (2, 6)}).removed == 0


def test_cutting_channels_in_python_is_what_the_command_does(tmp_path, capsys):
    path, data = written(tmp_path, cnn()), data_file(tmp_path, shape=(2, 8, 8))
    found = relief.prune_channels(path, data, ratio=0.5, round_to=1, repair="none")
    found.save(tmp_path / "small.onnx")
    report, told = tmp_path / "report.json", tmp_path / "told.onnx"
    line = f"prune {path} --data {data} --granularity channel --ratio .5 --round-to 1 --repair none"
    assert main(f"{line} -o {told} --report {report} --json".split()) == 0
    assert told.read_bytes() == (tmp_path / "small.onnx").read_bytes()
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(report.read_text()) == printed
    assert (printed["groups"], printed["removed"]) == (found.groups, found.removed)
    assert sum(w.size for w in weights(found.model).values()) < sum(
        w.size for w in weights(path).values()
    )


def test_weights_that_are_joined_at_run_time_are_work_in_both_models():
    parts = {"a": random(6, 2, seed=1), "b": random(6, 3, seed=2), "v": random(5, 4, seed=3)}
    joined = build(
        """(float[N,6] x) => (float[N,4] y) {
            w = Concat <axis = 1> (a, b)  h = MatMul (x, w)  y = MatMul (h, v)
        }""",
        **parts,
    )
    whole = build(
        "(float[N,6] x) => (float[N,4] y) { h = MatMul (x, w)  y = MatMul (h, v) }",
        w=np.concatenate([parts["a"], parts["b"]], axis=1),
        v=parts["v"],
    )
    found = relief.compare(joined, whole, shapes={"x": (1, 6)})
    assert (found.first.macs, found.second.macs) == (50, 50)
    assert (found.first.parameters, found.second.parameters) == (50, 50)
