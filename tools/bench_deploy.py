"""Run models in every runtime that is installed, dense, masked and smaller; write docs/deploy.md.

Every model is pruned in three ways: to 90 % zeros by magnitude (same shapes), by `prune` and then
`compact`, and by `prune --granularity channel`. Each result is compared with ONNX Runtime in each
runtime, and timed there in turns with the dense model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from _bench import (
    ROOT,
    ChildError,
    MissingError,
    in_child,
    provenance,
    table,
    write_aside,
    write_sections,
)
from corpus_data import Entry, chosen, opened
from deploy_tables import Found, in_short, section
from samples import QUICK, Case

from onnx_relief import prune
from onnx_relief.channels.pruning import prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.compaction.compact import compact
from onnx_relief.data import Dataset, first_sample
from onnx_relief.deploy.runtimes import REFERENCE, RUNTIMES, choose
from onnx_relief.deploy.verify import Effort, Row, verify
from onnx_relief.errors import ReliefError
from onnx_relief.graph.cost import cost_of
from onnx_relief.graph.document import Document
from onnx_relief.graph.document import load as load_document
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.measuring.positions import positions_on_data
from onnx_relief.plan import LayerPlan, PrunePlan
from onnx_relief.results import ModelCost
from onnx_relief.settings import Settings

EXAMPLE: Final = """examples:
  NODE_PATH=.../node_modules python tools/bench_deploy.py
  python tools/bench_deploy.py --only lenet-5 --rows rows.json
"""
MODELS: Final = (
    *("lenet-5", "cifar10-resnet20", "ppocr-rec", "lenet-300-100"),
    *("fashion-keras", "fashion-sklearn", "minilm-l3", "light-resnet50.random"),
)
PAGE: Final = ROOT / "docs" / "deploy.md"
_ALL: Final = "in short"
ZEROS: Final = 0.9
ALPHA: Final = 0.6
RATIO: Final = 0.5
TIMEOUT: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class Version:
    """One model as it was pruned: what is left of it, and what the runtimes made of it."""

    way: str
    parameters: float | None
    macs: float | None
    rows: tuple[Row, ...]
    problem: str | None = None


def main() -> int:
    """Measure, print, write the page and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS, help="these models")
    parser.add_argument(
        "--rows",
        type=Path,
        metavar="FILE.json",
        help="keep what was measured here, and say what holds for all of it, too",
    )
    parser.add_argument("--sessions", type=int, default=2, help="processes per model and runtime")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.result:
        effort = Effort(sessions=options.sessions, seconds=0.3, processor_time=True)
        options.result.write_text(json.dumps(examine(chosen([options.one])[0], effort)))
        return 0
    rows = options.rows
    found: dict[str, Found] = json.loads(rows.read_text()) if rows and rows.exists() else {}
    for name in options.only:
        found[name] = _measured(name, options.sessions)
        print(f"{name}\n\n{section(found[name])}\n", flush=True)
        if rows:
            write_aside(rows, json.dumps(found))
        write_page(found, name)
    return 0


def _measured(name: str, sessions: int) -> Found:
    arguments = ["--one", name, "--sessions", str(sessions)]
    try:
        found: Found = in_child(__file__, arguments, timeout=TIMEOUT)
    except ChildError as error:
        return str(error)
    return found


def examine(entry: Entry, effort: Effort) -> list[dict[str, Any]] | str:
    """Return what the runtimes make of every version of a model; a text if it is not here."""
    try:
        path = entry.find()
        if entry.build is None:
            return "nothing to prune"
        dense, case = load_document(path), entry.build(path, QUICK)
    except MissingError as error:
        return str(error)
    calibration, test = opened(case, dense)
    feed = dict(first_sample(test).feed)
    whole = _cost(dense, test)
    found = [Version(way="dense", parameters=100, macs=100, rows=_tried(dense, feed, None, effort))]
    for way, make in _WAYS.items():
        try:
            smaller = make(dense, case, calibration)
            cost, rows = _cost(smaller, test), _tried(smaller, feed, dense, effort)
        except ReliefError as error:
            problem = str(error).replace(f"{path.parent}{os.sep}", "")
            found.append(Version(way=way, parameters=None, macs=None, rows=(), problem=problem))
            continue
        found.append(
            Version(
                way=way,
                parameters=_share(cost.parameters, whole.parameters),
                macs=_share(cost.macs, whole.macs),
                rows=rows,
            )
        )
    return [asdict(version) for version in found]


def _tried(
    document: Document, feed: dict[str, Any], dense: Document | None, effort: Effort
) -> tuple[Row, ...]:
    sparse = ["mnn-sparse"] if _here("mnn-sparse") else []
    return verify(document, feed, choose(["all", *sparse]), against=dense, effort=effort)


def _here(name: str) -> bool:
    return any(one.name == name and one.installed for one in RUNTIMES)


def _cost(document: Document, data: Dataset) -> ModelCost:
    survey = find_layers(document)
    return cost_of(survey, positions_on_data(survey, data, "cpu").by_layer)


def _share(part: float | None, whole: float | None) -> float | None:
    return 100 * part / whole if part is not None and whole else None


