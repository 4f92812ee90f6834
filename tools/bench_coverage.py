"""Cut half of all channels out of every model of the corpus, and write docs/coverage.md.

Of the groups of channels that run through the same axes of the same weights the first half goes,
whatever it is worth: this measures what can be followed, not what should be pruned. Each result is
compared with the model in which the same channels are zero, in every weight that they touch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Final

import onnx
from _bench import ROOT, ChildError, MissingError, commit, in_child, provenance, write_aside
from corpus_data import ENTRIES, ZOO, Entry, chosen, opened
from coverage_cut import Feed, cut_share, difference, half_of_every_axis, largest_gap
from coverage_page import brief, page
from samples import QUICK

from onnx_relief.data import Dataset, first_sample
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.channels.coupled import stays
from onnx_relief.graph.cost import count_parameters, layer_costs
from onnx_relief.graph.document import Document
from onnx_relief.graph.document import load as load_model
from onnx_relief.graph.folded import with_whole_weights
from onnx_relief.graph.inline import inlined
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.positions import positions_on_data
from onnx_relief.runtime import open_session

EXAMPLE: Final = """examples:
  python tools/bench_coverage.py --only 'light-*' magika
  python tools/bench_coverage.py --peer-python /path/to/onnxsim/bin/python \\
      --torch-pruning-python /path/to/torch-pruning/bin/python
