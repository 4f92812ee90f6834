"""`verify` and `bench` from the command line: what they print, and their exit codes."""

from __future__ import annotations

import json

import onnx
import pytest
from classifier import data_file, mlp, written
from fake_adapters import runtime
from text_models import build
from typer.testing import CliRunner

from onnx_relief.commands import verify as command_module
from onnx_relief.commands.app import app
from onnx_relief.deploy.runtimes import REFERENCE, choose

VERIFY = "verify model.onnx --runtime onnxruntime --sessions 1"
BENCH = "bench model.onnx model.onnx --sessions 1 --seconds 0"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, mlp())
    data_file(tmp_path)


def test_verify_says_what_was_compared(command):
    code, out, err = command(VERIFY)
    assert (code, err) == (0, "")
    assert "onnxruntime" in out
    assert "made-up inputs" in out
    assert "nothing was compared; --runtime all" in out


def test_verify_says_that_no_other_runtime_is_installed(command, monkeypatch):
    monkeypatch.setattr(command_module, "choose", lambda _: ())
    assert "no other runtime is installed: pip" in command("verify model.onnx --sessions 1")[1]


@pytest.mark.parametrize("line", [VERIFY, f"{VERIFY} --data data.npz --against model.onnx", BENCH])
def test_json_text_or_nothing(command, line):
    assert json.loads(command(f"{line} --json")[1])["format"].startswith("onnx-relief ")
    assert command(line)[1].strip()
    assert command(f"{line} -q") == (0, "", "")


@pytest.mark.parametrize(("tolerance", "code"), [("0.5", 6), ("2", 0)])
def test_a_model_that_differs_is_said_after_the_table(command, monkeypatch, tolerance, code):
    monkeypatch.setattr(command_module, "choose", lambda _: (runtime("doubles"),))
    found, out, err = command(f"{VERIFY} --tolerance {tolerance}")
    assert found == code
    assert "1.0e+00" in out
    assert ("outputs differ from those of ONNX Runtime in doubles (by 1.0e+00)" in err) == (
        code == 6
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("verify model.onnx --runtime nonsense", "give all, onnxruntime"),
        ("verify model.onnx --tolerance nan", "--tolerance nan is no share"),
        ("verify model.onnx --shape z=1x6", "names no input 'z'"),
        ("verify model.onnx --data data.npz --shape z=1x6", "names no input 'z'"),
        ("bench model.onnx --batch 0", "--batch '0' is no list"),
        ("bench model.onnx --batch 1,x", "--batch '1,x' is no list"),
    ],
)
def test_wrong_arguments_are_one_sentence(command, line, said):
    code, out, err = command(line)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_runtime_that_is_not_here_is_named_with_the_remedy(command, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, _, err = command("verify model.onnx --runtime tract")
    assert code == 2
    assert "pip install 'onnx-relief[deploy]'" in err


def test_bench_has_a_row_per_model_and_batch(command):
    rows = json.loads(command(f"{BENCH} --batch 1,3 --json")[1])["rows"]
    assert [row["batch"] for row in rows] == [1, 1, 3, 3]
    assert rows[0]["left"] == 1
    assert all(row["macs"] == 45 for row in rows)


def test_a_model_that_cannot_run_is_said_after_the_table(command, tmp_path):
    unknown = build("(float[N,6] x) => (float[N,6] y) { y = my.Nothing(x) }")
    onnx.save(unknown, tmp_path / "unknown.onnx")
    code, out, err = command(f"{BENCH} unknown.onnx --json")
    assert code == 3
    assert [row["measured"]["error"] is None for row in json.loads(out)["rows"]] == [1, 1, 0]
    assert "error: unknown.onnx cannot be run: " in err


def test_a_model_that_fixes_another_batch_is_no_failure(command, tmp_path):
    fixed = build("(float[1,6] x) => (float[1,6] y) { y = Relu(x) }")
    onnx.save(fixed, tmp_path / "fixed.onnx")
    assert command(f"{BENCH} fixed.onnx --batch 3 -q") == (0, "", "")


def test_a_difference_without_end_is_json_too(command, monkeypatch):
    monkeypatch.setattr(command_module, "choose", lambda _: (runtime("gives_nan"),))
    code, out, err = command(f"{VERIFY} --json")
    assert code == 6
    assert "Infinity" not in out
    assert [row["agrees"] for row in json.loads(out)["runtimes"]] == [True, False]
    assert "gives_nan (NaN, infinite" in err


@pytest.mark.parametrize("name", ["verify", "bench"])
def test_help_shows_an_example(name):
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "150"})
    assert result.exit_code == 0
    assert f"Example: onnx-relief {name} " in result.output


def test_the_reference_is_never_chosen_twice():
    assert REFERENCE not in choose(["all", "onnxruntime"])
    assert choose([]) == ()
