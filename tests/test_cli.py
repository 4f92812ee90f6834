"""The command line end to end: what it prints, what it writes, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from classifier import data_file, mlp, samples, weights, written
from text_models import build, random
from typer.testing import CliRunner

import onnx_relief
import onnx_relief.accounting
import onnx_relief.commands.prune
from onnx_relief.commands.app import app
from onnx_relief.errors import ModelError

MODELS = Path(__file__).parent.parent / "models"
COMMANDS = ("inspect", "prune", "evaluate", "compare")


@pytest.fixture(name="here", autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """Work in a folder with model.onnx and data.npz."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, mlp())
    data_file(tmp_path)
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_prune_writes_the_model_and_says_where(here, command):
    code, out, err = command("prune model.onnx --data data.npz --alpha 0.8")
    assert (code, err) == (0, "")
    assert "pruned model: model.pruned.onnx" in out
    assert files(here) == ["data.npz", "model.onnx", "model.pruned.onnx"]
    assert np.count_nonzero(weights(here / "model.pruned.onnx")["w1"]) < 30


def test_prune_does_not_touch_its_input(here, command):
    before = (here / "model.onnx").read_bytes()
    command("prune model.onnx --data data.npz --alpha 0.5")
    assert (here / "model.onnx").read_bytes() == before


def test_prune_twice_gives_the_same_bytes(here, command):
    for name in ("a", "b"):
        command(f"prune model.onnx --data data.npz -o {name}.onnx --save-scores {name}.npz")
    assert (here / "a.onnx").read_bytes() == (here / "b.onnx").read_bytes()
    assert (here / "a.npz").read_bytes() == (here / "b.npz").read_bytes()


def test_quiet_writes_the_same_and_compares_nothing_that_nobody_reads(here, command, monkeypatch):
    line = "prune model.onnx --data data.npz --alpha 0.8"
    command(f"{line} -o loud.onnx")
    command(f"{line} -o reported.onnx -q --report told.json")
    assert json.loads((here / "told.json").read_text())["evaluation"]
    monkeypatch.setattr(
        onnx_relief.commands.prune, "account", lambda *_, **__: pytest.fail("it is compared")
    )
    assert command(f"{line} -o quiet.onnx -q") == (0, "", "")
    models = {(here / f"{name}.onnx").read_bytes() for name in ("loud", "reported", "quiet")}
    assert len(models) == 1


def test_quiet_still_refuses_a_model_that_does_not_run(here, command, monkeypatch):
    def broken(*_, **__):
        raise ModelError("ONNX Runtime refuses the model: broken; say so")

    monkeypatch.setattr(onnx_relief.accounting, "open_session", broken)
    code, _, err = command("prune model.onnx --data data.npz --alpha 0.8 -q")
    assert code != 0
    assert "broken" in err
    assert files(here) == ["data.npz", "model.onnx"]


def test_json_is_all_that_goes_to_the_standard_output(command):
    code, out, err = command("prune model.onnx --data data.npz --json")
    loaded = json.loads(out)
    assert (code, err) == (0, "")
    assert loaded["written"] == {"pruned model": "model.pruned.onnx"}
    assert loaded["evaluation"]["metric"] == "accuracy"


@pytest.mark.parametrize(
    "line",
    [
        "inspect model.onnx",
        "evaluate model.onnx --data data.npz",
        "evaluate model.onnx --data data.npz --against model.onnx",
        "compare model.onnx model.onnx",
        "compare model.onnx model.onnx --data data.npz",
    ],
)
def test_every_command_speaks_json_text_or_nothing(command, line):
    assert json.loads(command(f"{line} --json")[1])["format"].startswith("onnx-relief ")
    assert command(line)[1].strip()
    assert command(f"{line} -q") == (0, "", "")


def test_quiet_still_writes(here, command):
    assert command("prune model.onnx --data data.npz -q") == (0, "", "")
    assert "model.pruned.onnx" in files(here)


def test_all_files_are_written(here, command):
    code, out, _ = command(
        "prune model.onnx --data data.npz -o o.onnx --report r.json --save-plan p.json "
        "--save-scores s.npz --dump-activations dump"
    )
    assert code == 0
    assert {"o.onnx", "r.json", "p.json", "s.npz", "dump"} <= {*files(here)}
    assert json.loads(Path("r.json").read_text())["pruned"]["name"] == "o.onnx"
    assert sorted(path.name for path in (here / "dump").iterdir()) == ["first", "second"]
    for path in ("o.onnx", "r.json", "p.json", "s.npz"):
        assert path in out


def test_the_report_has_the_digests_of_both_files(here, command):
    from hashlib import sha256

    command("prune model.onnx --data data.npz --report r.json")
    report = json.loads(Path("r.json").read_text())
    for side, name in (("dense", "model.onnx"), ("pruned", "model.pruned.onnx")):
        assert report[side]["files"][0]["sha256"] == sha256((here / name).read_bytes()).hexdigest()


def test_a_plan_replays_to_the_same_bytes_without_data(here, command):
    command("prune model.onnx --data data.npz -o a.onnx --save-plan p.json --alpha 0.7")
    code, out, _ = command("prune model.onnx --plan p.json -o b.onnx")
    assert code == 0
    assert (here / "a.onnx").read_bytes() == (here / "b.onnx").read_bytes()
    assert "was not compared with the dense one" in out