"""
TIMEOUT: Final = 1800.0
PEER_TIMEOUT: Final = 600.0
SESSIONS: Final = 3
SECONDS: Final = 0.4
"""How long the runs of one session may take together."""
FEWEST: Final = 3
MOST: Final = 100
PEERS: Final = ROOT / "tools" / "peers"
ALL: Final = (*ENTRIES, *ZOO)
TORCH: Final = ("resnet50", "mobilenet-v2", "mobilenet-v3", "efficientnet", "convnext", "unet")
"""What Torch-Pruning cuts without being told about heads, splits or shuffles."""


def main() -> int:
    """Measure what was asked for, print it, and return the exit code."""
    options = _parse_arguments()
    if options.result:
        (entry,) = chosen([options.one], ALL)
        row = examine(entry, options.ratio, options.peer_python)
        options.result.write_text(json.dumps(row))
        return 0
    rows = json.loads(options.rows.read_text()) if options.rows and options.rows.exists() else {}
    asked = chosen(options.only, ALL)
    for entry in asked:
        rows[entry.name] = _measured(entry, options)
        if options.rows:
            write_aside(options.rows, json.dumps(rows, indent=1))
    if all(entry.name in rows for entry in ALL):
        torch = _torch_pruning(options.torch_pruning_python, options.ratio)
        made = provenance("python tools/bench_coverage.py --peer-python ...")
        text = page([rows[entry.name] for entry in ALL], torch, made)
        write_aside(ROOT / "docs" / "coverage.md", text)
        print("\nwritten: docs/coverage.md")
    return 1 if any(rows[entry.name]["state"] == "failed" for entry in asked) else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="these models only")
    parser.add_argument(
        "--rows",
        type=Path,
        metavar="FILE.json",
        help="keep what was measured here; models that are not asked for are taken from it",
    )
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the channels that goes")
    parser.add_argument(
        "--peer-python", type=Path, metavar="PYTHON", help="one that has onnxsim 0.8.1"
    )
    parser.add_argument(
        "--torch-pruning-python", type=Path, metavar="PYTHON", help="one that has Torch-Pruning"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(entry: Entry, options: argparse.Namespace) -> dict[str, Any]:
    """Run one model in a child process and return its row; print what came of it."""
    row: dict[str, Any]
    try:
        arguments = ["--one", entry.name, "--ratio", str(options.ratio)]
        if options.peer_python:
            arguments += ["--peer-python", str(options.peer_python)]
        row = in_child(__file__, arguments, timeout=TIMEOUT)
    except ChildError as error:
        row = {"name": entry.name, "origin": entry.origin, "state": "failed", "why": str(error)}
    row["commit"] = commit()
    print(f"{entry.name:30} {row['state']:8} {row.get('why') or brief(row)}", flush=True)
    return row


def _torch_pruning(python: Path | None, ratio: float) -> list[dict[str, Any]]:
    """Return what Torch-Pruning leaves of the PyTorch models that the zoo is exported from."""
    if python is None:
        return []
    answer = subprocess.run(
        [str(python), str(PEERS / "torch_pruning_half.py"), str(ratio), *TORCH],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]


def examine(entry: Entry, ratio: float, peer: Path | None = None) -> dict[str, Any]:
    """Return everything that the page says of one model; `peer` is a Python with onnxsim."""
    row: dict[str, Any] = {"name": entry.name, "origin": entry.origin, "heads": None, "peer": None}
    try:
        dense = load_model(entry.find())
        case = entry.build(entry.find(), QUICK) if entry.build is not None else None
    except MissingError as error:
        return row | {"state": "skipped", "why": str(error)}
    if case is None:
        return row | {"state": "left", "why": "it has no layers to prune"}
    document = with_whole_weights(inlined(dense))
    data = opened(case, document)[0]
    feed = first_sample(data).feed
    halved = cut_share(document, feed, ratio)
    zeros = halved.masked()
    pairs = [(zeros, halved.smaller)]
    row |= {
        "state": "cut",
        "groups": halved.total,
        "alone": halved.alone,
        "removed": int(halved.gone.sum()),
        "stays": stays(halved.groups),
        "rounding": difference(zeros, zeros, feed, optimised=False),
    }
    row |= _left(document, halved.smaller, data)
    row["least"] = half_of_every_axis(halved)
    smallest = halved.smaller
    fewer = cut_share(halved.smaller, feed, ratio, heads=True)
    if fewer.gone.any():
        smallest = fewer.smaller
        row["heads"] = _left(document, smallest, data)
        row["least"] *= half_of_every_axis(fewer)
        pairs.append((fewer.masked(), smallest))
    row["difference"] = max(difference(*pair, feed) for pair in pairs)
    row["in_double"] = _gap_in_double(pairs, feed)
    rival = None if peer is None else _rival(entry.find(), ratio, peer)
    if isinstance(rival, str):
        row["peer"] = {"why": rival}
    elif rival is not None:
        row["peer"] = _left(document, rival, data)
    rivals = [rival] if isinstance(rival, Document) else []
    return row | _timed([dense, smallest, *rivals], feed, row)


def _gap_in_double(pairs: Sequence[tuple[Document, Document]], feed: Feed) -> float | str:
    """Return the largest difference of two models in float64, or why there is none, in words."""
    try:
        from in_double import outputs_in_double  # torch, which the other numbers do without

        found = [[outputs_in_double(document, feed) for document in pair] for pair in pairs]
    except (ImportError, UnsupportedError) as error:
        return str(error)
    return max(largest_gap(one, other) for one, other in found)


def _timed(models: Sequence[Document], feed: Feed, row: dict[str, Any]) -> dict[str, Any]:
    """Return the share of the time that is left, with one thread, the models taking turns."""
    medians: list[list[float]] = [[] for _ in models]
    for _ in range(SESSIONS):
        for found, model in zip(medians, models, strict=True):
            found.append(_processor_time(model, feed))
    dense, *others = (min(found) for found in medians)
    if len(others) > 1:
        row["peer"]["time"] = others[1] / dense
    return {"time": others[0] / dense, "milliseconds": 1000 * dense}


def _processor_time(model: Document, feed: Feed) -> float:
    """Return the median of the processor time of runs in a fresh session.

    With one thread that is the latency on a machine that does nothing else; on a busy one the clock
    on the wall tells how long a run waits for its turn.
    """
    session, times = open_session(model, provider="cpu", threads=1), list[float]()
    session.run(feed)
    while len(times) < FEWEST or (sum(times) < SECONDS and len(times) < MOST):
        before = process_time()
        session.run(feed)
        times.append(process_time() - before)
    return median(times)


def _rival(path: Path, ratio: float, python: Path) -> Document | str:
    """Return what onnxsim makes of a model, or what it said when it failed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.onnx")
        command = [str(python), str(PEERS / "onnxsim_half.py"), str(path), str(out), str(ratio)]
        try:
            answer = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=PEER_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            return f"it took longer than {PEER_TIMEOUT:.0f} s"
        if answer.returncode:
            return (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        found = load_model(out)
        return replace(found, proto=onnx.load(out), path=None)


def _left(before: Document, after: Document, data: Dataset) -> dict[str, float]:
    """Return the share of parameters and of multiply-accumulates that is left."""
    surveys = [find_layers(document) for document in (before, after)]
    work = []
    for survey in surveys:
        positions = positions_on_data(survey, data, "cpu").by_layer
        work.append(sum(cost.macs or 0.0 for cost in layer_costs(survey, positions)))
    parameters = [count_parameters(survey)[0] for survey in surveys]
    return {
        "parameters": parameters[1] / max(1, parameters[0]),
        "macs": work[1] / work[0] if work[0] else float("nan"),
        "million": parameters[0] / 1e6,
    }


if __name__ == "__main__":
    sys.exit(main())
