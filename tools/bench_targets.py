"""Whether every budget is reached, on ten real models, and by how much it is missed.

Weights may go in single ones; channels only as a whole, so that small models cannot come close to
every target. Accuracy is not the matter here, so nothing is repaired.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from _bench import ROOT, ChildError, MissingError, in_child, provenance, table, write_aside
from corpus_data import Entry, chosen
from samples import QUICK, Case

import onnx_relief as relief
from onnx_relief.graph.cost import layer_costs
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers

EXAMPLE: Final = "example: python tools/bench_targets.py --only lenet-5 magika"
MODELS: Final = (
    *("lenet-300-100", "lenet-5", "fashion-keras", "fashion-sklearn", "cifar10-resnet20"),
    *("digits-cnn-0", "ppocr-cls", "magika", "basic-pitch", "minilm-l3"),
)
SHARE: Final = 0.6
DROP: Final = 5.0
TIMEOUT: Final = 900.0
BUDGETS: Final = ("sparsity", "target_params", "target_macs", "target_bytes", "max_drop")


def main() -> int:
    """Measure, print, and write docs/targets.md."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models; writes no docs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.result:
        options.result.write_text(json.dumps(list(_rows(chosen([options.one])[0]))))
        return 0
    rows: list[dict[str, Any]] = []
    for name in options.only or MODELS:
        try:
            found = in_child(__file__, ["--one", name], timeout=TIMEOUT)
        except ChildError as error:
            found = [{"model": name, "budget": "all", "asked": "", "found": str(error), "off": ""}]
        for row in found:
            print(*(f"{value!s:18}" for value in row.values()), flush=True)
        rows += found
    text = table(
        ["model", "budget", "asked", "found", "off by"],
        [[str(value) for value in row.values()] for row in rows],
    )
    if not options.only:
        heading = "# Budgets: asked and found"
        said = provenance("python tools/bench_targets.py")
        page = "\n\n".join((heading, (__doc__ or "").strip(), said, text))
        write_aside(ROOT / "docs" / "targets.md", page + "\n")
        print("written: docs/targets.md")
    return 0


def _rows(entry: Entry) -> Iterator[dict[str, Any]]:
    path = entry.find()
    if entry.build is None:
        raise MissingError(f"{entry.name} has nothing to prune")
    case = entry.build(path, QUICK)
    before = relief.prune(path, **_data(case), alpha=1.0).report
    for budget in BUDGETS:
        yield {"model": entry.name, "budget": budget, **_zeros(path, case, budget, before)}
    for budget in ("target_params", "target_macs"):
        row = _channels(path, case, budget, before)
        yield {"model": entry.name, "budget": f"channels, {budget}", **row}


def _data(case: Case) -> dict[str, Any]:
    return {
        "data": case.calibration,
        "eval_data": case.test,
        "preprocess": case.preprocess,
        "batch_size": case.batch_size,
        "metric": case.metric,
        "output": case.output,
    }


def _zeros(path: Path, case: Case, budget: str, before: relief.Report) -> dict[str, str]:
    asked: float = {"target_bytes": int(SHARE * before.dense.zipped), "max_drop": DROP}.get(
        budget, SHARE
    )
    said: dict[str, Any] = {budget: asked}
    result = relief.prune(
        path, **_data(case), **said, criterion="wanda", repair="none", granularity="weight"
    )
    now = result.report
    if budget == "max_drop":
        assert now.evaluation is not None
        share = 1.0 if now.evaluation.unit == "%" else 100.0
        best = now.evaluation.dense or 100.0 / share
        found = share * (best - (now.evaluation.pruned or 0.0))
        return _row(f"{asked} points", f"{found:.2f} points", now.missed or _over(found - asked))
    weights = sum(layer.weights for layer in now.dense.layers)
    left = {
        "sparsity": 1 - sum(layer.nonzero for layer in now.pruned.layers) / weights,
        "target_params": now.pruned.nonzero / now.pruned.parameters,
        "target_macs": (now.pruned.effective_macs or 0.0) / (now.dense.macs or 1.0),
        "target_bytes": float(now.pruned.zipped),
    }[budget]
    off = f"{100 * (left / asked - 1):+.2f} %"
    shown = f"{left:.0f}" if budget == "target_bytes" else f"{left:.4f}"
    return _row(str(asked), shown, f"not reached: {now.missed}" if now.missed else off)


def _channels(path: Path, case: Case, budget: str, before: relief.Report) -> dict[str, str]:
    said: dict[str, Any] = {budget: SHARE}
    try:
        found = relief.prune_channels(
            path,
            case.calibration,
            **said,
            criterion="wanda",
            repair="none",
            round_to=1,
            batch_size=case.batch_size,
            preprocess=case.preprocess,
        )
    except relief.UnsupportedError as error:
        return _row(str(SHARE), str(error), "")
    positions = {layer.layer: layer.positions or 0.0 for layer in before.dense.layers}
    costs = [
        layer_costs(find_layers(document), positions) for document in (load(path), found.document)
    ]
    sizes = [
        sum(cost.weights if budget == "target_params" else cost.macs or 0.0 for cost in one)
        for one in costs
    ]
    left, missed = sizes[1] / sizes[0], found.decision.missed
    off = f"{100 * (left / SHARE - 1):+.2f} %"
    return _row(str(SHARE), f"{left:.4f}", f"not reached: {missed}" if missed else off)


def _row(asked: str, found: str, off: str) -> dict[str, str]:
    said = {"asked": asked, "found": found, "off": off}
    return {name: text.replace(f"{ROOT}/", "") for name, text in said.items()}


def _over(points: float) -> str:
    return "within" if points <= 0 else f"{points:+.2f} points"


if __name__ == "__main__":
    sys.exit(main())
