"""`onnx-relief iterate`: laws of a run, what ends it, and bad input."""

from __future__ import annotations

import json
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from classifier import cnn, data_file, mlp, samples, weights, written
from text_models import build, differences, random
from trained import ITERATE, QUICK, RUN, history, left, models

from onnx_relief.plan import PrunePlan


@pytest.fixture(name="here", autouse=True)
def in_a_folder(dense_folder):
    return dense_folder


@pytest.mark.usefixtures("finished")
def test_masks_only_grow_and_the_files_hold_them():
    plans = [
        PrunePlan.from_json(path.read_text()) for path in sorted(RUN.glob("iteration-*/plan.json"))
    ]
    assert len(plans) == 3
    for earlier, later in pairwise(plans):
        assert later.kept_connections < earlier.kept_connections
        for one, other in zip(earlier, later, strict=True):
            for before, after in zip(one.keep, other.keep, strict=True):
                assert not (after & ~before).any()
    for one, other in pairwise(models()):
        for name, values in weights(other).items():
            assert not values[weights(one)[name] == 0].any()


@pytest.mark.usefixtures("finished")
def test_the_history_says_what_the_models_are():
    rows, found = history(), models()
    assert list(rows[0])[:7] == [
        *("iteration", "metric pruned", "metric retrained", "compression rate", "remaining %"),
        *("architecture", "FLOPs"),
    ]
    assert [row["iteration"] for row in rows] == ["0", "1", "2", "3"]
    for row, model in zip(rows, found, strict=True):
        alive = [int((array != 0).any(axis=0).sum()) for array in weights(model).values()]
        assert int(row["parameters not zero"]) == left(model)
        assert float(row["remaining %"]) == pytest.approx(100 * left(model) / 45, abs=1e-3)
        assert float(row["compression rate"]) == pytest.approx(45 / left(model), abs=1e-3)
        assert row["architecture"] == "-".join(map(str, alive))


@pytest.mark.usefixtures("finished")
def test_only_weights_change_and_the_last_model_is_kept():
    dense, *found = models()
    for model in found:
        onnx.checker.check_model(model, full_check=True)
        changed = differences(dense, model)
        assert all(path.endswith(".raw_data") or path == "metadata_props" for path in changed)
    assert (RUN / "best.onnx").read_bytes() == (RUN / "iteration-03" / "model.onnx").read_bytes()
    ElementTree.fromstring((RUN / "curve.svg").read_text())


def test_frozen_weights_are_neither_trained_nor_pruned(command):
    assert command(ITERATE + "--freeze w1")[0] == 0
    first, *later = map(weights, models())
    assert later
    for model in later:
        np.testing.assert_array_equal(model["w1"], first["w1"])
        assert np.count_nonzero(model["w2"]) < np.count_nonzero(first["w2"])


def test_what_is_said(finished):
    out, err = finished
    assert "Stopped because all 3 iterations are done" in out
    assert "model of iteration 3: run/best.onnx" in out
    assert "These samples chose the best epochs, too; --eval-data gives honest scores" in out
    told = [line.split(",")[0].split(":")[0].strip() for line in err.splitlines()]
    epochs = ["epoch 1/2", "epoch 2/2"]
    assert told == ["dense", *(x for n in "123" for x in (*epochs, f"iteration {n}"))]


WRONG = {
    "iterate model.onnx": (2, "Missing option '--data'"),
    "iterate nix.onnx --data data.npz": (3, "nix.onnx does not exist"),
    ITERATE + "--run precious.txt": (2, "--run precious.txt is a file; name a folder"),
    ITERATE + "--run full": (2, "--run full holds other files; name a new folder"),
    ITERATE + "--run full --restart": (2, "--run full holds no run, so it is left alone"),
    ITERATE + "-o precious.txt": (2, "precious.txt exists already"),
    ITERATE + "-o model.onnx --force": (2, "MODEL and -o both name model.onnx"),
    ITERATE + "--rewind-to full": (3, "full is a folder"),
    ITERATE + "--alpha 1.5": (2, "--alpha must lie in (0, 1], got 1.5"),
    ITERATE + "--alpha .9,.5,2": (2, "--alpha must lie in (0, 1], got 2.0"),
    ITERATE + "--alpha-fc x": (2, "--alpha-fc 'x' is no list of numbers"),
    ITERATE + "--iterations 0": (2, "--iterations must be at least 1, got 0"),
    ITERATE + "--samples 0": (2, "--samples must be at least 1, got 0"),
    ITERATE + "--calibration-samples 0": (2, "--calibration-samples must be at least 1, got 0"),
    ITERATE + "--calibration-samples x": (2, "--calibration-samples 'x' is no number"),
    ITERATE + "--until-sparsity 100": (2, "--until-sparsity must lie between 0 and 100 percent"),
    ITERATE + "--until-params 0": (2, "--until-params must be at least 1"),
    ITERATE + "--max-drop nan": (2, "--max-drop must be 0 or more points, got nan"),
    ITERATE + "--estimator best": (2, "--estimator 'best' does not exist; choose one of paper"),
    ITERATE + "--devices 2": (2, "iterate trains in one process"),
    ITERATE + "--only nix": (2, "--only 'nix' matches no layer"),
    ITERATE + "--lr 1e30": (2, "is no longer a finite number"),
    ITERATE + "--flip": (2, "--flip needs pictures"),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_makes_no_sense_is_one_sentence(refusal, line):
    code, sentence = WRONG[line]
    assert sentence in refusal(line, code)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (lambda: cnn(), "it has no tensor 'w1'"),
        (lambda: mlp(w1=random(6, 4), w2=random(4, 3)), "it holds 'w1' as float32 (6, 4) instead"),
        (lambda: mlp(w1=random(6, 5).astype(np.float64)), "it holds 'w1' as float64"),
    ],
)
def test_rewinding_to_another_architecture(here, refusal, changed, sentence):
    written(here, changed(), "other.onnx")
    assert sentence in refusal(ITERATE + "--rewind-to other.onnx", 2)


