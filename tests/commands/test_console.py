"""What goes to the standard error: progress on a terminal, warnings as one line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from classifier import data_file, mlp, written

from onnx_relief.cli import main
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.options import SpeakOptions

ROOT = Path(__file__).parent.parent.parent
CODE = "import sys; from onnx_relief.cli import main; sys.exit(main())"
LINE = "prune model.onnx --data data.npz --force"


@pytest.fixture(name="here", autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, mlp())
    data_file(tmp_path)
    return tmp_path


def test_progress_is_shown_on_a_terminal(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main([*LINE.split(), "--json"]) == 0
    out, err = capfd.readouterr()
    assert "measuring activity" in err
    assert "40/40" in err
    assert out.startswith("{")


@pytest.mark.parametrize("more", [[], ["-q"]])
def test_progress_is_shown_nowhere_else(capfd, monkeypatch, more):
    if more:
        monkeypatch.setenv("FORCE_COLOR", "1")
    assert main([*LINE.split(), *more]) == 0
    assert capfd.readouterr().err == ""


def test_a_warning_is_one_line_without_commands(capfd):
    Speaker(SpeakOptions())
    logging.getLogger("onnx_relief.runtime").warning("%s\n\x1b[2Jcannot start", "CUDA")
    assert capfd.readouterr().err == "warning: CUDA\\n\\x1b[2Jcannot start\n"


def test_a_second_command_does_not_warn_twice(capfd):
    for _ in range(2):
        Speaker(SpeakOptions())
    logging.getLogger("onnx_relief").warning("once")
    logging.getLogger("onnx_relief").info("not at all")
    assert capfd.readouterr().err == "warning: once\n"


def test_verbose_tells_more(capfd):
    Speaker(SpeakOptions(verbose=True))
    logging.getLogger("onnx_relief").info("detail")
    assert capfd.readouterr().err == "info: detail\n"


def test_names_that_the_encoding_lacks_are_escaped(here):
    written(here, mlp(), "größe.onnx")
    result = subprocess.run(
        [sys.executable, "-c", CODE, "inspect", "größe.onnx"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert rb"gr\xf6\xdfe.onnx" in result.stdout
