"""Throw-away virtual environments: PyTorch and TensorFlow each in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from models import ModelsError

# Each list is one pip call. PyTorch goes first and alone: asked for together with others, pip may
# settle on a build that brings CUDA along.
REQUIREMENTS: Final = {
    "torch": (
        ("torch==2.13.0",),
        ("numpy==2.4.6", "onnx==1.23.2", "scikit-learn==1.9.1", "skl2onnx==1.20.0"),
    ),
    "tensorflow": (
        (
            "tensorflow-cpu==2.21.0",
            "keras==3.15.1",
            "numpy==2.4.6",
            "onnx==1.23.2",
            "tf2onnx==1.17.0",
        ),
    ),
}


def create(name: str, folder: Path) -> Path:
    """Make the environment `name` in `folder` and return its interpreter."""
    print(f"installing {name} into a throw-away environment", flush=True)
    _run([sys.executable, "-m", "venv", str(folder)], name)
    python = folder / "bin" / "python"
    for requirements in REQUIREMENTS[name]:
        _run([str(python), "-m", "pip", "install", "--quiet", *requirements], name)
    return python


def _run(command: list[str], name: str) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        flag = {"torch": "--torch-python", "tensorflow": "--tf-python"}[name]
        raise ModelsError(f"{name} could not be installed ({reason}); name a Python with {flag}.")


def run_script(python: Path, script: Path, *arguments: str) -> None:
    """Run a training script on one CPU thread, whatever the machine, with its output shown."""
    fixed = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": ""}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [str(python), str(script), *arguments]
    try:
        answer = subprocess.run(command, env=os.environ | fixed | quiet, check=False)
    except OSError as problem:
        raise ModelsError(f"'{python}' cannot be run ({problem}).") from problem
    if answer.returncode != 0:
        raise ModelsError(f"{script.name} {arguments[-1]} failed; its messages stand above.")
