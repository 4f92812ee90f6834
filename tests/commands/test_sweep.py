"""`prune --sweep`: every point is what `prune` makes alone, and nothing is measured twice."""

from __future__ import annotations

import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from classifier import contents, weights, written
from text_models import build, random

import onnx_relief.pipeline

SWEEP = "prune model.onnx --data data.npz --granularity weight --sweep 0.9,50%,0.7"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(name="here", autouse=True)
def in_a_folder(pictures_folder):
    (pictures_folder / "models").mkdir()
    return pictures_folder


@pytest.mark.parametrize(
    ("sweep", "alone"),
    [
        (SWEEP, "--granularity weight --sparsity 0.7"),
        (f"{SWEEP} --criterion obs", "--granularity weight --criterion obs --sparsity 0.7"),
        (
            f"{SWEEP} --repair least-squares",
            "--granularity weight --repair least-squares --sparsity 0.7",
        ),
        (f"{SWEEP} --scope layer", "--granularity weight --scope layer --sparsity 0.7"),
        (
            "prune model.onnx --data data.npz --granularity channel --round-to 1 --sweep 0.25,0.7",
            "--granularity channel --round-to 1 --ratio 0.7",
        ),
    ],
)
def test_a_point_is_the_model_that_prune_makes_alone(command, here, sweep, alone):
    assert command(f"{sweep} -o models")[0] == 0
    assert command(f"prune model.onnx --data data.npz {alone} -o alone.onnx")[0] == 0
    point = here / "models" / "model.pruned-70.onnx"
    assert point.read_bytes() == (here / "alone.onnx").read_bytes()


def test_the_curve_falls(command, here):
    code, out, err = command(f"{SWEEP} -o models/m.onnx --report r.json --plot c.svg")
    assert (code, err) == (0, "")
    found = json.loads((here / "r.json").read_text())
    assert [point["share"] for point in found["points"]] == [0.5, 0.7, 0.9]
    left = [point["cost"]["nonzero"] for point in found["points"]]
    assert found["dense"]["nonzero"] > left[0] > left[1] > left[2]
    for share, point in zip((50, 70, 90), found["points"], strict=True):
        assert point["written"] == f"models/m-{share}.onnx"
        kept = weights(here / point["written"])
        assert sum(np.count_nonzero(kept[name]) for name in "kwb") == point["cost"]["nonzero"]
        assert f"{share} %" in out
    picture = ElementTree.parse(here / "c.svg")
    assert len(picture.findall(f".//{SVG}circle")) == 4


def test_json_is_what_the_report_holds(command, here):
    code, out, _ = command(f"{SWEEP} --report r.json --plot c.html --json")
    assert code == 0
    assert json.loads(out) == json.loads((here / "r.json").read_text())
    assert (here / "c.html").read_text().count("<circle") == 4
    assert (here / "model.pruned-50.onnx").exists()


def test_the_model_is_measured_once(command, monkeypatch):
    calls = []
    measure = onnx_relief.pipeline.measure_at_once
    monkeypatch.setattr(
        "onnx_relief.pipeline.measure_at_once", lambda *a, **k: calls.append(a) or measure(*a, **k)
    )
    assert command(SWEEP)[0] == 0
    assert len(calls) == 1


def test_every_model_is_compacted_on_demand(command, here):
    line = SWEEP.replace("weight --sweep 0.9,50%,0.7", "row --sweep 0.25,0.5 --skip fc")
    assert command(f"{line} -o models --compact --round-to 1")[0] == 0
    units = [
        weights(here / "models" / f"model.pruned-{share}.onnx")["k"].shape[0] for share in (25, 50)
    ]
    assert units == [3, 2]


def test_a_share_that_cannot_be_reached_is_said(command, here):
    code, out, err = command(f"{SWEEP.replace('0.9', '0.999')} -o models")
    assert code == 6
    assert "the models that come closest are written" in err
    assert "99.9 %" in out
    assert (here / "models" / "model.pruned-99.9.onnx").exists()


