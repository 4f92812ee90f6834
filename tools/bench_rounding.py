"""What it is worth to keep widths even: compact masked models to multiples of some number.

Of every kind of coupled channels a share is set to zero, chosen at random, so that widths become
odd, and the model is compacted with each `--round-to`. All results and the masked model take turns
in ONNX Runtime, each in several fresh processes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from _bench import provenance, table
from coverage_cut import masked
from numpy.typing import NDArray

from onnx_relief.compaction.shrinking import shrink
from onnx_relief.deploy.bench import bench
from onnx_relief.deploy.verify import Effort
from onnx_relief.graph.channels import RULES, leave_one, trace_channels
from onnx_relief.graph.channels.coupled import coupled
from onnx_relief.graph.cost import cost_of
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.observe import observe
from onnx_relief.measuring.positions import made_up_feed, positions_on_shapes

EXAMPLE: Final = """examples:
  python tools/bench_rounding.py shared/models/cifar10-resnet20.onnx --share 0.3
  python tools/bench_rounding.py model.onnx --already-masked
"""
ROUNDS: Final = (1, 4, 8, 16, None)


def main() -> int:
    """Measure, print a table and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--share", type=float, default=0.3, help="how many channels are zero")
    parser.add_argument("--already-masked", action="store_true", help="zero no channels here")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--shape", help="shape of the only input, 1x3x224x224")
    parser.add_argument("--sessions", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for path in options.models:
        share = None if options.already_masked else options.share
        shape = tuple(map(int, options.shape.split("x"))) if options.shape else None
        rows += _measured(path, share, options.batch, shape, Effort(sessions=options.sessions))
        print(f"{path.stem}: done", flush=True)
    names = [f"round to {number or 'auto'}" for number in ROUNDS]
    print(table(["model", "", "masked", *names], rows, left=2))
    print(f"\nBatch {options.batch}. {provenance('python tools/bench_rounding.py')}")
    return 0


def _measured(
    path: Path, share: float | None, batch: int, shape: tuple[int, ...] | None, effort: Effort
) -> list[list[str]]:
    document = load(path)
    specs = input_specs(document.proto)
    shapes = {specs[0].name: shape} if shape else {}
    feed = made_up_feed(specs, shapes)
    if feed is None:
        raise SystemExit(f"{path} has free sizes; give --shape")
    if share is not None:
        document = _with_dead_channels(document, feed, share)
    found = [shrink(document, feed, round_to=number).document for number in ROUNDS]
    many = {name: np.repeat(array, batch, axis=0) for name, array in feed.items()}
    taken = bench([document, *found], [many] * (1 + len(ROUNDS)), effort=effort)
    costs = [
        cost_of(survey, positions_on_shapes(survey, specs, shapes, "cpu").by_layer)
        for survey in map(find_layers, (document, *found))
    ]
    times = [one.timing.median if one.timing else float("nan") for one in taken]
    first = f"{times[0]:.3g} ms"
    macs = [100 * (cost.macs or 0) / (costs[0].macs or 1) for cost in costs[1:]]
    left = [100 * time / times[0] for time in times[1:]]
    return [
        [path.stem, "MACs, %", "100", *_texts(macs)],
        [path.stem, "latency, %", first, *_texts(left)],
    ]


def _texts(numbers: Sequence[float]) -> list[str]:
    return [f"{number:.0f}" for number in numbers]


def _with_dead_channels(
    document: Document, feed: Mapping[str, NDArray[Any]], share: float
) -> Document:
    """Return the model with a share of the channels of every kind zero."""
    survey = find_layers(document)
    trace, groups = trace_channels(survey.model, observe(survey, feed), RULES)
    gone = np.zeros(trace.pool.size, dtype=bool)
    rng = np.random.default_rng(0)
    for kind in coupled(trace, groups):
        gone[kind.roots[rng.random(kind.roots.size) < share]] = True
    return masked(document, trace, groups, leave_one(trace, groups, gone))


if __name__ == "__main__":
    raise SystemExit(main())
