"""Cut half of all channels out of every model of the corpus, and write docs/coverage.md.

Of the groups of channels that run through the same axes of the same weights every second one goes,
whatever it is worth: this measures what can be followed, not what should be pruned. Each result is
compared with the model in which the same channels are zero, in every weight that they touch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from _bench import ROOT, ChildError, MissingError, in_child, provenance, table, write_aside
from corpus_data import ENTRIES, ZOO, Entry, chosen, opened
from numpy.typing import NDArray
from samples import QUICK

from onnx_relief.data import Dataset
from onnx_relief.evaluation import first_sample
from onnx_relief.graph.channels import RULES, Groups, Trace, cut, leave_one, trace_channels
from onnx_relief.graph.channels.coupled import coupled, stays
from onnx_relief.graph.cost import count_parameters, layer_costs
from onnx_relief.graph.document import Document, check
from onnx_relief.graph.document import load as load_model
from onnx_relief.graph.folded import with_whole_weights
from onnx_relief.graph.inline import inlined
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.orphans import drop_orphans
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import TensorHome
from onnx_relief.observe import observe
from onnx_relief.positions import positions_on_data
from onnx_relief.runtime import open_session

EXAMPLE: Final = """example:
  python tools/bench_coverage.py --only 'light-*' magika
"""
TIMEOUT: Final = 1800.0
Feed = Mapping[str, NDArray[Any]]
ALL: Final = (*ENTRIES, *ZOO)


def main() -> int:
    """Measure what was asked for, print it, and return the exit code."""
    options = _parse_arguments()
    if options.result:
        options.result.write_text(json.dumps(examine(chosen([options.one], ALL)[0], options.ratio)))
        return 0
    rows = [_measured(entry, options.ratio) for entry in chosen(options.only, ALL)]
    if options.only is None:
        command = "python tools/bench_coverage.py"
        write_aside(ROOT / "docs" / "coverage.md", page(rows, provenance(command)))
        print("\nwritten: docs/coverage.md")
    return 1 if any(row["state"] == "failed" for row in rows) else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="these models; writes no docs")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the channels that goes")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(entry: Entry, ratio: float) -> dict[str, Any]:
    """Run one model in a child process and return its row; print what came of it."""
    row: dict[str, Any]
    try:
        arguments = ["--one", entry.name, "--ratio", str(ratio)]
        row = in_child(__file__, arguments, timeout=TIMEOUT)
    except ChildError as error:
        row = {"name": entry.name, "origin": entry.origin, "state": "failed", "why": str(error)}
    print(f"{entry.name:30} {row['state']:8} {row.get('why') or _brief(row)}", flush=True)
    return row


def _brief(row: dict[str, Any]) -> str:
    return " ".join(map(str, _cells(row)[2:]))


def examine(entry: Entry, ratio: float) -> dict[str, Any]:
    """Return everything that the page says of one model."""
    row: dict[str, Any] = {"name": entry.name, "origin": entry.origin}
    try:
        document = with_whole_weights(inlined(load_model(entry.find())))
        case = entry.build(entry.find(), QUICK) if entry.build is not None else None
    except MissingError as error:
        return row | {"state": "skipped", "why": str(error)}
    if case is None:
        return row | {"state": "left", "why": "it has no layers to prune"}
    data = opened(case, document)[0]
    feed = first_sample(data).feed
    began = time.perf_counter()
    halved = _cut(document, feed, ratio)
    row |= {
        "state": "cut",
        "seconds": time.perf_counter() - began,
        "groups": halved.total,
        "removed": int(halved.gone.sum()),
        "stays": stays(halved.groups),
        "difference": halved.difference(document, feed),
        "heads": None,
    }
    same = masked(document, halved.trace, halved.groups, halved.gone)
    row["rounding"] = _difference(same, same, feed, optimised=False)
    survey = find_layers(document)
    row |= _left(survey, find_layers(halved.smaller), data)
    fewer = _cut(halved.smaller, feed, ratio, heads=True)
    if fewer.gone.any():
        row["heads"] = _left(survey, find_layers(fewer.smaller), data)
        gap = fewer.difference(halved.smaller, feed)
        row["difference"] = max(row["difference"], gap)
    return row


@dataclass(frozen=True, eq=False)
class Cut:
    """A model without some of its channels."""

    trace: Trace
    groups: Groups
    gone: NDArray[np.bool_]
    smaller: Document
    total: int

    def difference(self, document: Document, feed: Feed) -> float:
        """Return the difference to `document` with zeros where this one was cut."""
        return _difference(masked(document, self.trace, self.groups, self.gone), self.smaller, feed)


def _cut(document: Document, feed: Feed, ratio: float, *, heads: bool = False) -> Cut:
    """Cut a share of the groups; with `heads` of these only, which Reshape splits off."""
    survey = find_layers(document)
    observed = observe(survey, feed)
    trace, groups = trace_channels(survey.model, observed, RULES, outer=heads)
    kinds = coupled(trace, groups)
    gone = np.zeros(trace.pool.size, dtype=bool)
    split_off = [
        groups.of(trace.of(name)).reshape(-1) for name in trace.splits if trace.splits[name]
    ]
    allowed = np.unique(np.concatenate([np.zeros(0, np.int64), *split_off]))
    for kind in kinds:
        count = min(int(len(kind.roots) * ratio + 0.5), len(kind.roots) - 1)
        if not heads or np.isin(kind.roots, allowed).all():
            gone[kind.roots[:count]] = True
    gone = leave_one(trace, groups, gone)
    smaller = drop_orphans(cut(document, trace, groups, gone), document)
    check(smaller)
    return Cut(trace, groups, gone, smaller, sum(len(kind.roots) for kind in kinds))


def masked(document: Document, trace: Trace, groups: Groups, gone: NDArray[np.bool_]) -> Document:
    """Return the document with zeros wherever constants belong to channels that go."""
    constants = Constants(document)
    values: dict[TensorHome, NDArray[np.generic]] = {}
    for member in trace.members:
        lost = gone[groups.of(member.ids)]
        if lost.any():
            home = trace.whole.home(member.constant)
            array = values.setdefault(home, np.array(constants.stored(home)))
            array[(slice(None),) * member.axis + (lost,)] = 0
    return write_constants(document, values)


def _left(before: Survey, after: Survey, data: Dataset) -> dict[str, float]:
    """Return the share of parameters and of multiply-accumulates that is left."""
    positions = [positions_on_data(survey, data, "cpu").by_layer for survey in (before, after)]
    known = set(positions[0]) & set(positions[1])
    work = [
        sum(cost.macs or 0.0 for cost in layer_costs(survey, where) if cost.layer in known)
        for survey, where in zip((before, after), positions, strict=True)
    ]
    parameters = [count_parameters(survey)[0] for survey in (before, after)]
    return {
        "parameters": parameters[1] / max(1, parameters[0]),
        "macs": work[1] / work[0] if work[0] else float("nan"),
        "million": parameters[0] / 1e6,
    }


def _difference(first: Document, second: Document, feed: Feed, *, optimised: bool = True) -> float:
    """Return the largest difference of an output relative to its largest element."""
    worst = 0.0
    one = open_session(first, provider="cpu").run(feed)
    other = open_session(second, provider="cpu", optimised=optimised).run(feed)
    for name, expected in one.items():
        if isinstance(expected, np.ndarray) and expected.dtype.kind == "f" and expected.size:
            if expected.shape != other[name].shape:
                return float("inf")
            gap = np.abs(expected.astype(np.float64) - other[name]).max()
            worst = max(worst, float(gap / max(1e-9, np.abs(expected).max())))
    return worst


def page(rows: Sequence[dict[str, Any]], made: str) -> str:
    """Return docs/coverage.md."""
    cut_rows = [row for row in rows if row["state"] == "cut"]
    head = ["model", "made with", "parameters", "groups of channels", "removed"]
    head += [
        "parameters left",
        "MACs left",
        "difference",
        "rounding",
        "with half of the heads, too",
    ]
    parts = [
        "# How much of a model can be cut",
        _INTRODUCTION,
        made,
        table(head, [_cells(row) for row in cut_rows], left=2),
        "## What stays, and why",
        "Channels that could be followed no further, counted in groups. Outputs of the model keep "
        "their widths, so what reaches them stays by design.",
        "\n".join(line for row in cut_rows for line in _reasons(row)),
    ]
    others = [f"- {row['name']}: {row['why']}" for row in rows if row["state"] != "cut"]
    if others:
        parts += ["## Not cut", "\n".join(others)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION: Final = """\
