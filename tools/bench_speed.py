"""Does latency fall with the work? Cut channels, time both models, profile what stays behind.

Every model is cut with `prune --granularity channel` at several ratios, widths as the tool chooses
them by default. `onnx-relief bench` times dense and smaller models in turns in ONNX Runtime. Where
latency falls less than 0.85 times as fast as the multiply-accumulates do, ONNX Runtime's profile
says which operator does not follow. Writes docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from _bench import ROOT, ChildError, MissingError, in_child, provenance, table, write_aside
from corpus_data import Entry, chosen, opened
from onnx import numpy_helper
from samples import QUICK
from speed_profile import Profile, explained, profile

from onnx_relief.channels.pruning import prune_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.graph.document import Document, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.save import save
from onnx_relief.measuring.positions import positions_on_data
from onnx_relief.settings import Settings

EXAMPLE: Final = """examples:
  python tools/bench_speed.py --only imagenet-efficientnet-lite0 --ratios .3 --batch 1
  python tools/bench_speed.py --sessions 7
"""
MODELS: Final = ("light-resnet50.random", "light-vgg19.random", "imagenet-efficientnet-lite0")
RATIOS: Final = (0.3, 0.5)
WANTED: Final = 0.85
TIMEOUT: Final = 7200.0
Work = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A model as it was cut.

    Attributes:
        ratio: Share of the channels that was to go.
        multiple: Of how many channels a multiple stays, as it was decided.
        path: The file.
        work: Multiply-accumulates per sample of every layer, dense and now, by the names that its
            node may have in a profile.
    """

    ratio: float
    multiple: int
    path: Path
    work: list[tuple[list[str], float, float]]

    @property
    def left(self) -> float:
        """The share of the multiply-accumulates that is left."""
        return sum(now for _, _, now in self.work) / sum(before for _, before, _ in self.work)


def main() -> int:
    """Measure, print, write the page and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=MODELS, help="one model; writes no docs")
    parser.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS))
    parser.add_argument("--batch", default="1,32", help="samples per run")
    parser.add_argument("--sessions", type=int, default=5, help="processes per model")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.result:
        options.result.write_text(json.dumps(_examined(chosen([options.one])[0], options)))
        return 0
    sections = []
    for name in [options.only] if options.only else MODELS:
        sections.append(_measured(name, sys.argv[1:]))
        print(f"{sections[-1]}\n", flush=True)
        if not options.only:  # with every section: the whole takes long
            write_aside(ROOT / "docs" / "speed.md", _page(sections, options))
    return 0


def _measured(name: str, arguments: Sequence[str]) -> str:
    try:
        found = in_child(__file__, [*arguments, "--one", name], timeout=TIMEOUT)
    except ChildError as error:
        found = f"Not measured: {error}."
    return f"## {name}\n\n{found}"


def _examined(entry: Entry, options: argparse.Namespace) -> str:
    """Return the section of one model."""
    try:
        path = entry.find()
    except MissingError as error:
        return f"Not measured: {error}."
    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder, "dense.onnx")
        cuts = list(_cut(entry, path, dense, options.ratios))
        batches = [int(one) for one in options.batch.split(",")]
        rows = _benched([dense, *(one.path for one in cuts)], options)
        lines, profiles = [], []
        for batch in batches:
            timed = {row["model"]: row["measured"] for row in rows if row["batch"] == batch}
            for one in cuts:
                line, fell = _line(one, batch, timed[str(dense)], timed[str(one.path)])
                lines.append(line)
                if fell is not None and fell < WANTED:
                    profiles.append(_profiled(one, batch, dense))
    head = ["ratio", "multiple of", "batch", "MACs left, %", "dense, ms", "smaller, ms"]
    head += ["latency left, %", "latency falls / MACs fall", f"at least {WANTED}"]
    return "\n\n".join([table(head, lines, left=0), *profiles])


def _cut(entry: Entry, path: Path, dense: Path, ratios: Sequence[float]) -> Iterator[Cut]:
    """Write the dense model and yield the smaller ones, all with a free number of samples."""
    assert entry.build is not None
    document, case = load(path), entry.build(path, QUICK)
    calibration, _ = opened(case, document)
    save(_freed(document), dense)
    survey = find_layers(document)
    positions = positions_on_data(survey, calibration, "cpu").by_layer
    before = {site.node.output[0]: _macs(site, positions) for site in survey.sites}
    names = _fused_names(document)
    for ratio in ratios:
        found = prune_channels(
            document, calibration, Settings(samples=16), ChannelSettings(ratio=ratio, repair="none")
        )
        after = {
            site.node.output[0]: _macs(site, positions)
            for site in find_layers(found.document).sites
        }
        smaller = dense.with_name(f"ratio-{ratio}.onnx")
        save(_freed(found.document), smaller)
        yield Cut(
            ratio=ratio,
            multiple=found.decision.multiple,
            path=smaller,
            work=[(names[out], before[out], after.get(out, 0.0)) for out in before],
        )


def _macs(site: Any, positions: Any) -> float:  # noqa: ANN401 - Site, and a number by layer
    weights = sum(int(np.prod(part.view.shape)) for part in site.parts)
    return float(weights * (positions.get(site.layer.name) or 0.0))


def _fused_names(document: Document) -> dict[str, list[str]]:
    """Return for every tensor its own name and those of what may be fused with its node."""
    readers: dict[str, list[str]] = {}
    for node in document.proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.output[0])
    found = {}
    for node in document.proto.graph.node:
        names = [node.output[0]]
        while len(names) < 5 and len(readers.get(names[-1], ())) == 1:
            names.append(readers[names[-1]][0])
        found[node.output[0]] = names
    return found


def _freed(document: Document) -> Document:
    """Return the model for any number of samples; Caffe2's fixes one, in a Reshape too."""
    document = document.copy()
    graph = document.proto.graph
    del graph.value_info[:]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name not in weights and dims and dims[0].dim_value == 1:
            dims[0].dim_param = "N"
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in weights:
            target = np.array(numpy_helper.to_array(weights[node.input[1]]))
            if target.size and target[0] == 1 and -1 not in target:
                target[0] = -1
                weights[node.input[1]].CopyFrom(numpy_helper.from_array(target, node.input[1]))
    return document


