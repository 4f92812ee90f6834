"""What cutting whole channels costs, and what compaction makes of masked models.

One part for every model: the share of parameters and multiply-accumulates that is left, and the
accuracy without repair, with the mean given back, with every unit's mean and variance given back,
and with weights refitted by least squares. The part resnet20-retrained goes on with a few epochs of
training, beside Torch-Pruning; the part compacted prunes and retrains in turns, then compacts.

Writes docs/channels.md; every part its own section, so they can be made one by one. With --runs the
parts that train go on where they were. One thread is the fastest where cores are shared: set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import channels_compacted
import channels_retrained
from _bench import ROOT, MissingError, provenance, table, write_sections
from channel_tasks import SAMPLES, TASKS, Task, sizes

from onnx_relief.channels.pruning import prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.comparing.evaluation import evaluate_model
from onnx_relief.data import Dataset, open_data
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.settings import Settings

EXAMPLE: Final = """examples:
  python tools/bench_channels.py --only lenet-5 --ratios .3 .5
  python tools/bench_channels.py --only resnet20-retrained --torch-pruning-python venv/bin/python
"""
PAGE: Final = ROOT / "docs" / "channels.md"
REPAIRS: Final = ("none", "mean", "bias", "least-squares")
PARTS: Final = (*TASKS, "resnet20-retrained", "compacted")
INTRODUCTION: Final = (
    "`prune --granularity channel` on models whose weights are trained, with unlabelled "
    f"calibration samples (at most {SAMPLES}) from the training part, judged on the test part; no "
    "retraining but where it is said. What is left counts the weights of convolutions and fully "
    "connected layers, and their multiply-accumulates. The last columns are the accuracy by "
    "`--repair`. Widths are not rounded (`--round-to 1`). A ratio is a share of the channels: with "
    "the scope `global` it leaves more of the weights in one model and far fewer in another, so "
    "compare rows by what is left. Every section says how and when it was made; with `--runs`, "
    "what an interrupted run had finished that day was taken from its folder."
)


def main() -> int:
    """Measure what was asked for, write its sections, and return the exit code."""
    options = _options()
    for name in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                text = _part(name, options, options.runs or Path(scratch))
            except MissingError as error:
                print(f"{name} is left as it was: {error}", file=sys.stderr)
                continue
        said = f"{text}\n\n{provenance(_command(name, options))}"
        write_sections(PAGE, f"# Whole channels\n\n{INTRODUCTION}", PARTS, {name: said})
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.1, 0.2, 0.3, 0.5])
    parser.add_argument(
        "--retrained",
        nargs="+",
        type=float,
        help="ratios after which resnet20-retrained trains; all of --ratios by default",
    )
    parser.add_argument(
        "--runs", type=Path, metavar="FOLDER", help="keep what is trained there and go on with it"
    )
    parser.add_argument(
        "--torch-pruning-python", type=Path, metavar="PYTHON", help="one that has Torch-Pruning"
    )
    parser.add_argument("--jobs", type=int, default=1, help="models that are retrained at a time")
    return parser.parse_args()


def _command(name: str, options: argparse.Namespace) -> str:
    peer = " --torch-pruning-python PYTHON" if options.torch_pruning_python else ""
    ratios = " ".join(f"{ratio:g}" for ratio in options.ratios)
    if options.retrained:
        ratios += f" --retrained {' '.join(f'{ratio:g}' for ratio in options.retrained)}"
    runs = " --runs FOLDER" if options.runs and name not in TASKS else ""
    if name == "compacted":
        return f"tools/bench_channels.py --only {name}{runs}"
    return f"tools/bench_channels.py --only {name} --ratios {ratios}{peer}{runs}"


def _part(name: str, options: argparse.Namespace, runs: Path) -> str:
    if name == "compacted":
        return channels_compacted.section(runs / name)
    if name == "resnet20-retrained":
        peer = options.torch_pruning_python
        trained = options.retrained or options.ratios
        return channels_retrained.section(options.ratios, trained, runs / name, peer, options.jobs)
    return _section(TASKS[name](), options.ratios)


def _section(task: Task, ratios: Sequence[float]) -> str:
    document = load(task.model)
    inputs = input_specs(document.proto)
    calibration, test = (
        open_data(part, inputs, preprocess=task.preprocess)
        for part in (task.calibration, task.test)
    )
    dense = evaluate_model(document, test, batch_size=64).value
    print(f"{task.name}: dense {dense:.2f} %", flush=True)
    rows = list(_rows(document, calibration, test, ratios))
    head = ("ratio", "scope", "parameters left, %", "MACs left, %", *(f"{r}, %" for r in REPAIRS))
    said = f"{task.name}. Dense: {dense:.2f} %.\n\n{table(head, rows, left=2)}"
    return "\n\n".join([said, *behind(rows)])


def behind(rows: Sequence[Sequence[object]]) -> list[str]:
    """Say, in a paragraph, where the default repair is not the best; nothing if it always is."""
    default = REPAIRS.index(ChannelSettings().repair)
    lost = {
        f"{ratio} {scope}": max(map(float, scores)) - float(scores[default])
        for ratio, scope, _, _, *scores in (map(str, row) for row in rows)
    }
    found = [f"{where} ({gap:.2f})" for where, gap in lost.items() if gap > 0]
    if not found:
        return []
    return [f"`{REPAIRS[default]}` is behind another column, by points: {', '.join(found)}."]


def _rows(
    document: Document, calibration: Dataset, test: Dataset, ratios: Sequence[float]
) -> Iterator[Sequence[object]]:
    whole = sizes(document, calibration)
    for ratio in ratios:
        for scope in ("layer", "global"):
            scores, left = [], (0.0, 0.0)
            for repair in REPAIRS:
                found = prune_channels(
                    document,
                    calibration,
                    Settings(criterion="obs", samples=SAMPLES, batch_size=50),
                    ChannelSettings(ratio=ratio, scope=scope, round_to=1, repair=repair),
                ).document
                left = sizes(found, calibration)
                scores.append(f"{evaluate_model(found, test, batch_size=64).value:.2f}")
            shares = [f"{100 * now / before:.1f}" for now, before in zip(left, whole, strict=True)]
            print(ratio, scope, *shares, *scores, sep="  ", flush=True)
            yield (ratio, scope, *shares, *scores)


if __name__ == "__main__":
    sys.exit(main())
