"""`onnx-relief retrain`: what it writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from classifier import cnn, data_file, samples, weights, written
from text_models import build, differences, random
from trained import QUICK, RETRAIN, masked_mlp

from onnx_relief.bridge import extra
from onnx_relief.cli import main


@pytest.fixture(name="here", autouse=True)
def in_a_folder(masked_folder):
    return masked_folder


def test_only_float_weights_change_and_zeros_stay(here, command):
    code, out, err = command(RETRAIN)
    assert code == 0
    assert "retrained model: model.retrained.onnx" in out
    assert [line.split(",")[0] for line in err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    before, after = onnx.load("model.onnx"), onnx.load("model.retrained.onnx")
    onnx.checker.check_model(after, full_check=True)
    assert all(path.endswith(".raw_data") for path in differences(before, after))
    old, new = weights(before), weights(after)
    for name in ("w1", "w2"):
        assert not new[name][old[name] == 0].any()
        assert (new[name] != old[name]).any()
    assert not Path("model.retrained.onnx.run").exists()
    assert weights(here / "dense.onnx")["w1"].all()


def test_a_plan_is_held_also_where_the_file_has_no_zeros(command):
    command("prune dense.onnx --data data.npz --alpha 0.6 --save-plan p.json -o pruned.onnx")
    code, _, err = command(f"retrain dense.onnx --data data.npz {QUICK} --plan p.json -o out.onnx")
    assert code == 0, err
    pruned, out = weights("pruned.onnx"), weights("out.onnx")
    for name, values in pruned.items():
        assert (values == 0).any()
        np.testing.assert_array_equal(out[name] == 0, values == 0)


def test_without_labels_the_noted_dense_model_teaches(command):
    command("prune dense.onnx --data data.npz --alpha 0.6 -o pruned.onnx")
    line = "retrain pruned.onnx --data unlabelled.npz --lr 0.03 --batch-size 8 --metric error"
    code, out, err = command(f"{line} --epochs 30 --json -o out.onnx")
    assert code == 0, err
    told = json.loads(out)
    assert told["teacher"].endswith("dense.onnx")
    assert told["after"]["value"] < 0.8 * told["before"]["value"]


def test_only_a_model_that_is_not_pruned_is_to_be_pruned_first(command):
    cut = "--granularity channel --ratio 0.4 --round-to 1 -o small.onnx"
    command(f"prune dense.onnx --data data.npz {cut}")
    for name, told in (("dense", "was held; prune the model first"), ("small", "nothing was held")):
        code, out, _ = command(f"retrain {name}.onnx --data data.npz {QUICK} --json")
        assert code == 0
        advice = [line for line in json.loads(out)["advice"] if "Next to no weight" in line]
        assert len(advice) == 1
        assert advice[0].endswith(told)


def test_a_teacher_in_torch_teaches_the_same_as_one_in_onnx_runtime(command):
    words = "retrain model.onnx --data unlabelled.npz --teacher dense.onnx --epochs 2"
    for name in ("onnxruntime", "torch"):
        code, _, err = command(f"{words} --teacher-runtime {name} -o {name}.onnx")
        assert code == 0, err
    first, other = weights("onnxruntime.onnx"), weights("torch.onnx")
    for name, values in first.items():
        np.testing.assert_allclose(values, other[name], atol=1e-4)


def test_the_report_is_what_json_prints(command):
    code, out, _ = command(RETRAIN + "--json --report r.json")
    assert code == 0
    told, kept = json.loads(out), json.loads(Path("r.json").read_text())
    assert told.pop("written") == "model.retrained.onnx"
    assert told == kept
    assert [row["epoch"] for row in kept["trained"]["history"]] == [1, 2]


def test_few_steps_and_a_flattering_judge_are_said(command):
    out = command(RETRAIN)[1]
    assert "8 steps (4 in each epoch) are few" in out
    assert "--eval-data gives" in out
    out = command("retrain model.onnx --data data.npz --epochs 1 --batch-size 64 -o once.onnx")[1]
    assert "1 step (1 in each epoch) is few" in out


WRONG = {
    "retrain model.onnx": (2, "Missing option '--data'"),
    "retrain nix.onnx --data data.npz": (3, "nix.onnx does not exist"),
    "retrain precious.txt --data data.npz": (3, "precious.txt is not an ONNX model"),
    "retrain model.onnx --data nix": (4, "nix does not exist"),
    "retrain model.onnx --data unlabelled.npz": (4, "has no labels, so there is nothing to train"),
    RETRAIN + "--run precious.txt": (2, "--run precious.txt is a file; name a folder"),
    RETRAIN + "--run full": (2, "--run full holds other files, for example thesis.txt"),
    RETRAIN + "--run full --restart": (2, "--run full holds other files"),
    RETRAIN + "--run a/b": (2, "--run a/b: there is no folder a; make it first"),
    RETRAIN + "-o data.npz --force": (2, "--data and -o both name data.npz"),
    RETRAIN + "--eval-data e.npz -o e.npz": (2, "--eval-data and -o both name e.npz"),
    RETRAIN + "-o precious.txt": (2, "precious.txt exists already"),
    RETRAIN + "--report r.txt": (2, "--report writes JSON"),
    RETRAIN + "--plan precious.txt": (2, "this is not a plan"),
    RETRAIN + "--distill 0.5": (2, "--distill needs somebody to learn from"),
    RETRAIN + "--teacher nix.onnx": (3, "nix.onnx does not exist"),
    RETRAIN + "--metric agreement": (2, "give it with --teacher DENSE.onnx"),
    RETRAIN + "--output z": (2, "--output 'z' does not exist; the model gives 'y'"),
    RETRAIN + "--loss no:loss": (2, "--loss no:loss cannot be imported"),
    RETRAIN + "--loss math:sqrt": (2, "--loss math:sqrt failed with TypeError: "),
    RETRAIN + "--freeze z": (2, "--freeze 'z' matches no weight"),
    RETRAIN + "--freeze *": (5, "has no weights that could be trained"),
    RETRAIN + "--flip": (2, "--flip needs pictures"),
    RETRAIN + "--precision 16 --device cpu": (2, "--precision 16 needs a GPU"),
    RETRAIN + "--milestones x": (2, "--milestones 'x' is no list of numbers"),
    RETRAIN + "--lr 1e30": (2, "is no longer a finite number at step 2 of epoch 1; nothing was"),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_makes_no_sense_is_one_sentence(refusal, line):
    code, sentence = WRONG[line]
    assert sentence in refusal(line, code)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (lambda labels: np.where(np.arange(40) == 7, 5, labels), "has label 5"),
        (lambda labels: labels - 1, "hold -1"),
        (lambda labels: labels * 0 + 1, "have label 1, and training on a single class"),
        (lambda labels: labels + 0.5, "are float64, but classes are whole numbers"),
    ],
)
def test_labels_that_make_no_sense(refusal, labels, sentence):
    arrays = samples()
    np.savez("bad.npz", x=arrays["x"], labels=labels(arrays["labels"]))
    assert sentence in refusal(f"retrain model.onnx --data bad.npz {QUICK}", 4)


def test_data_that_cannot_be_judged_is_refused_before_training(refusal):
    arrays = samples()
    np.savez("bad.npz", x=arrays["x"], labels=arrays["labels"] + 3)
    assert "label" in refusal(RETRAIN + "--eval-data bad.npz", 4)


LINEAR = "(float[N,{inputs}] {x}) => (float[N,{classes}] {y}) {{ {y} = MatMul ({x}, w) }}"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"x": "z"}, "takes 'z', model.onnx 'x'"),
        ({"y": "z"}, "gives 'z', model.onnx 'y'"),
        ({"inputs": 7}, "takes 'x' as float32 (N, 7), model.onnx as float32 (N, 6)"),
        ({"classes": 4}, "gives 'y' as float32 (N, 4), model.onnx as float32 (N, 3)"),
    ],
)
def test_a_teacher_of_something_else(here, refusal, changed, sentence):
    said = {"x": "x", "y": "y", "inputs": 6, "classes": 3, **changed}
    graph = LINEAR.format(**said)
    written(here, build(graph, w=random(said["inputs"], said["classes"])), "teacher.onnx")
    line = f"retrain model.onnx --data unlabelled.npz --teacher teacher.onnx {QUICK}"
    assert f"the teacher teacher.onnx {sentence}" in refusal(line, 2)


def test_a_model_that_only_decides_cannot_be_trained(here, refusal):
    graph = (
        "(float[N,6] x) => (int64[N] y) { s = MatMul (x, w)\n y = ArgMax <axis=1, keepdims=0> (s) }"
    )
    written(here, build(graph, w=random(6, 3)), "argmax.onnx")
    assert "has a gradient" in refusal(f"retrain argmax.onnx --data data.npz {QUICK}", 5)


@pytest.mark.parametrize("name", ["torch", "onnx2fx", "lightning"])
@pytest.mark.parametrize("line", [RETRAIN, f"iterate model.onnx --data data.npz {QUICK}"])
def test_without_the_extra_there_is_a_command_to_type(monkeypatch, refusal, name, line):
    monkeypatch.setattr(extra, "_is_there", lambda wanted: wanted != name)
    sentence = refusal(line, 2)
    assert sentence == f"retraining needs {name}: pip install 'onnx-relief[retrain]'"


def test_odd_names(here):
    folder = here / "models [old]"
    folder.mkdir()
    written(folder, masked_mlp(), "mödel [1] {x}.pruned.onnx")
    code = main(["retrain", f"{folder}/mödel [1] {{x}}.pruned.onnx", "--data", "data.npz",
                 "--epochs", "1", "-o", f"{folder}/[b]ö.onnx"])  # fmt: skip
    assert code == 0
    assert sorted(p.name for p in folder.iterdir()) == ["[b]ö.onnx", "mödel [1] {x}.pruned.onnx"]


def test_a_convolution_and_a_fixed_batch(here, command):
    model = cnn()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    written(here, model, "cnn.onnx")
    data_file(here, "pictures.npz", shape=(2, 8, 8))
    code, out, err = command(
        f"retrain cnn.onnx --data pictures.npz {QUICK} --flip --crop-padding 1"
    )
    assert code == 0, err
    assert "cnn.retrained.onnx" in out


@pytest.mark.parametrize("name", ["retrain", "iterate"])
def test_the_help_fits_eighty_columns_and_has_an_example(monkeypatch, command, name):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command(f"{name} --help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert f"Example: onnx-relief {name} " in out
    words = out.split("╭")[0].splitlines()
    assert not [line for line in words if 0 < len(line.split()) < 4 and "Usage" not in line]
