"""Bad input at the command line: one sentence, the right exit code, nothing written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from classifier import contents, data_file, mlp, samples, written
from text_models import build, random

from onnx_relief import files
from onnx_relief.cli import main
from onnx_relief.commands import app as commands
from onnx_relief.errors import ReliefError

ROOT = Path(__file__).parent.parent
RUNTIMES_OWN = ".ses"
"""ONNX Runtime leaves this file in the temporary folder when it is imported."""
PRUNE = "prune model.onnx --data data.npz "


@pytest.fixture(name="here", autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """Work in a folder with model.onnx, data.npz and things that are wrong."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, mlp())
    data_file(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.onnx").write_text("precious")
    return tmp_path


@pytest.fixture(name="refusal")
def refused(capfd, here):
    """Return the one sentence of a command that fails, after checking that nothing changed."""

    def run(line, code):
        before = contents(here)
        assert main(line.split()) == code
        out, err = capfd.readouterr()
        assert contents(here) == before
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err.removeprefix("error: ").strip()

    return run


WRONG_ARGUMENTS = {
    "prnue model.onnx": "No such command 'prnue'",
    "prune": "Missing argument 'MODEL'; see `onnx-relief prune --help`",
    PRUNE + "--alhpa 1": "No such option: --alhpa",
    PRUNE + "--alpha abc": "Invalid value for '--alpha'",
    PRUNE + "--alpha 1.5": "--alpha must lie in (0, 1], got 1.5",
    PRUNE + "--alpha-layer first": "--alpha-layer 'first' is not PATTERN=ALPHA",
    PRUNE + "--alpha-layer x=0.5": "--alpha-layer 'x' matches no layer",
    PRUNE + "--samples many": "--samples 'many' is no number; give for example 500, or all",
    PRUNE + "--samples -3": "--samples must be at least 1, got -3",
    PRUNE + "--samples 0": "--samples must be at least 1, got 0; or say all",
    PRUNE + "--batch-size 0": "--batch-size must be at least 1, got 0",
    PRUNE + "--estimator best": "--estimator 'best' does not exist; choose one of paper, mean-map",
    PRUNE + "--provider abacus": "--provider abacus: this ONNX Runtime offers auto, ",
    PRUNE + "--metric f1": "--metric 'f1' does not exist; choose one of accuracy, top5",
    PRUNE + "--output z": "--output 'z' does not exist; the model gives 'y'",
    PRUNE + "--report r.html": "--report writes JSON, so r.html has to end in .json",
    PRUNE + "--plan p.json --save-scores s.npz": "--plan replays without measuring",
    PRUNE + "--preset cats": "--preset 'cats' does not exist",
    PRUNE + "-o there.onnx": "there.onnx exists already; choose another name with -o, or add",
    PRUNE + "-o empty": "empty is a folder; name a file in it with -o",
    PRUNE + "-o nowhere/m.onnx": "the folder nowhere does not exist; create it",
    PRUNE + "--report a.json --save-plan a.json": "--save-plan and --report both name a.json",
    PRUNE + "--report there.onnx": "--report writes JSON",
    PRUNE + "--dump-activations .": ". is not empty; choose another folder with --dump-activations",
    PRUNE + "-o model.onnx": "model.onnx exists already",
    "prune model.onnx --plan nowhere.json": "--plan nowhere.json cannot be read",
    "prune model.onnx --plan there.onnx": "--plan there.onnx: this is not a plan",
    "inspect model.onnx --shape x": "--shape 'x' is not NAME=SIZES",
    "inspect model.onnx --shape z=1x2": "--shape names no input 'z'; the model takes 'x'",
    "inspect model.onnx --data data.npz --shape z=1x2": "--shape names no input 'z'",
    "compact model.onnx --data data.npz --shape z=1x2": "--shape names no input 'z'",
    "compare model.onnx model.onnx --data data.npz --shape z=1x2": "--shape names no input 'z'",
    "evaluate model.onnx": "Missing option '--data'",
    "evaluate model.onnx --data data.npz --metric agreement": "compares two models; add --against",
    "compare model.onnx model.onnx --metric error": "need data to compare on; give --data",
}


def test_no_command_is_a_sentence(capfd):
    assert main([]) == 2
    assert "error: no command was given; see `onnx-relief --help`" in capfd.readouterr().err


@pytest.mark.parametrize("line", WRONG_ARGUMENTS)
def test_wrong_arguments(refusal, line):
    assert WRONG_ARGUMENTS[line] in refusal(line, 2)


def test_a_model_that_is_not_there(refusal):
    assert refusal("prune nix.onnx --data data.npz", 3) == (
        "nix.onnx does not exist; check the path of the model"
    )


def test_a_file_that_is_no_model(refusal):
    assert "there.onnx is not an ONNX model" in refusal("inspect there.onnx", 3)


def test_data_that_is_not_there(refusal):
    assert refusal("prune model.onnx", 4).startswith("there is no calibration data; give some with")
    assert "nix does not exist" in refusal("prune model.onnx --data nix", 4)


def test_an_empty_folder(refusal):
    assert refusal("prune model.onnx --data empty", 4).startswith("empty is empty; give a folder")


def test_nan_in_the_data(refusal, here):
    arrays = samples()
    arrays["x"][3, 2] = np.nan
    np.savez(here / "data.npz", **arrays)
    assert "NaN" in refusal(PRUNE, 4)


def test_nan_in_a_weight(refusal, here):
    weight = random(6, 5)
    weight[1, 1] = np.nan
    written(here, mlp(w1=weight))
    assert "NaN" in refusal(PRUNE, 4)


def test_labels_that_do_not_match(refusal, here):
    arrays = samples()
    np.savez(here / "data.npz", x=arrays["x"], labels=arrays["labels"][:-1])
    assert "the labels of data.npz have shape (39,)" in refusal(PRUNE, 4)
    np.savez(here / "data.npz", x=arrays["x"], labels=arrays["labels"] + 5)
    assert "the output has 3 classes (0 to 2)" in refusal(PRUNE, 4)


def test_accuracy_without_labels(refusal, here):
    np.savez(here / "data.npz", **samples(labelled=False))
    assert "--metric accuracy needs labels" in refusal(PRUNE + "--metric accuracy", 2)
    assert "has no labels" in refusal("evaluate model.onnx --data data.npz", 4)


def test_data_of_the_wrong_shape(refusal, here):
    np.savez(here / "data.npz", x=np.ones((4, 7), np.float32))
    assert "(7,)" in refusal(PRUNE, 4)


@pytest.mark.parametrize(
    ("flags", "clash"),
    [
        ("--save-scores data.npz", "--data and --save-scores both name data.npz"),
        ("-o data.npz", "--data and -o both name data.npz"),
        ("--eval-data e.npz -o e.npz", "--eval-data and -o both name e.npz"),
        ("--save-plan model.onnx", "MODEL and --save-plan both name model.onnx"),
        ("--eval-data data.npz:test --save-scores data.npz", "--data and --save-scores both name"),
        ("--eval-data e.npz:test --save-scores e.npz", "--eval-data and --save-scores both name"),
        ("--save-plan w.bin", "the data of MODEL and --save-plan both name w.bin"),
        ("--sparsity .5 --sensitivity s.json --report s.json", "--sensitivity and --report both"),
        ("--sweep .5,.50000001", "-o and -o both name model.pruned-50.onnx"),
        ("--save-plan pipe.json", "pipe.json is not a regular file"),
    ],
)
def test_nothing_that_is_read_is_written_over(refusal, here, flags, clash):
    onnx.save(mlp(), "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    os.mkfifo("pipe.json")
    Path("e.npz").touch()
    before = {path.name for path in here.iterdir()}
    assert clash in refusal(f"{PRUNE}{flags} --force", 2)
    assert {path.name for path in here.iterdir()} == before


def test_no_layer_to_prune(refusal, here):
    written(here, build("(float[N,6] x) => (float[N,6] y) { y = Relu (x) }"))
    for how in ("", "--granularity channel"):
        assert refusal(PRUNE + how, 5) == "model.onnx has no layer that can be pruned"


def test_a_folder_that_may_not_be_written(refusal, monkeypatch):
    def read_only(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    text = refusal(PRUNE + "-o empty/m.onnx", 2)
    assert text.startswith("the folder empty may not be written (read-only file system); choose")


def test_a_plan_of_another_model(refusal, here):
    assert main((PRUNE + "--save-plan p.json -q").split()) == 0
    (here / "model.pruned.onnx").unlink()
    graph = "(float[N,6] x) => (float[N,3] y) { [other] y = MatMul (x, w) }"
    written(here, build(graph, w=random(6, 3)))
    text = refusal("prune model.onnx --plan p.json", 2)
    assert "the plan names a layer 'first' that this model does not have" in text


def test_two_models_that_cannot_be_compared(refusal, here):
    graph = "(float[N,6] x) => (float[N,3] z) { z = MatMul (x, w) }"
    written(here, build(graph, w=random(6, 3)), "other.onnx")
    line = "compare model.onnx other.onnx --data data.npz"
    assert "model.onnx gives 'y' and other.onnx gives 'z'" in refusal(line, 3)


def test_names_in_errors_cannot_command_the_terminal(refusal, here):
    weight = random(6, 5)
    weight[0, 0] = np.inf
    graph = "(float[N,6] x) => (float[N,5] y) { y = MatMul (x, w) }"
    model = build(graph, w=weight)
    model.graph.node[0].name = "evil\x1b[2J\nname[bold]"
    written(here, model)
    text = refusal("prune model.onnx --data data.npz --metric error --skip nothing", 2)
    assert "evil\\x1b[2J\\nname[bold]" in text


def test_notes_say_where(refusal, monkeypatch):
    error = ReliefError("it went wrong")
    error.add_note("while working on layer 'a'")
    monkeypatch.setattr(commands, "app", failing(error))
    assert refusal("inspect model.onnx", 1) == "it went wrong (while working on layer 'a')"


def failing(error):
    import typer

    made = typer.Typer()

    @made.command("inspect")
    def inspect(_arguments: list[str]) -> None:
        raise error

    @made.callback()
    def common() -> None:
        pass

    return made


def test_a_bug_is_said_to_be_one(refusal, monkeypatch):
    monkeypatch.setattr(commands, "app", failing(KeyError("x")))
    text = refusal("inspect model.onnx", 1)
    assert text.startswith("this is a bug in onnx-relief")
    assert "KeyError: 'x'" in text


def test_verbose_shows_where_a_bug_is(capfd, monkeypatch):
    monkeypatch.setattr(commands, "app", failing(KeyError("x")))
    assert main(["inspect", "model.onnx", "--", "-v"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_too_little_memory_is_a_sentence(refusal, monkeypatch):
    monkeypatch.setattr(commands, "app", failing(MemoryError()))
    assert "smaller --batch-size" in refusal("inspect model.onnx", 1)


def start(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "import sys; from onnx_relief.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment | options.pop("env", {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_errors_leave_a_process_with_their_code():
    process = start("prune", "nix.onnx", "--data", "data.npz")
    assert process.communicate(timeout=60)[1].startswith("error: nix.onnx does not exist")
    assert process.returncode == 3


def test_a_reader_that_goes_away_is_no_error():
    with start("inspect", "model.onnx", "--json") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_leaves_nothing_behind(here, number, code):
    temporary = here / "temporary"
    temporary.mkdir()
    graph = "(float[N,2048] x) => (float[N,2048] y) { h = MatMul (x, w)  y = MatMul (h, w) }"
    written(here, build(graph, w=random(2048, 2048)))
    np.savez(here / "data.npz", x=np.ones((40_000, 2048), np.float32))
    before = sorted(here.iterdir())
    process = start(*PRUNE.split(), "--samples", "all", env={"TMPDIR": str(temporary)})
    while not any(path.name.startswith("onnx-relief-") for path in temporary.iterdir()):
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err == "error: interrupted\n"
    assert sorted(here.iterdir()) == before
    assert [path for path in temporary.iterdir() if path.name != RUNTIMES_OWN] == []


def in_script(here, *arguments, **options):
    """Run the script that interrupts itself, with folders of its own."""
    (here / "temporary").mkdir()
    (here / "work").mkdir()
    for name in ("model.onnx", "data.npz"):
        (here / name).rename(here / "work" / name)
    return subprocess.run(
        [sys.executable, Path(__file__).parent / "interrupted_prune.py", *arguments],
        cwd=here / "work",
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(here / "temporary")},
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def test_interrupted_anywhere_there_is_all_or_nothing(here):
    result = in_script(here, check=True)
    points = [line.split(" ") for line in result.stdout.splitlines() if line.count(" ") == 3]
    assert len(points) > 10
    for event, code, left, temporary in points:
        assert (event, code) == (event, "130")
        assert left in ("data.npz+model.onnx", "data.npz+model.onnx+out.onnx+p.json+r.json")
        assert temporary in ("nothing", RUNTIMES_OWN)


@pytest.mark.parametrize(("rename", "there"), [("1", set()), ("2", {"out.onnx"})])
def test_killed_there_is_no_half_file_under_a_final_name(here, rename, there):
    result = in_script(here, rename, check=False)
    assert result.returncode == -signal.SIGKILL
    named = {path.name for path in (here / "work").iterdir() if not path.name.startswith(".")}
    assert named - {"model.onnx", "data.npz"} == there
    for name in there:
        onnx.checker.check_model(str(here / "work" / name))