Half of all channels are cut out of each model: of the groups of channels that run through the same
axes of the same weights every second one goes, without rounding and whatever it is worth. A layer
between two others keeps a quarter of its weights then. The difference is the largest one of an
output to the model in which the same channels are zero, relative to the largest element of that
output, on a real sample, in ONNX Runtime; "rounding" is how far the masked model is from itself
when ONNX Runtime fuses nothing: weights that were not trained to work together amplify it.
Attention loses half of the width of every head; the last column says what is left when half of its
heads go, too. What limits the rest: outputs keep their widths, and the stream that runs through
LayerNormalization stays, since its statistics would change, with the tables of words that are as
wide as it is."""


def _cells(row: dict[str, Any]) -> list[object]:
    heads = row["heads"]
    return [
        row["name"],
        row["origin"],
        f"{row['million']:.2f} M",
        f"{row['groups']:,}",
        f"{row['removed']:,}",
        f"{row['parameters']:.3f}",
        f"{row['macs']:.3f}",
        *(f"{row[key]:.0e}" if row[key] else "0" for key in ("difference", "rounding")),
        "" if heads is None else f"{heads['parameters']:.3f}, MACs {heads['macs']:.3f}",
    ]


def _reasons(row: dict[str, Any]) -> list[str]:
    nothing = "nothing" if row["groups"] else "layers in bodies of If or Loop are not followed"
    lines = [f"- **{row['name']}**: " + ("" if row["stays"] else nothing)]
    lines[0] += "; ".join(f"{count:,} ({why})" for why, count in list(row["stays"].items())[:4])
    return lines


if __name__ == "__main__":
    sys.exit(main())
