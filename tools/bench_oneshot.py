"""Pruning in one shot, without labels and without retraining.

  curves   relief beside magnitude at the same share, for several alphas; writes docs/oneshot.md
  peers    onnxsim 0.8.1 on the tasks of tools/oneshot/tasks.py
  ours     this package on the same tasks, with the flags of a grid or those that are given
  table    both of them; writes docs/criteria.md
  race     SparseGPT and our quickest way with as little error, in turn; writes docs/sparsegpt.md

Rows are kept in the scratch folder: those of the peer until --anew, ours as long as the sources of
the package stay as they are.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from _bench import ROOT, MissingError, provenance, write_aside
from oneshot import curves, peers, race, tasks
from oneshot.ours import EXTRA, grid, ours
from oneshot.page import markdown
from oneshot.rows import NotKeptError, Row, mean_of
from oneshot.tasks import GROUPS, Task

EXAMPLE: Final = """examples:
  python tools/bench_oneshot.py curves --only lenet-5 --quick
  python tools/bench_oneshot.py peers --only digits-mlp --peer-python ~/onnxsim/bin/python
  python tools/bench_oneshot.py ours --only resnet20 --flags='--granularity weight --sparsity 0.5'
  python tools/bench_oneshot.py table --peer-python ~/onnxsim/bin/python
