"""The Python API: the same as the command line, with values, and without changing anything."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from classifier import cnn, data_file, mlp, samples, weights, written
from small_classifier_outside import outside_model
from text_models import build, differences, random, run

import onnx_relief as relief
from onnx_relief.graph.document import Document
from onnx_relief.graph.origin import DIGEST_KEY, FILE_KEY

PUBLIC = [
    "Analysis",
    "ChannelsPruned",
    "Compacted",
    "Comparison",
    "DataError",
    "EpochRow",
    "Evaluation",
    "Inspection",
    "Iterated",
    "IterationRow",
    "ModelError",
    "OutputError",
    "Preprocess",
    "PrunePlan",
    "ReliefError",
    "Report",
    "Result",
    "RetrainResult",
    "SettingsError",
    "TargetError",
    "TrainSettings",
    "TrialRow",
    "UnsupportedError",
    "__version__",
    "analyze",
    "compact",
    "compare",
    "evaluate",
    "from_torch",
    "inspect",
    "iterate",
    "prune",
    "prune_channels",
    "retrain",
    "to_torch",
]  # fmt: skip


def in_fresh_python(code):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout.strip()


def test_public_names():
    assert relief.__all__ == PUBLIC == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(relief, name) is not None
    assert set(dir(relief)) == set(PUBLIC)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'prunes'"):
        relief.prunes  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'onnxruntime', 'torch', 'onnx', 'numpy'}"
    code = f"import sys, onnx_relief; print(*{heavy} & {{*sys.modules}})"
    assert in_fresh_python(code) == ""


def test_nothing_but_a_run_imports_the_runtime():
    code = """
