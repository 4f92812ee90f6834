"""`onnx-relief analyze`: what it prints and writes, bad input, and Ctrl-C at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from classifier import contents, data_file, mlp, written

from onnx_relief.analysis import Analysis

ROOT = Path(__file__).parent.parent.parent
ANALYZE = "analyze model.onnx --data data.npz --jobs 1 --sparsities 0.5,0.9"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(name="here", autouse=True)
def in_a_folder(pictures_folder):
    return pictures_folder


def test_table_files_and_json_say_the_same(command, here):
    code, out, err = command(f"{ANALYZE} -o a.json --plot a.html")
    assert (code, err) == (0, "")
    found = Analysis.from_json((here / "a.json").read_text())
    assert (here / "model.analysis" / "analysis.json").read_text() == (here / "a.json").read_text()
    for text in ("conv", "fc", "units of conv", "90 %", f"{found.dense:.2f} %"):
        assert text in out
        assert text in (here / "a.html").read_text()
    code, out, _ = command(f"{ANALYZE} --json")
    assert code == 0
    assert Analysis.from_json(out) == found


def test_the_picture_has_a_field_for_every_trial(command, here):
    assert command(ANALYZE)[0] == 0
    picture = ElementTree.parse(here / "model.analysis" / "analysis.svg")
    found = Analysis.from_json((here / "model.analysis" / "analysis.json").read_text())
    fields = picture.findall(f".//{SVG}rect")[1:]
    assert len(fields) == len(found.trials) - 1


def test_hostile_names_are_text(command, here):
    model = mlp()
    model.graph.node[0].name = "<script>alert(1)</script>\x1b[2J"
    written(here, model)
    data_file(here)
    code, out, _ = command(f"{ANALYZE} --plot a.html")
    assert code == 0
    assert "\x1b" not in out
    assert "<script" not in (here / "a.html").read_text()
    picture = ElementTree.parse(here / "model.analysis" / "analysis.svg")
    assert not picture.findall(f".//{SVG}script")


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        ("--sparsities x", 2, "--sparsities 'x' is no share"),
        ("--sparsities ,", 2, "--sparsities names no share"),
        ("--sparsities 1", 2, "--sparsities '1' is no share"),
        ("--jobs 0", 2, "--jobs must be at least 1"),
        ("--plot a.png", 2, "--plot draws .svg or .html"),
        ("-o a.txt", 2, "-o writes JSON"),
        ("-o data.npz.json --plot data.npz.json", 2, "--plot draws"),
        ("--run data.npz", 2, "--run data.npz is a file"),
        ("--ray nowhere", 2, "--ray"),
        ("--only nothing", 2, "matches no layer"),
        ("--data none.npz", 4, "none.npz"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(command, here, more, code, sentence):
    before = contents(here)
    found, out, err = command(f"{ANALYZE} {more}")
    assert (found, out) == (code, "")
    assert err.count("\n") == 1
    assert sentence in err
    assert contents(here) == before
    assert not (here / "model.analysis").exists()


def test_existing_files_are_not_replaced(command, here):
    (here / "a.json").write_text("precious")
    assert command(f"{ANALYZE} -o a.json")[0] == 2
    assert (here / "a.json").read_text() == "precious"
    assert command(f"{ANALYZE} -o a.json --force")[0] == 0


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_finished_before_a_signal_is_kept(here, command, number, jobs):
    """Shares so many that it cannot be done before the signal."""
    many = ",".join(f"{share / 1000}" for share in range(0, 900))
    line = ANALYZE.replace("0.5,0.9", many).replace("--jobs 1", f"--jobs {jobs}")
    process = subprocess.Popen(
        [sys.executable, "-m", "onnx_relief", *line.split()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    file = here / "model.analysis" / "trials.jsonl"
    while process.poll() is None and (not file.exists() or len(file.read_bytes()) < 3000):
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate()
    assert out == ""
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "holds what is done; start again in the same way to go on" in err
    kept = [json.loads(row) for row in file.read_bytes().splitlines(keepends=True) if b"\n" in row]
    assert len(kept) > 5
    code, out, _ = command(f"{ANALYZE} --json")
    found = json.loads(out)["trials"]
    assert code == 0
    assert file.read_bytes().startswith(json.dumps(kept[0]).encode())
    whole, _, _ = command(f"{ANALYZE} --json --run fresh")
    assert whole == 0
    again = Analysis.from_json((here / "fresh" / "analysis.json").read_text())
    assert [row["score"] for row in found] == [row.score for row in again.trials]


@pytest.mark.parametrize(("name", "extra"), [("analyze", "[distributed]"), ("prune", "[retrain]")])
def test_the_help_names_extras(command, name, extra):
    code, out, _ = command(f"{name} --help")
    assert code == 0
    assert extra in out
