"""What cutting whole channels costs, one shot and after repair, at several ratios.

For every model: the share of parameters and multiply-accumulates that is left, and the accuracy
without repair, with the mean given back, with every unit's mean and variance given back, and with
weights refitted by least squares.
Writes docs/channels.md with --markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from _bench import MissingError, from_models, from_shared, provenance, table, write_aside

from onnx_relief.channel_pruning import prune_channels
from onnx_relief.channel_settings import ChannelSettings
from onnx_relief.data import Dataset, Preprocess, open_data
from onnx_relief.evaluation import evaluate_model
from onnx_relief.graph.cost import layer_costs
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.positions import positions_on_data
from onnx_relief.settings import Settings

EXAMPLE: Final = """example:
  python tools/bench_channels.py --only lenet-5 --ratios .3 .5
  python tools/bench_channels.py --markdown docs/channels.md
"""
SAMPLES: Final = 500
REPAIRS: Final = ("none", "mean", "bias", "least-squares")
INTRODUCTION: Final = (
    "`prune --granularity channel` on models whose weights are trained, with unlabelled "
    f"calibration samples (at most {SAMPLES}) from the training part, judged on the test part; no "
    "retraining. What is left counts the weights of convolutions and fully connected layers, and "
    "their multiply-accumulates. The last columns are the accuracy by `--repair`. Widths are "
    "not rounded (`--round-to 1`)."
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One model with its data."""

    name: str
    model: Path
    calibration: str
    test: str
    preprocess: Preprocess


def main() -> int:
    """Print one line for every model, ratio and scope."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(_TASKS), choices=list(_TASKS))
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.1, 0.2, 0.3, 0.5])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    options = parser.parse_args()
    sections = []
    for name in options.only:
        try:
            sections.append(_section(_task(name), options.ratios))
        except MissingError as error:
            print(f"{name} is skipped: {error}", file=sys.stderr)
    if options.markdown:
        made = provenance(f"tools/bench_channels.py --markdown {options.markdown}")
        page = "\n\n".join(("# Whole channels", INTRODUCTION, made, *sections))
        write_aside(options.markdown, f"{page}\n")
    return 0


def _cifar() -> Task:
    data = from_shared("data", "cifar10-original-6k.npz")
    return Task(
        name="ResNet-20, CIFAR-10 (BatchNormalization as nodes)",
        model=from_shared("models", "cifar10-resnet20.onnx"),
        calibration=f"{data}:train",
        test=f"{data}:test",
        preprocess=Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    )


def _shipped(model: str, data: str, preprocess: Preprocess) -> Task:
    return Task(
        name=model,
        model=from_models(f"{model}.onnx"),
        calibration=str(from_models(f"{data}-calibration.npz")),
        test=str(from_models(f"{data}-test.npz")),
        preprocess=preprocess,
    )


_UNIT: Final = Preprocess(scale=1 / 255)
_TASKS: Final = ("lenet-5", "fashion-keras", "resnet20")


def _task(name: str) -> Task:
    if name == "resnet20":
        return _cifar()
    if name == "lenet-5":
        return _shipped(name, "mnist", _UNIT)
    return _shipped(name, "fashion", replace(_UNIT, layout="nhwc"))


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
    return f"## {task.name}\n\nDense: {dense:.2f} %.\n\n{table(head, rows, left=2)}"


def _rows(
    document: Document, calibration: Dataset, test: Dataset, ratios: Sequence[float]
) -> Iterator[Sequence[object]]:
    whole = _sizes(document, calibration)
    for ratio in ratios:
        for scope in ("layer", "global"):
            scores, left = [], (0.0, 0.0)
            for repair in REPAIRS:
                found = prune_channels(
                    document,
                    calibration,
                    Settings(samples=SAMPLES, batch_size=50),
                    ChannelSettings(ratio=ratio, scope=scope, round_to=1, repair=repair),
                ).document
                left = _sizes(found, calibration)
                scores.append(f"{evaluate_model(found, test, batch_size=64).value:.2f}")
            shares = [f"{100 * now / before:.1f}" for now, before in zip(left, whole, strict=True)]
            print(ratio, scope, *shares, *scores, sep="  ", flush=True)
            yield (ratio, scope, *shares, *scores)


def _sizes(document: Document, data: Dataset) -> tuple[float, float]:
    survey = find_layers(document)
    costs = layer_costs(survey, positions_on_data(survey, data, "cpu").by_layer)
    return sum(cost.weights for cost in costs), sum(cost.macs or 0.0 for cost in costs)


if __name__ == "__main__":
    sys.exit(main())