def _benched(models: Sequence[Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what `onnx-relief bench` says of the models.

    Raises:
        RuntimeError: It failed.
    """
    line = [sys.executable, "-m", "onnx_relief", "bench", *map(str, models), "--threads", "1"]
    line += ["--batch", options.batch, "--sessions", str(options.sessions)]
    answer = subprocess.run(
        [*line, "--timeout", "1800", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    if answer.returncode:
        raise RuntimeError(answer.stderr.strip())
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["rows"]
    return rows


def _line(
    one: Cut, batch: int, dense: dict[str, Any], small: dict[str, Any]
) -> tuple[list[str], float | None]:
    """Return a line of the table, and how fast latency falls compared with the work."""
    start = [str(one.ratio), str(one.multiple), str(batch), f"{100 * one.left:.1f}"]
    if dense["error"] or small["error"]:
        return [*start, "-", "-", "-", "-", str(small["error"] or dense["error"])], None
    before, after = dense["timing"], small["timing"]
    left = after["median"] / before["median"]
    fell = (1 - left) / (1 - one.left) if one.left < 1 else None
    # Processes differ: with the worst of one and the best of the other the answer may be another.
    worst = (1 - after["slowest"] / before["median"]) / (1 - one.left) if one.left < 1 else 0.0
    verdict = (
        "-" if fell is None else "no" if fell < WANTED else "yes" if worst >= WANTED else "yes ?"
    )
    return [
        *start,
        *(f"{timing['median']:.3g} to {timing['slowest']:.3g}" for timing in (before, after)),
        f"{100 * left:.1f}",
        "-" if fell is None else f"{fell:.2f}",
        verdict,
    ], fell


def _profiled(one: Cut, batch: int, dense: Path) -> str:
    title = f"### Ratio {one.ratio}, batch {batch}: what does not follow"
    try:
        profiles = [profile(path, batch, 1) for path in (dense, one.path)]
    except ChildError as error:
        return f"{title}\n\nNo profile: {error}."
    return f"{title}\n\n{explained(profiles[0], profiles[1], _work_of(one, profiles))}"


def _work_of(one: Cut, profiles: Sequence[Profile]) -> Work:
    known = profiles[0].keys() & profiles[1].keys()
    return {
        next(name for name in names if name in known): (before, now)
        for names, before, now in one.work
        if before and known.intersection(names)
    }


def _page(sections: Sequence[str], options: argparse.Namespace) -> str:
    command = "python tools/bench_speed.py" + (
        f" --sessions {options.sessions}" if options.sessions != 5 else ""
    )
    load_now = f"Load average of the machine at the end: {os.getloadavg()[0]:.1f}."
    head = ["# Speed", _INTRODUCTION, f"{provenance(command)} {load_now}"]
    return "\n\n".join([*head, *sections]) + "\n"


_INTRODUCTION: Final = f"""\
Does latency fall with the work? Models are cut with `onnx-relief prune --granularity channel
--ratio R`, widths as `--round-to auto` decides, and timed with `onnx-relief bench DENSE SMALLER
--batch 1,32 --threads 1`: ONNX Runtime on the CPU, fresh processes in turns; best to worst of the
processes' medians. "Latency falls / MACs fall" is (1 - latency left) / (1 - MACs left); {WANTED} is
what we ask for. A `?` stands where processes differ so much that it may be less. Where it is
missed, ONNX Runtime's profile of both models says which operator does not follow; its times are
medians of single nodes, and their sum is more than a run takes without profiling. The models named
`light-` have random weights: this is about speed, not accuracy.
""".strip()


if __name__ == "__main__":
    sys.exit(main())
