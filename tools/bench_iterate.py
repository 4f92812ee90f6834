"""Prune and retrain in turns with `iterate`, as a user would, and write docs/retraining.md.

Each part writes its own section between its markers, so parts can be made one by one. With --runs a
part that was stopped goes on where it was. One thread is the fastest where cores are shared: set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import iterate_distil
import iterate_lenet
from _bench import ROOT, MissingError, provenance, replace_between, write_aside

EXAMPLE: Final = """examples:
  OMP_NUM_THREADS=1 python tools/bench_iterate.py --only lenet-300-100 --runs /tmp/runs
  OMP_NUM_THREADS=1 python tools/bench_iterate.py
"""
PAGE: Final = ROOT / "docs" / "retraining.md"
PARTS: Final[dict[str, Callable[[Path], str]]] = {
    **{name: partial(iterate_lenet.measured, name) for name in iterate_lenet.RECIPES},
    "resnet20": iterate_distil.resnet,
    "ppocr-rec": iterate_distil.words,
    "fashion-keras": iterate_distil.fashion_keras,
}
INTRODUCTION: Final = (
    "Every run below is `onnx_relief.iterate`, which `onnx-relief iterate` is the command for: "
    "prune, retrain what is left, judge, repeat. Models are ONNX files before and after. Percent "
    "left counts the weights of convolutions and fully connected layers; parameters left counts "
    "everything that is not zero. Nothing was chosen by the test pictures: without a validation "
    "part the last epoch is kept."
)


def main() -> int:
    """Measure what was asked for, write its sections, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument(
        "--runs", type=Path, metavar="FOLDER", help="keep the runs there and go on with them"
    )
    options = parser.parse_args()
    for name in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                text = PARTS[name](options.runs or Path(scratch))
            except MissingError as error:
                print(f"{name} is left as it was: {error}.", flush=True)
                continue
        text = f"{text}\n\n{provenance(f'python tools/bench_iterate.py --only {name}')}"
        print(f"{text}\n", flush=True)
        write_section(name, text)
    return 0


def write_section(name: str, text: str) -> None:
    """Put a section on the page, which is made where it does not exist."""
    if not PAGE.exists():
        write_aside(PAGE, f"# Pruned and retrained in turns\n\n{INTRODUCTION}\n")
    if not replace_between(PAGE, name, text):
        page = PAGE.read_text(encoding="utf-8").rstrip("\n")
        write_aside(PAGE, f"{page}\n\n## {name}\n\n<!-- {name} -->\n<!-- /{name} -->\n")
        replace_between(PAGE, name, text)


if __name__ == "__main__":
    sys.exit(main())