def test_a_size_that_is_not_reached_still_gives_the_best_model(command):
    code, out, err = command(ITERATE + "--until-params 1")
    assert code == 6
    assert "error: the target was not reached (all 3 iterations are done); run/best.onnx" in err
    assert "give it more --iterations or a lower --alpha" in err
    assert "Stopped because" in out
    assert left(onnx.load("run/best.onnx")) == left(models()[-1])


def test_a_size_that_is_reached_stops(command):
    code, out, _ = command(ITERATE + "--until-sparsity 20 -o small.onnx")
    assert code == 0
    assert "the size that was asked for is reached" in out
    assert len(history()) == 2
    assert left(onnx.load("small.onnx")) <= 36


def test_nothing_more_to_prune_stops(command):
    code, out, _ = command(ITERATE + "--alpha 1")
    assert code == 0
    assert "Stopped because nothing more is pruned" in out
    assert weights("run/best.onnx").keys() == weights("model.onnx").keys()
    assert "nothing more is pruned" in command(ITERATE + "--alpha 1 --until-params 9 --restart")[2]


def test_an_iteration_without_pruning_does_not_end_a_schedule(command):
    assert command(ITERATE + "--alpha 1,.8")[0] == 0
    rows = history()
    assert [row["alpha fc"] for row in rows] == ["1.0", "1.0", "0.8", "0.8"]
    assert rows[1]["remaining %"] == "100.0000"
    assert float(rows[2]["remaining %"]) < 100


def test_a_model_that_lost_too_much_is_not_kept(command, here):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6)).astype(np.float32)
    scores = np.maximum(x @ weights("model.onnx")["w1"], 0) @ weights("model.onnx")["w2"]
    np.savez(here / "right.npz", x=x, labels=scores.argmax(1))
    line = ITERATE.replace("data.npz", "right.npz") + "--alpha .99,.98,.4 --lr 1e-6 --max-drop 15"
    code, out, _ = command(line)
    assert code == 0
    scores = [float(row["metric retrained"]) for row in history()]
    assert scores[0] == 100
    assert scores[-1] < 85 <= scores[-2]
    assert "the accuracy fell by more than was allowed" in out
    kept = (RUN / f"iteration-{len(scores) - 2:02d}" / "model.onnx").read_bytes()
    assert (RUN / "best.onnx").read_bytes() == kept


def test_without_labels_the_dense_model_teaches_and_judges(command):
    code, out, _ = command(ITERATE.replace("data.npz", "unlabelled.npz") + "--json")
    assert code == 0
    told = json.loads(out)
    assert told["metric"] == "agreement"
    assert [row["iteration"] for row in told["rows"]] == [0, 1, 2, 3]
    assert told["rows"][0]["metric_retrained"] == 100


def test_labels_that_make_no_sense_leave_no_run(refusal):
    arrays = samples()
    np.savez("bad.npz", x=arrays["x"], labels=arrays["labels"] * 0)
    assert "single class" in refusal(ITERATE.replace("data.npz", "bad.npz"), 4)


def test_a_convolution_with_its_own_alpha(here, command):
    written(here, cnn(), "cnn.onnx")
    data_file(here, "pictures.npz", shape=(2, 8, 8))
    line = f"iterate cnn.onnx --data pictures.npz {QUICK}--alpha-conv .5 --alpha-fc 1 --run run"
    assert command(line + " --iterations 1")[0] == 0
    found = weights("run/best.onnx")
    assert (found["k"] == 0).any()
    assert (found["w"] != 0).all()
    assert history()[1]["alpha conv"] == "0.5"


def test_names_that_are_markup(here, command):
    graph = """(float[N,6] x) => (float[N,3] "<y>&'") {
        ["a<b>&"] "<y>&'" = MatMul (x, w)
    }"""
    graph = graph.replace('"<y>&\'"', "y").replace('"a<b>&"', "ab")
    model = build(graph, w=random(6, 3))
    model.graph.output[0].name = model.graph.node[0].output[0] = "<y>&'\x1b[31m"
    model.graph.node[0].name = "a<b>&"
    written(here, model)
    code, out, err = command(ITERATE + "--iterations 1")
    assert code == 0, err
    assert "\x1b" not in out + err
    ElementTree.fromstring((RUN / "curve.svg").read_text())