def _masked(dense: Document, _case: Case, _calibration: Dataset) -> Document:
    """Return the model with the smallest weights of every layer set to zero."""
    survey = find_layers(dense)
    plans = []
    for site in survey.sites:
        rows = [np.abs(survey.rows(part)) for part in site.parts]
        keep = tuple(row >= np.quantile(row, ZEROS) for row in rows)
        units, bias = site.layer.units, site.layer.bias
        plans.append(
            LayerPlan(
                layer=site.layer.name,
                alpha=1.0,
                keep=keep,
                keep_bias=np.ones((units, bias.count if bias else 0), dtype=bool),
                removed=np.zeros(units, dtype=bool),
            )
        )
    return mask(survey, PrunePlan(layers=tuple(plans)), follow_units(survey))


def _compacted(dense: Document, case: Case, calibration: Dataset) -> Document:
    """Return what `prune --alpha` and then `compact` leave."""
    masked = prune(
        dense.path or dense.proto,
        case.calibration,
        alpha=ALPHA,
        preprocess=case.preprocess,
        metric=case.metric,
    )
    return compact(masked.document, dict(first_sample(calibration).feed)).document


def _narrowed(dense: Document, _case: Case, calibration: Dataset) -> Document:
    """Return what `prune --granularity channel` leaves."""
    return prune_channels(
        dense, calibration, Settings(), ChannelSettings(ratio=RATIO, repair="none")
    ).document


_WAYS: Final[dict[str, Callable[[Document, Case, Dataset], Document]]] = {
    f"{ZEROS:.0%} zeros": _masked,
    f"alpha {ALPHA}, compacted": _compacted,
    f"channels, ratio {RATIO}": _narrowed,
}


def write_page(found: Mapping[str, Found], name: str) -> None:
    """Write the section of a model, and what holds for all that were found; others stay."""
    versions = ", ".join(
        f"{one.name} {one.version}" for one in RUNTIMES if one.installed and one != REFERENCE
    )
    load = f"Load average of the machine at the end: {os.getloadavg()[0]:.1f}."
    made = provenance(f"python tools/bench_deploy.py --only {name}")
    driven = table(["runtime", "how it is driven"], _DRIVEN, left=2)
    opening = "\n\n".join(["# Models elsewhere", _INTRODUCTION, driven, _NOTES])
    texts = {
        _ALL: in_short({one: found[one] for one in MODELS if one in found}),
        name: f"{section(found[name])}\n\n{made} Runtimes: {versions}. {load}",
    }
    write_sections(PAGE, opening, (_ALL, *MODELS), texts)


_INTRODUCTION: Final = f"""\
`onnx-relief verify MODEL` runs a model in every runtime that is installed and compares its outputs
with ONNX Runtime's. Each run is a process of its own with a time limit, so that a runtime that
crashes or hangs is a line of the table. The tables below are `verify SMALLER --against DENSE` with
one thread: both models take turns in the same runtime, each in several fresh processes, and the
best median counts. A `?` stands where the processes of both overlap: no difference is shown. A run
is timed by the processor's time of its process, which is the latency on a machine that does nothing
else. Three tell little on a machine that is busy: OpenVINO, which was seen to take several times as
much then, Node, which compiles meanwhile, and Chromium, where there is the clock only.

- `{ZEROS:.0%} zeros`: the smallest weights of each layer are zero; every tensor keeps its shape.
- `alpha {ALPHA}, compacted`: `onnx-relief prune --alpha {ALPHA}`, then `onnx-relief compact`.
- `channels, ratio {RATIO}`: `onnx-relief prune --granularity channel --ratio {RATIO}`.

These show speed and equality, not accuracy: none of the models was retrained. Every section says
how and when it was made.
""".strip()

_DRIVEN: Final = (
    ("openvino", "in fp32: left alone it takes bfloat16 where the processor has it"),
    ("tract", "is given the shape of every input; always one thread"),
    ("mnn", "its own converter, precision high"),
    (
        "mnn-sparse",
        "the same with `--detectSparseSpeedUp`, of the graph after ONNX Runtime's basic "
        "optimisations; only when it is named",
    ),
    ("opencv", "crashes on some models (magika), which becomes a line"),
    ("ncnn", "of what pnnx makes for these shapes, in fp32"),
    ("onnxruntime-web", "WebAssembly under Node"),
    ("chromium", "the same in a page of headless Chromium"),
)
_NOTES: Final = """\
Python's come with `pip install 'onnx-relief[deploy]'`, but for ncnn: `pip install ncnn`, then
`pip install --no-deps pnnx`, which would bring torch. onnxruntime-web comes with `npm install
--ignore-scripts onnxruntime-web`, for Chromium also `playwright-core`, and `NODE_PATH` set to that
`node_modules`; Chromium itself has to be on the `PATH`.

MNN's own script `mnnconvert` runs `pip install` without asking as soon as it is started, and
tries to report conversions to a server; `verify` calls the converter's
library and never that script.
""".strip()


if __name__ == "__main__":
    sys.exit(main())
