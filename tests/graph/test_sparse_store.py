"""Sparse storage: smaller files for ONNX Runtime, and nothing else changes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from classifier import written
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from text_models import build, random, run

from onnx_relief import prune
from onnx_relief.cli import main
from onnx_relief.compaction.compact import compact
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import check, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.sparse_store import store_sparse


def sparse(*shape, density=0.05, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, random(*shape, seed=seed), 0).astype(dtype)


def classifier(weight, kind="float", **settings):
    text = f"({kind}[N,{weight.shape[0]}] x) => ({kind}[N,{weight.shape[1]}] y) "
    return build(text + "{ y = MatMul (x, w) }", w=weight, **settings)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    density=st.floats(0, 1),
    kind=st.sampled_from([("float", np.float32), ("float16", np.float16), ("double", np.float64)]),
    ir=st.integers(4, 10),
)
def test_it_is_the_same_model_in_onnx_runtime_and_never_a_bigger_file(
    rows, columns, density, kind, ir
):
    weight = sparse(rows, columns, density=density, dtype=kind[1])
    model = classifier(weight, kind[0], opset=13, ir=ir)
    document, count = store_sparse(load(model))
    check(document)
    small = document.proto.ByteSize()
    assert small < model.ByteSize() if count else small == model.ByteSize()
    feed = {"x": random(2, rows, dtype=kind[1])}
    assert np.array_equal(run(model, feed)[0], run(document.proto, feed)[0])
    survey = find_layers(document)
    assert np.array_equal(survey.constants.array(survey.model.scopes[0], "w"), weight)


def test_only_very_sparse_weights_change_and_nothing_else():
    model = build(
        "(float[N,40] x) => (float[N,30] y) { h = MatMul (x, w) y = Add (h, b) }",
        w=sparse(40, 30),
        b=random(30),
    )
    model.metadata_props.add(key="labels", value="a,b")
    model.graph.initializer[0].doc_string = "trained"
    stored = store_sparse(load(model))[0].proto
    (one,) = stored.graph.sparse_initializer
    assert (one.values.name, one.values.doc_string, list(one.dims)) == ("w", "trained", [40, 30])
    assert [tensor.name for tensor in stored.graph.initializer] == ["b"]
    del stored.graph.sparse_initializer[:]
    stored.graph.initializer.insert(0, model.graph.initializer[0])
    assert stored.SerializeToString() == model.SerializeToString()


def test_negative_zeros_stay_negative():
    weight = sparse(40, 30)
    weight[0, 0] = -0.0
    document, _ = store_sparse(load(classifier(weight)))
    survey = find_layers(document)
    assert np.signbit(survey.constants.array(survey.model.scopes[0], "w")[0, 0])


def test_what_an_input_may_replace_or_a_body_reads_stays_dense():
    old = classifier(sparse(40, 30), ir=8)
    old.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [40, 30]))
    inner = build(
        """(float[N,40] x, bool c) => (float[N,30] y) {
            y = If (c) <then_branch = t () => (float[N,30] a) { a = MatMul (x, w) },
                        else_branch = e () => (float[N,30] b) { b = MatMul (x, w) }>
        }""",
        w=sparse(40, 30),
    )
    for model in (old, inner):
        document = load(model)
        assert store_sparse(document) == (document, 0)


def test_a_sparse_model_can_be_masked_again_and_compacted():
    model = classifier(sparse(40, 30))
    stored = store_sparse(load(model))[0]
    found = prune(stored.proto, {"x": random(8, 40)}, alpha=0.8)
    assert found.plan.layers[0].layer
    again = compact(found.document, {"x": random(2, 40)}, provider="cpu", sparse=True)
    assert again.document.proto.graph.sparse_initializer[0].values.name == "w"
    assert again.difference <= 1e-6


@pytest.fixture(name="folder")
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, classifier(random(40, 30)))
    np.savez(tmp_path / "data.npz", x=random(16, 40))


@pytest.mark.usefixtures("folder")
def test_the_flag_of_prune_and_of_compact(capsys):
    pruning = "prune model.onnx --data data.npz --alpha .15 -q"
    assert main(f"{pruning} -o dense.onnx".split()) == 0
    assert main(f"{pruning} --store sparse -o sparse.onnx".split()) == 0
    dense, small = onnx.load("dense.onnx"), onnx.load("sparse.onnx")
    assert [one.values.name for one in small.graph.sparse_initializer] == ["w"]
    assert small.ByteSize() < dense.ByteSize()
    feed = {"x": random(3, 40)}
    assert np.array_equal(run(dense, feed)[0], run(small, feed)[0])
    assert main(["compact", "dense.onnx", "--store", "sparse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sparse"] == 1
    assert onnx.load("dense.compact.onnx").graph.sparse_initializer
    result = prune("model.onnx", "data.npz", alpha=0.15, store="sparse")
    assert result.model.graph.sparse_initializer == small.graph.sparse_initializer


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "line",
    [
        "prune model.onnx --data data.npz --store thin",
        "prune model.onnx --data data.npz --granularity channel --store sparse",
        "compact model.onnx --store thin",
        "compact model.onnx --round-to 0",
        "prune model.onnx --data data.npz --compact --round-to some",
    ],
)
def test_what_makes_no_sense_is_refused(line, capsys):
    assert main(line.split()) == 2
    told = capsys.readouterr().err
    assert "--store" in told or "--round-to" in told


def test_the_api_refuses_it_too():
    with pytest.raises(SettingsError, match="--store 'thin'"):
        prune(classifier(random(4, 3)), {"x": random(8, 4)}, store="thin")


def test_a_tensor_of_zeros_stays_as_it_is():
    document = load(classifier(np.zeros((40, 30), np.float32)))
    assert store_sparse(document) == (document, 0)
    assert numpy_helper.to_array(document.proto.graph.initializer[0]).sum() == 0