import sys, onnx_relief
for name in onnx_relief.__all__: getattr(onnx_relief, name)
import onnx_relief.cli
print(*{'onnxruntime', 'torch'} & {*sys.modules})"""
    assert in_fresh_python(code) == ""


@pytest.fixture(scope="module")
def result():
    return relief.prune(mlp(), samples(), alpha=0.8)


def test_pruning_writes_zeros_and_nothing_else(result):
    before, after = weights(mlp()), weights(result.model)
    assert before.keys() == after.keys()
    for name, values in after.items():
        kept = values != 0
        assert not kept.all()
        np.testing.assert_array_equal(values[kept], before[name][kept])
    assert result.report.pruned.nonzero == sum(np.count_nonzero(v) for v in after.values())


def test_the_plan_is_what_the_model_holds(result):
    for entry, name in zip(result.plan, ("w1", "w2"), strict=True):
        np.testing.assert_array_equal(entry.keep[0][:, :, 0].T, weights(result.model)[name] != 0)


def test_the_report_tells_what_numpy_tells(result):
    data = samples()
    scores = [
        100 * (run(model, {"x": data["x"]})[0].argmax(1) == data["labels"]).mean()
        for model in (mlp(), result.model)
    ]
    found = result.report.evaluation
    assert (found.dense, found.pruned) == (pytest.approx(scores[0]), pytest.approx(scores[1]))
    assert result.report.data.same
    assert result.report.dense.macs == 45


def test_the_model_given_is_not_changed():
    model = mlp()
    before = model.SerializeToString()
    relief.prune(model, samples(), alpha=0.5)
    relief.inspect(model)
    relief.evaluate(model, samples())
    relief.compare(model, model, samples())
    assert model.SerializeToString() == before


def test_at_alpha_1_nothing_at_all_changes():
    graph = """(float[N,6] x) => (float[N,3] y) {
        h = MatMul (x, w1)  a = Relu (h)  zero = Constant <value = float[1] {0.0}> ()
        m = Max (a, zero)  y = MatMul (m, w2)
    }"""
    model = build(graph, w1=random(6, 5), w2=random(5, 3))
    model.graph.node[2].attribute[0].t.ClearField("name")
    found = relief.prune(model, samples(), alpha=1.0)
    assert differences(model, found.model) == []
    assert found.report.drops_nothing


@pytest.mark.parametrize("form", ["path", "text", "proto"])
def test_models_and_data_come_in_every_form(tmp_path, form, result):
    path = written(tmp_path, mlp())
    model = {"path": path, "text": str(path), "proto": mlp()}[form]
    data = str(data_file(tmp_path)) if form == "text" else samples()
    found = relief.prune(model, data, alpha=0.8)
    notes = {entry.key for entry in found.model.metadata_props}
    del found.model.metadata_props[:]
    assert differences(found.model, result.model) == []
    assert notes == (set() if form == "proto" else {FILE_KEY, DIGEST_KEY})


def test_any_iterable_of_feeds_will_do(result):
    arrays = samples()["x"]
    feeds = ({"x": arrays[i : i + 8]} for i in range(0, 40, 8))
    found = relief.prune(mlp(), feeds, alpha=0.8)
    assert differences(found.model, result.model) == []
    assert found.report.evaluation.metric == "agreement"


def test_a_plan_replays_to_the_same_bytes(tmp_path, result):
    result.save_plan(tmp_path / "plan.json")
    for plan in (result.plan, tmp_path / "plan.json", str(tmp_path / "plan.json")):
        again = relief.prune(mlp(), plan=plan)
        assert again.model.SerializeToString() == result.model.SerializeToString()
        assert again.report.evaluation is None
        assert dict(again.scores) == {}


def test_a_replay_can_be_compared_on_data(result):
    again = relief.prune(mlp(), plan=result.plan, eval_data=samples())
    assert again.report.evaluation.pruned == result.report.evaluation.pruned
    assert not again.report.data.same


def test_saved_files_hold_the_result(tmp_path, result):
    result.save(tmp_path / "m.onnx")
    result.save_report(tmp_path / "r.json")
    result.save_scores(tmp_path / "s.npz")
    assert onnx.load(tmp_path / "m.onnx") == result.model
    loaded = json.loads((tmp_path / "r.json").read_text())
    assert loaded["pruned"]["files"][0]["plain"] == (tmp_path / "m.onnx").stat().st_size
    with np.load(tmp_path / "s.npz") as scores:
        assert set(scores) == set(result.scores) == {"w1", "w2"}
        assert scores["w1"].shape == (5, 6)
        np.testing.assert_allclose(scores["w1"].sum(axis=1), 1)


@pytest.mark.parametrize("method", ["save", "save_plan", "save_report", "save_scores"])
def test_nothing_is_overwritten_unless_forced(tmp_path, result, method):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(relief.OutputError, match="exists already"):
        getattr(result, method)(path)
    assert path.read_text() == "precious"
    getattr(result, method)(path, force=True)
    assert path.read_bytes() != b"precious"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_scores_have_the_shapes_that_are_promised():
    found = {
        granularity: relief.prune(cnn(), samples(shape=(2, 8, 8)), granularity=granularity).scores
        for granularity in ("kernel", "weight")
    }
    assert {name: array.shape for name, array in found["kernel"].items()} == {
        "k": (4, 2),
        "k/bias": (4,),
        "w": (3, 4),
    }
    assert found["weight"]["k"].shape == (4, 2, 3, 3)


def test_a_plan_of_another_file_is_told(tmp_path):
    """Other weights in layers of the same names and sizes: it can be replayed all the same."""
    model, other = mlp(), mlp()
    tensor = other.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
    paths = {name: tmp_path / f"{name}.onnx" for name in ("model", "copy", "other")}
    for name, proto in (("model", model), ("copy", model), ("other", other)):
        onnx.save(proto, paths[name])
    plan = relief.prune(paths["model"], samples(), alpha=0.5).plan
    told = {
        name: [
            text
            for text in relief.prune(path, samples(), plan=plan).report.advice
            if "the plan was made for another file" in text
        ]
        for name, path in paths.items()
    }
    assert [len(told[name]) for name in paths] == [0, 0, 1]
    assert "make one of this very model" in told["other"][0]
    assert relief.prune(other, plan=plan).plan.model == plan.model
    assert relief.prune(model, samples(), alpha=0.5).plan.model == ""


def test_a_replayed_plan_has_no_scores_to_save(tmp_path, result):
    again = relief.prune(mlp(), plan=result.plan)
    with pytest.raises(relief.SettingsError, match="replayed plan has no scores"):
        again.save_scores(tmp_path / "s.npz")


def test_external_data_is_saved_and_not_loaded(tmp_path):
    path = outside_model(tmp_path / "in")
    found = relief.prune(path, samples(labelled=False), alpha=0.5)
    assert isinstance(found.model, Document)
    (tmp_path / "out").mkdir()
    found.save(tmp_path / "out" / "m.onnx")
    assert np.count_nonzero(weights(tmp_path / "out" / "m.onnx")["w"]) < 18
    assert len(found.report.pruned.files) == 2


def test_alpha_by_pattern():
    found = relief.prune(mlp(), samples(), alpha=1.0, alpha_layer={"*": 0.9, "sec*": 0.5})
    assert [row.alpha for row in found.report.layers] == [0.9, 0.5]


def test_layers_left_alone_are_said():
    found = relief.prune(mlp(), samples(), skip=["w1"])
    first, second = found.report.layers
    assert (first.left_alone, first.kept) == ("--skip w1", 30)
    assert second.left_alone is None
    assert found.report.pruned.macs == 45


def test_progress_is_told():
    told = []
    relief.prune(mlp(), samples(), progress=lambda *step: told.append(step))
    assert ("measuring activity", 40, 40) in told
    assert ("comparing outputs", 40, 40) in told


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": 0.0}, r"--alpha must lie in \(0, 1\]"),
        ({"estimator": "x"}, "--estimator 'x' does not exist; choose one of paper, mean-map"),
        ({"granularity": "x"}, "--granularity 'x' does not exist; choose one of kernel, weight"),
        ({"plan": "nowhere.json"}, "--plan nowhere.json cannot be read"),
        ({"only": ["x*"]}, r"--only 'x\*' matches no layer"),
        ({"provider": "abacus"}, "--provider abacus: this ONNX Runtime offers auto, "),
    ],
)
def test_a_wrong_choice_is_a_sentence(options, sentence):
    with pytest.raises(relief.SettingsError, match=sentence):
        relief.prune(mlp(), samples(), **options)


def test_no_data_is_a_sentence():
    with pytest.raises(relief.DataError, match="no calibration data; give some with --data"):
        relief.prune(mlp())


def test_a_metric_without_data_is_a_sentence(result):
    with pytest.raises(relief.SettingsError, match="need data to compare on"):
        relief.prune(mlp(), plan=result.plan, metric="accuracy")
    with pytest.raises(relief.SettingsError, match="need data to compare on"):
        relief.compare(mlp(), mlp(), metric="accuracy")