def test_the_share_of_the_channels_that_went_is_told(command, here):
    line = "prune model.onnx --data data.npz --granularity channel --round-to 2 --sweep 0.25,0.7"
    code, out, _ = command(f"{line} --report r.json")
    assert code == 0
    whole = weights(here / "model.onnx")["k"].shape[0]
    for point in json.loads((here / "r.json").read_text())["points"]:
        left = weights(here / point["written"])["k"].shape[0]
        assert point["went"] == 1 - left / whole
    assert "in brackets: the share of the channels that really went" in out


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        ("--alpha 0.9", 2, "--sweep and --alpha both say how much goes"),
        ("--sparsity 0.9", 2, "--sweep and --sparsity both"),
        ("--target-macs 0.9", 2, "--sweep and --target-macs both"),
        ("--max-drop 1", 2, "--sweep and --max-drop both"),
        ("--save-plan p.json", 2, "--save-plan is about one model"),
        ("--granularity 2:4", 2, "always drops the same share"),
        ("--sweep 0,0.5", 2, "--sweep 0 is the dense model"),
        ("--sweep 1.5", 2, "--sweep '1.5' is no share"),
        ("--plot c.pdf", 2, "--plot draws .svg or .html"),
        ("--report r.txt", 2, "--report writes JSON"),
        ("--granularity channel --store sparse", 2, "--store sparse"),
        ("--data none.npz", 4, "none.npz"),
        ("--criterion luck", 2, "--criterion 'luck' does not exist"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(command, here, more, code, sentence):
    before = contents(here)
    found, out, err = command(f"{SWEEP} {more}")
    assert (found, out) == (code, "")
    assert err.count("\n") == 1
    assert sentence in err
    assert contents(here) == before


def test_models_that_exist_are_not_replaced(command, here):
    (here / "model.pruned-70.onnx").write_text("precious")
    code, _, err = command(SWEEP)
    assert code == 2
    assert "model.pruned-70.onnx exists already" in err
    assert not (here / "model.pruned-50.onnx").exists()


def test_a_plot_without_a_sweep_is_refused(command):
    assert command("prune model.onnx --data data.npz --plot c.svg")[0] == 2


@pytest.mark.parametrize("how", ["--sparsity .5", "--sweep .5", "--granularity channel"])
def test_nan_in_the_outputs_is_told(command, here, how):
    graph = """(float[N,2,8,8] x) => (float[N,3] y) {
        f = Flatten (x)
        h = MatMul (f, v)
        r = Relu (h)
        [fc] m = MatMul (r, w)
        y = Log (m)
    }"""
    written(here, build(graph, v=random(128, 8, seed=1), w=random(8, 3, seed=2)))
    code, out, err = command(
        f"prune model.onnx --data data.npz --granularity weight {how} -o m.onnx"
    )
    assert (code, err) == (0, "")
    told = " ".join(out.split())
    assert "- output 'y' of the dense model holds" in told
    assert told.count("NaN on this data") <= 2


@pytest.mark.parametrize("how", ["", "--granularity channel --round-to 1"])
def test_too_few_samples_are_told_once(command, how):
    line = f"prune model.onnx --data data.npz {how} --sweep 0.3,0.5 -o models/m.onnx --force"
    assert "seen together" not in command(line)[1]
    few = command(f"{line} --samples 2")[1]
    assert " ".join(few.split()).count("more inputs than were seen together") == 1


@pytest.mark.parametrize("how", ["--sparsity .5", "--sweep .5", "--granularity channel"])
def test_a_comparison_on_the_calibration_data_is_told_everywhere(command, how):
    line = f"prune model.onnx --data data.npz --granularity weight {how} -o m.onnx --force"
    said = "used the calibration data itself"
    for same in ("", "--eval-data data.npz", "--eval-data ./data.npz"):
        assert " ".join(command(f"{line} {same}")[1].split()).count(said) == 1
    shutil.copy("data.npz", "other.npz")
    assert said not in " ".join(command(f"{line} --eval-data other.npz")[1].split())
