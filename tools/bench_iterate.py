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
from _bench import ROOT, MissingError, provenance, write_sections

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
INTRODUCTION: Final = """\
Every run below is `onnx_relief.iterate`, which `onnx-relief iterate` is the command for: prune,
retrain what is left, judge, repeat. Models are ONNX files before and after. Weights left are those
of convolutions and fully connected layers; parameters left are all that are not zero. `pruned` is
the score right after pruning, `retrained` the one after training. Test pictures decide nothing:
without a validation part the last epoch is kept. Every curve is one run with one seed; the
statistical error of one accuracy on 10000 test pictures is about 0.1 points.

The authors' numbers are those of their own code (arXiv 2109.10795, Adam 1e-3, weight decay 5e-4,
batches of 120, back to the random weights before each retraining). What the network sees decides
how their curve comes out: with pixels from 0 to 1 a pixel that is always black has no activity, so
more is pruned in each iteration; with normalised pixels less is pruned and accuracy is higher at
the same size. They train without augmentation, and so do the sections that reproduce their curve.
The better recipes shift pictures by up to a pixel (`crop_padding=1`), which brings about half a
point; `beat-lenet-300-100-unshifted` is the same recipe without it, on the authors' pictures."""


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
    """Write the page anew: this section, and those of the other parts as they were."""
    opening = f"# Pruned and retrained in turns\n\n{INTRODUCTION}"
    write_sections(PAGE, opening, PARTS, {name: text})


if __name__ == "__main__":
    sys.exit(main())
