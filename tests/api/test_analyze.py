"""`analyze`: laws of sensitivity, and that neither processes nor interruptions change anything."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from classifier import cnn, mlp, samples
from hypothesis import given
from hypothesis import strategies as st
from text_models import build, random

import onnx_relief as relief
from onnx_relief.analysis import CHANNELS, LAYER, Analysis
from onnx_relief.budget import Budget
from onnx_relief.comparing.divergence import Divergence
from onnx_relief.comparing.evaluation import evaluate_model
from onnx_relief.comparing.surprise import Surprise
from onnx_relief.data import open_data
from onnx_relief.errors import (
    DataError,
    ModelError,
    OutputError,
    SettingsError,
    UnsupportedError,
)
from onnx_relief.graph.document import input_specs, load
from onnx_relief.pipeline import prune
from onnx_relief.settings import Settings
from onnx_relief.structures import WEIGHT, parse_structure

SHARES = (0.0, 0.5, 0.9)
PICTURES = samples(shape=(2, 8, 8))


def tried(model, data, **options):
    return relief.analyze(model, data, **{"sparsities": SHARES, **options})


@pytest.fixture(name="found", scope="module")
def an_analysis():
    return tried(cnn(), PICTURES, granularity="weight,channel")


def test_every_layer_and_kind_of_channels_is_tried_at_every_share(found):
    assert found.names(LAYER) == ("conv", "fc")
    assert found.names(CHANNELS) == ("units of conv",)
    for kind in (LAYER, CHANNELS):
        for name in found.names(kind):
            assert [row.sparsity for row in found.rows(kind, name)] == list(SHARES)


def test_units_of_a_recurrent_layer_are_called_by_it():
    graph = """(float[T,N,4] x) => (float[N,5] y) {
        [memory] , h = GRU <hidden_size = 6> (x, w, r)  s = Squeeze (h, first)  y = MatMul (s, w1)
    }"""
    weights = {"w": random(1, 18, 4), "r": random(1, 18, 6, seed=1), "w1": random(6, 5, seed=2)}
    model = build(graph, first=np.array([0]), **weights)
    feeds = [{"x": random(3, 2, 4, seed=seed)} for seed in range(8)]
    found = relief.analyze(model, feeds, sparsities=[0.5], granularity="channel")
    assert found.names(CHANNELS) == ("units of memory",)


def test_a_part_that_loses_nothing_leaves_the_model_as_it_is(found):
    unpruned = [row for row in found.trials if row.sparsity == 0]
    assert len(unpruned) == 4
    for row in unpruned:
        assert (row.kept, row.score, row.distance) == (1.0, found.dense, 0.0)


@pytest.mark.parametrize("criterion", ["relief", "obs"])
def test_a_trial_is_the_model_with_this_layer_pruned(criterion):
    dense = load(cnn())
    data = open_data(PICTURES, input_specs(dense.proto))
    settings = Settings(
        criterion=criterion,
        structure=WEIGHT,
        budget=Budget(sparsity=0.5),
        only=("conv",),
    )
    alone = prune(dense, data, settings).document
    found = tried(cnn(), PICTURES, granularity="weight", criterion=criterion)
    row = found.rows(LAYER, "conv")[1]
    assert row.kept == 0.5
    assert row.score == evaluate_model(alone, data).value
    assert row.distance == Divergence(dense, data, batch_size=16).of(alone) > 0


@pytest.mark.parametrize("criterion", ["magnitude", "obs"])
def test_a_pattern_is_tried_once_on_every_layer(criterion):
    dense = load(cnn())
    data = open_data(PICTURES, input_specs(dense.proto))
    settings = Settings(
        criterion=criterion,
        structure=parse_structure("1:2"),
        only=("conv",),
    )
    alone = prune(dense, data, settings).document
    options = {"granularity": "1:2,channel", "criterion": criterion, "sparsities": (0.75,)}
    found = tried(cnn(), PICTURES, **options)
    assert found.names(LAYER) == ("conv", "fc")
    for name in found.names(LAYER):
        assert [(row.sparsity, row.kept) for row in found.rows(LAYER, name)] == [(0.5, 0.5)]
    assert found.rows(LAYER, "conv")[0].distance == Divergence(dense, data, batch_size=16).of(alone)
    assert [row.sparsity for row in found.rows(CHANNELS, "units of conv")] == [0.75]
    assert found.sparsities == (0.5, 0.75)
    (note,) = found.notes
    assert note == "layers lose 1 of every 2 inputs, whatever --sparsities says"


def test_processes_find_what_one_process_finds(found):
    assert tried(cnn(), PICTURES, granularity="weight,channel", jobs=2) == found


@pytest.mark.parametrize("criterion", ["relief", "magnitude", "wanda", "obs", "random"])
def test_what_a_trial_needs_can_be_sent_to_another_process(criterion, monkeypatch):
    def through_bytes(bench, tasks):
        other = pickle.loads(pickle.dumps(bench))
        for task in tasks:
            yield other.row(pickle.loads(pickle.dumps(task)))

    alone = tried(mlp(), samples(), criterion=criterion)
    monkeypatch.setattr("onnx_relief.api.analyze.in_processes", lambda _jobs: through_bytes)
    assert tried(mlp(), samples(), criterion=criterion) == alone


def test_the_order_of_trials_changes_nothing(monkeypatch, found):
    def backwards(bench, tasks):
        for task in reversed(list(tasks)):
            yield bench.row(task)

    monkeypatch.setattr("onnx_relief.api.analyze.in_processes", lambda _jobs: backwards)
    assert tried(cnn(), PICTURES, granularity="weight,channel") == found


def test_a_run_that_stops_goes_on_where_it_was(tmp_path, found):
    """Whatever the number of trials that were finished; nothing is tried twice."""
    seen = []

    def stop_after(number):
        def count(row):
            seen.append(row.key)
            if len(seen) % number == 0:
                raise KeyboardInterrupt

        return count

    folder = tmp_path / "run"
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            tried(cnn(), PICTURES, granularity="weight,channel", run=folder, on_trial=stop_after(3))
    again = tried(
        cnn(), PICTURES, granularity="weight,channel", run=folder, on_trial=stop_after(99)
    )
    assert again == found
    assert len(seen) == len(set(seen)) == len(found.trials)


def test_a_half_written_line_does_not_count(tmp_path, found):
    folder = tmp_path / "run"
    assert tried(cnn(), PICTURES, granularity="weight,channel", run=folder) == found
    file = folder / "trials.jsonl"
    whole = file.read_bytes()
    for cut in (1, 20, len(whole) // 2):
        file.write_bytes(whole[:-cut])
        assert tried(cnn(), PICTURES, granularity="weight,channel", run=folder) == found
        assert len(file.read_bytes().splitlines()) == len(whole.splitlines())


def test_more_shares_are_added_to_a_run(tmp_path):
    folder, rows = tmp_path / "run", []
    tried(mlp(), samples(), run=folder)
    more = tried(mlp(), samples(), run=folder, sparsities=(0.5, 0.7), on_trial=rows.append)
    assert {row.sparsity for row in rows} == {0.7}
    assert more == tried(mlp(), samples(), sparsities=(0.5, 0.7))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"model": mlp(w1=random(6, 5, seed=9))}, "MODEL has other contents"),
        ({"data": {**samples(), "x": samples()["x"] + 1}}, "--data has other contents"),
        ({"data": samples(41)}, 'instead of "the data (41 samples'),
        ({"samples": 20}, '--data is "the data (40 samples'),
        ({"criterion": "magnitude"}, '--criterion is "obs" instead of "magnitude"'),
        ({"granularity": "weight"}, "--granularity is"),
        ({"metric": "kl"}, "--metric is"),
        ({"skip": ("first",)}, "--skip is"),
        ({"memory": 10_000_000}, "--memory is"),
    ],
)
def test_another_analysis_is_not_gone_on_with(tmp_path, changed, what):
    folder = tmp_path / "run"
    tried(mlp(), samples(), run=folder)
    before = (folder / "trials.jsonl").read_bytes()
    said = {"model": mlp(), "data": samples(), **changed}
    with pytest.raises(SettingsError, match="holds another analysis") as refused:
        tried(**said, run=folder)
    assert what in str(refused.value)
    assert (folder / "trials.jsonl").read_bytes() == before
    assert tried(**said, run=folder, restart=True) == tried(**said)


def test_a_run_among_other_files_is_not_begun_anew(tmp_path):
    folder = tmp_path / "run"
    tried(mlp(), samples(), run=folder)
    (folder / "notes.txt").touch()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match=r"other files, for example notes\.txt"):
        tried(mlp(), samples(), run=folder, restart=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("line", ["{", "[]", '{"kind": "layer"}', '{"a":' * 3000, "null"])
def test_a_damaged_line_is_said(tmp_path, line):
    folder = tmp_path / "run"
    tried(mlp(), samples(), run=folder)
    file = folder / "trials.jsonl"
    file.write_text("\n".join([*file.read_text().splitlines()[:2], line, ""]))
    with pytest.raises(SettingsError, match=r"trials.jsonl is damaged; begin anew with --restart"):
        tried(mlp(), samples(), run=folder)


@pytest.mark.parametrize("digests", [[1], None, "text"])
def test_a_damaged_first_line_is_said(tmp_path, digests):
    file = tmp_path / "run" / "trials.jsonl"
    tried(mlp(), samples(), run=file.parent)
    said, *rows = file.read_text().splitlines(keepends=True)
    file.write_text("".join([json.dumps(json.loads(said) | {"digests": digests}), "\n", *rows]))
    with pytest.raises(SettingsError, match=r"trials.jsonl is damaged; begin anew with --restart"):
        tried(mlp(), samples(), run=file.parent)


def test_a_number_beyond_all_floats_is_damage(tmp_path):
    file = tmp_path / "run" / "trials.jsonl"
    found = tried(mlp(), samples(), run=file.parent)
    huge = json.loads(found.to_json()) | {"sparsities": [10**400]}
    with pytest.raises(SettingsError, match="it is no analysis"):
        Analysis.from_json(json.dumps(huge))
    *lines, last = file.read_text().splitlines()
    row = json.dumps(json.loads(last) | {"score": 10**400})
    file.write_text("\n".join([*lines, row, ""]))
    with pytest.raises(SettingsError, match=r"trials.jsonl is damaged"):
        tried(mlp(), samples(), run=file.parent)


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="holds other files"):
        tried(mlp(), samples(), run=tmp_path)
    with pytest.raises(OutputError, match="holds no analysis, so it is left alone"):
        tried(mlp(), samples(), run=tmp_path, restart=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_fails_at_once_leaves_no_folder(tmp_path):
    with pytest.raises(SettingsError, match="matches no layer"):
        tried(mlp(), samples(), only=("nothing",), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_labels_the_outputs_are_compared():
    found = tried(mlp(), samples(labelled=False))
    assert (found.metric, found.dense) == ("divergence", 0.0)
    for name in found.names(LAYER):
        lost = [row.score for row in found.rows(LAYER, name)]
        assert lost[0] == 0.0
        assert max(lost) > 0


def test_scores_of_classes_are_compared_by_kl():
    found = tried(mlp(), samples(labelled=False), metric="kl", granularity="weight")
    assert found.dense == pytest.approx(0, abs=1e-12)
    assert all(row.score >= 0 for row in found.trials)
    assert found.rows(LAYER, "second")[-1].score > 0


@given(st.integers(0, 2**32 - 1))
def test_kl_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((2, 6, 3)).astype(np.float32)
    first, second = (
        build("(float[N,6] x) => (float[N,3] y) { [l] y = MatMul (x, w) }", w=w) for w in weight
    )
    x = rng.standard_normal((5, 6)).astype(np.float32)
    dense = load(first)
    data = open_data({"x": x}, input_specs(dense.proto))
    p, q = (np.exp(x.astype(float) @ w) for w in weight.astype(float))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    expected = (p * np.log(p / q)).sum(axis=1).mean()
    assert Surprise(dense, data, batch_size=2).of(load(second)) == pytest.approx(expected, rel=1e-4)


def test_a_softmax_in_the_model_changes_nothing_about_kl():
    graph = "(float[N,6] x) => (float[N,3] y) { [l] h = MatMul (x, w)  y = Softmax (h) }"
    plain = "(float[N,6] x) => (float[N,3] y) { [l] y = MatMul (x, w) }"
    x = samples()["x"]
    found = []
    for text in (graph, plain):
        dense, other = (load(build(text, w=random(6, 3, seed=s))) for s in (1, 2))
        data = open_data({"x": x}, input_specs(dense.proto))
        found.append(Surprise(dense, data, batch_size=8).of(other))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"sparsities": ()}, SettingsError, "--sparsities are shares"),
        ({"sparsities": (1.0,)}, SettingsError, "--sparsities are shares"),
        ({"sparsities": (float("nan"),)}, SettingsError, "--sparsities are shares"),
        ({"metric": "guess"}, SettingsError, "choose one of .* divergence, kl"),
        ({"granularity": "weight,row"}, SettingsError, "several ways to prune a layer"),
        ({"granularity": "brick"}, SettingsError, "does not exist"),
        ({"granularity": "7x7"}, UnsupportedError, "no layer that divides into 7x7"),
        ({"criterion": "luck"}, SettingsError, "--criterion 'luck' does not exist"),
        ({"jobs": 0}, SettingsError, "--jobs must be at least 1"),
        ({"eval_data": {"x": np.zeros((3, 7), np.float32)}}, DataError, "x"),
        ({"provider": "abacus"}, SettingsError, "--provider abacus"),
    ],
)
def test_bad_choices_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        tried(mlp(), samples(), **options)


def test_kl_needs_classes():
    model = build("(float[N,6] x) => (float[N,1] y) { [l] y = MatMul (x, w) }", w=random(6, 1))
    with pytest.raises(SettingsError, match="--metric kl needs an output"):
        tried(model, samples(labelled=False), metric="kl")


def test_a_model_without_layers_has_nothing_to_try():
    model = build("(float[N,6] x) => (float[N,6] y) { y = Relu (x) }")
    with pytest.raises(UnsupportedError, match="no layer that can be pruned"):
        tried(model, samples(labelled=False))
    with pytest.raises(ModelError, match=r"nowhere.onnx"):
        tried("nowhere.onnx", samples())


def test_channels_that_cannot_be_cut_are_said_and_layers_tried():
    model = build("(float[N,6] x) => (float[N,3] y) { [l] y = MatMul (x, w) }", w=random(6, 3))
    found = tried(model, samples())
    assert found.names(LAYER) == ("l",)
    assert any("no channels are tried" in note for note in found.notes)
    with pytest.raises(UnsupportedError, match="no channels that could go"):
        tried(model, samples(), granularity="channel")


def test_json_says_everything_and_is_read_again(found):
    assert Analysis.from_json(found.to_json()) == found
    assert json.loads(found.to_json())["dense"] == found.dense


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"format": "onnx-relief analysis 1"}', '{"a":' * 5000]
)
def test_other_files_are_no_analysis(text):
    with pytest.raises(SettingsError, match="it is no analysis"):
        Analysis.from_json(text)