"""
SCRATCH: Final = Path(tempfile.gettempdir(), "onnx-relief-oneshot")
INTRODUCTION: Final = (
    "Models pruned in one shot with unlabelled calibration data, judged on other data; how the "
    "data is split stands in `tools/oneshot/tasks.py`. Weights left are those that are not zero, "
    "weights stored are all that the file still holds, both in percent of the dense layers'; "
    "MACs count zeros. The error is the norm of the change of the output on the test data, over "
    "the norm of the dense output. Time and peak memory are those of the whole process, from the "
    "start of Python to the written file; seconds of the processor (cpu) suffer less from "
    "whatever else the machine does; starting Python and ONNX Runtime alone takes most of the "
    "second that the digits take. onnx-relief runs with `--quiet`, which makes no report of "
    "zeros, as the peer makes none; rows of channels and some older ones still made one. Digits "
    "are the mean of three networks and splits, their memory is the largest; resnet20-int8 is "
    "ResNet-20 quantised by `tools/make_int8.py`. Of every task, criteria stand beside repairs "
    "first; below are the details of `obs`, which is the criterion "
    "with a budget if none is named, and of the peer. Times of both that were taken in turn are in "
    "[sparsegpt.md](sparsegpt.md)."
)
KEPT: Final = (
    "Rows were measured one by one with `peers` and `ours`, within three days and at the commits "
    "of these, on two cores that did other work besides: cpu seconds compare, seconds do "
    "not. "
    "Large models are trained four times through their data for the grid, since the ten minutes "
    "that `reconstruct` takes by default are long for so many rows. EfficientNet's 45, 90 and 200 "
    "epochs were trained on parts of the pictures' middles, its 300 on parts of whole pictures, "
    "which `--crop-scale` draws from by now. What channels cost is reckoned anew since 2026-11-22 "
    "(a mean over the layers that read them, and what queries and keys say): rows of ResNet-20 and "
    "of MiniLM-L6 are from after that, as are those of EfficientNet under obs, reconstructed ones, "
    "and those with least squares at 66 %; its others and those of the int8 model are from before. "
    "Features that no layer has mixed are damped each by its own size, and those that are always "
    "zero change nothing, since the night after: rows of the digits MLPs under obs are from after "
    "that. Least squares may take weights back that obs changed, since 2026-11-23: rows of obs "
    "with it are from after that on MiniLM-L6, ResNet-20 (but long reconstructions) and the "
    "digits, of PP-OCR and zoo-c2f without reconstruction, and on EfficientNet at 50 % zeros and "
    "66 % of the MACs without it. Where nothing was taken back they are as before. "
    "Cells of the grid that are empty or missing here were not measured."
)
Measure = Callable[[Task], Row]


def main() -> int:
    """Do what the first argument says, and return the exit code."""
    options = _parse_arguments()
    if options.what == "curves":
        curves.write_page(options.only[0] if options.only else None, quick=options.quick)
        return 0
    unknown = set(options.only or ()) - set(GROUPS)
    if unknown:
        print(f"--only knows {', '.join(GROUPS)}; not {', '.join(unknown)}", file=sys.stderr)
        return 2
    if options.what != "ours" and not options.peer_python:
        print(
            f"{options.what} needs --peer-python, a Python that has onnxsim==0.8.1", file=sys.stderr
        )
        return 2
    if options.what == "race":
        options.scratch.mkdir(parents=True, exist_ok=True)
        race.write_page(options.only, _task, options.peer_python, options.scratch)
        return 0
    rows: list[Row] = []
    named: dict[str, Task] = {}
    for group in options.only or GROUPS:
        try:
            named[group] = _task(GROUPS[group][0])
            for row in _rows(group, options):
                print(_brief(row), flush=True)
                rows.append(row)
        except MissingError as error:
            print(f"{group} is skipped: {error}", file=sys.stderr)
    text = markdown(
        rows,
        {group: task.meaning for group, task in named.items()},
        {group: _dense(group) for group in named},
    )
    print(f"\n{text}")
    if options.what == "table" and not options.only:
        command = "python tools/bench_oneshot.py table --peer-python ..."
        command += " --kept" if options.kept else ""
        heading = "# Criteria, budgets and repair, in one shot"
        head = (heading, INTRODUCTION, *([KEPT] if options.kept else []), provenance(command))
        write_aside(ROOT / "docs" / "criteria.md", "\n\n".join((*head, text)) + "\n")
        print("written: docs/criteria.md")
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("curves", "peers", "ours", "table", "race"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models; writes no docs")
    parser.add_argument("--quick", action="store_true", help="curves: fewer alphas; writes no docs")
    parser.add_argument("--peer-python", metavar="PATH", help="a Python that has onnxsim==0.8.1")
    parser.add_argument(
        "--flags", action="append", metavar="'...'", help="ours: these instead of the grid"
    )
    parser.add_argument("--scratch", type=Path, default=SCRATCH, metavar="FOLDER")
    parser.add_argument(
        "--kept",
        action="store_true",
        help="show the rows of the scratch folder, from whatever sources, and measure none",
    )
    parser.add_argument("--anew", action="store_true", help="measure what is kept once more")
    return parser.parse_args()


_task = cache(tasks.task)


def _rows(group: str, options: argparse.Namespace) -> Iterator[Row]:
    options.scratch.mkdir(parents=True, exist_ok=True)
    for measure in _measures(group, options):
        try:
            yield mean_of([measure(_task(name)) for name in GROUPS[group]], group)
        except NotKeptError:
            continue


def _measures(group: str, options: argparse.Namespace) -> Iterator[Measure]:
    """Yield, for every row of a group, what measures one of its tasks."""
    scratch, anew = options.scratch, options.anew
    if options.what in ("ours", "table"):
        given = [tuple(shlex.split(flags)) for flags in options.flags or ()]
        for flags in given or (*grid(group), *(EXTRA.get(group, ()) if options.kept else ())):
            yield _with_flags(flags, scratch, anew, options.kept)
    if options.what in ("peers", "table"):
        for method in peers.methods(group):
            yield _by_peer(method, options.peer_python, scratch, anew, options.kept)


def _with_flags(flags: Sequence[str], scratch: Path, anew: bool, kept: bool) -> Measure:
    return lambda task: ours(task, flags, scratch, anew=anew, kept_only=kept)


def _by_peer(method: peers.Method, python: str, scratch: Path, anew: bool, kept: bool) -> Measure:
    return lambda task: peers.measured(task, method, python, scratch, anew=anew, kept_only=kept)


def _dense(group: str) -> float:
    scores = [_task(name).score(_task(name).model)[0] for name in GROUPS[group]]
    return sum(scores) / len(scores)


def _brief(row: Row) -> str:
    what = f"{row.task:18} {row.tool:13} {row.asked:24} {row.method:44}"
    costs = f"{row.seconds:7.1f} s {row.peak_mb:6.0f} MB"
    return f"{what} {row.weights:5.1f} % left {row.score:7.3f} {costs} {row.note[:60]}"


if __name__ == "__main__":
    sys.exit(main())