def test_settings_reach_the_plan(command):
    command("prune model.onnx --data data.npz --alpha-layer first=0.6 --skip sec* --report r.json")
    report = json.loads(Path("r.json").read_text())
    assert [row["alpha"] for row in report["layers"]] == [0.6, None]
    assert report["layers"][1]["left_alone"] == "--skip sec*"
    assert report["settings"]["alpha_layers"] == {"first": 0.6}


def test_at_alpha_1_the_model_is_written_as_it_is(here, command):
    code, out, _ = command("prune model.onnx --data data.npz --alpha 1")
    assert code == 0
    assert "nothing was dropped" in out
    assert (here / "model.pruned.onnx").read_bytes() == (here / "model.onnx").read_bytes()


def test_a_budget_that_is_met_already_is_said(here, command):
    written(here, mlp(w1=np.eye(6, 5, dtype=np.float32)))
    code, out, _ = command("prune model.onnx --data data.npz --granularity weight --sparsity .3")
    assert code == 0
    assert "the model was written as it is; it meets --sparsity 0.3 already" in out
    assert (here / "model.pruned.onnx").read_bytes() == (here / "model.onnx").read_bytes()


def test_a_layer_that_is_cut_out_as_a_whole_is_told(here, command):
    graph = """(float[N,6] x) => (float[N,3] y) {
        [first] h = MatMul (x, w1)
        [zeros] z = MatMul (x, w0)
        s = Add (h, z)
        a = Relu (s)
        [second] y = MatMul (a, w2)
    }"""
    constants = {"w0": np.zeros((6, 5), np.float32), "w1": random(6, 5), "w2": random(5, 3)}
    written(here, build(graph, **constants))
    line = "prune model.onnx --data data.npz --granularity weight --sparsity .6 --compact --json"
    code, out, err = command(line)
    assert (code, err) == (0, "")
    (gone,) = (row for row in json.loads(out)["layers"] if row["name"] == "zeros")
    assert (gone["connections"], gone["weights"], gone["macs"]) == (30, 0, 0)


def test_other_data_for_the_comparison(command):
    np.savez("test.npz", **samples(count=7))
    _, out, _ = command("prune model.onnx --data data.npz --eval-data test.npz")
    assert "test.npz (7 samples" in out
    assert "calibration data itself" not in out


def test_samples_limits_the_calibration(command):
    command("prune model.onnx --data data.npz --samples 10 --report r.json")
    assert json.loads(Path("r.json").read_text())["data"]["samples"] == 10
    assert command("prune model.onnx --data data.npz --samples all --force")[0] == 0


def test_force_replaces(here, command):
    Path("model.pruned.onnx").write_text("old")
    assert command("prune model.onnx --data data.npz --force")[0] == 0
    onnx.checker.check_model(str(here / "model.pruned.onnx"))


def test_inspect_needs_a_shape_only_where_sizes_are_free(command):
    assert "MACs per sample: 45" in command("inspect model.onnx")[1]
    graph = "(float[N,2,H,W] x) => (float[N,4,A,B] y) { y = Conv (x, k) }"
    Path("free.onnx").write_bytes(build(graph, k=random(4, 2, 3, 3)).SerializeToString())
    assert "needs --shape x=Nx2xNxN" in command("inspect free.onnx")[1]
    assert "MACs per sample: 648" in command("inspect free.onnx --shape x=1x2x5x5")[1]


def test_verbose_names_what_is_otherwise_counted(command):
    nodes = "".join(f"h{i + 1} = Mul (h{i}, m) " for i in range(6))
    graph = f"(float[N,6] h0) => (float[N,3] y) {{ {nodes} y = MatMul (h6, w) }}"
    model = build(graph, m=random(6), w=random(6, 3))
    Path("many.onnx").write_bytes(model.SerializeToString())
    assert "and 3 more" in command("inspect many.onnx")[1]
    assert "and 3 more" not in command("inspect many.onnx -v")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name):
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "150"})
    assert result.exit_code == 0
    assert f"Example: onnx-relief {name} " in result.output
    assert "What is printed" in result.output


def test_help_of_prune_is_in_groups():
    text = CliRunner().invoke(app, ["prune", "--help"], env={"COLUMNS": "150"}).output
    groups = ("Data", "What is pruned, and how much", "What is written", "How samples become")
    places = [text.index(f"─ {group}") for group in groups]
    assert places == sorted(places)


def test_version(command):
    assert command("--version")[1] == f"onnx-relief {onnx_relief.__version__}\n"


def test_without_arguments_there_is_help(command):
    _, out, err = command("")
    assert "Usage" in out + err


@pytest.mark.skipif(not (MODELS / "fashion-sklearn.onnx").exists(), reason="models/ is not there")
def test_a_real_model_is_pruned(here, command):
    line = f"prune {MODELS}/fashion-sklearn.onnx --data {MODELS}/fashion-calibration.npz"
    code, out, _ = command(f"{line} --samples 100 --preset mnist --layout flat")
    assert code == 0
    assert "accuracy of label" in out
    assert "fashion-sklearn.pruned.onnx" in files(here)
