"""Where the time of a model goes, operator by operator, from ONNX Runtime's own profile."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from _bench import in_child, table
from numpy.typing import NDArray

from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.graph.nodes import node_key
from onnx_relief.measuring.positions import made_up_feed
from onnx_relief.runtime import load_onnxruntime

RUNS: Final = 5
SHOWN: Final = 6
_MARKS: Final = ("_kernel_time", "_nchwc", "_token")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one node takes.

    Attributes:
        op: Its operator, as ONNX Runtime runs it.
        milliseconds: Median over the runs.
    """

    op: str
    milliseconds: float


Profile = dict[str, Spent]


def profile(path: Path, batch: int, threads: int) -> Profile:
    """Return what every node of a model takes, by the name of its first output or its own.

    Raises:
        ChildError: The model could not be run.
    """
    arguments = ["--model", str(path), "--batch", str(batch), "--threads", str(threads)]
    found = in_child(__file__, arguments, timeout=1200)
    return {name: Spent(**told) for name, told in found.items()}


def explained(dense: Profile, small: Profile, work: Mapping[str, tuple[float, float]]) -> str:
    """Return what takes longer than its work says, by operator and by node, as Markdown.

    Args:
        dense: Profile of the dense model.
        small: Profile of the smaller one.
        work: Multiply-accumulates of both by name of node, where they are known.
    """
    operators = _by_operator(dense, small)
    whole = [sum(spent.milliseconds for spent in one.values()) for one in (dense, small)]
    rows = [
        [op, f"{before:.2f}", f"{after:.2f}", f"{100 * after / before:.0f}" if before else "-"]
        for op, (before, after) in operators[:SHOWN]
    ]
    rows.append(["all", *(f"{one:.2f}" for one in whole), f"{100 * whole[1] / whole[0]:.0f}"])
    parts = [table(["operator", "dense, ms", "smaller, ms", "left, %"], rows)]
    nodes = [
        [
            name,
            spent.op,
            f"{100 * work[name][1] / work[name][0]:.0f}",
            f"{before:.2f}",
            f"{after:.2f}",
        ]
        for name, spent, before, after in _behind(dense, small, work)[:SHOWN]
    ]
    if nodes:
        head = ["node", "operator", "MACs left, %", "dense, ms", "smaller, ms"]
        parts.append("Nodes whose time fell least for their work:")
        parts.append(table(head, nodes, left=2))
    changed = _other_kernels(dense, small)
    if changed:
        parts.append(f"Run by another kernel than before: {changed}.")
    return "\n\n".join(parts)


def _by_operator(dense: Profile, small: Profile) -> list[tuple[str, tuple[float, float]]]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for place, one in enumerate((dense, small)):
        for spent in one.values():
            sums[spent.op][place] += spent.milliseconds
    return sorted(
        ((op, (both[0], both[1])) for op, both in sums.items()), key=lambda pair: -max(pair[1])
    )


def _behind(
    dense: Profile, small: Profile, work: Mapping[str, tuple[float, float]]
) -> list[tuple[str, Spent, float, float]]:
    """Return the nodes by how much longer they take than their work says."""
    found = []
    for name in work.keys() & dense.keys() & small.keys():
        before, after = dense[name].milliseconds, small[name].milliseconds
        excess = after - before * work[name][1] / work[name][0]
        found.append((excess, name, small[name], before, after))
    return [(name, spent, before, after) for _, name, spent, before, after in sorted(found)[::-1]]


def _other_kernels(dense: Profile, small: Profile) -> str:
    counts = Counter(
        (dense[name].op, small[name].op)
        for name in dense.keys() & small.keys()
        if dense[name].op != small[name].op
    )
    return ", ".join(f"{count} nodes {one} -> {other}" for (one, other), count in counts.items())


def _profiled(document: Document, batch: int, threads: int) -> Profile:
    runtime = load_onnxruntime()
    for node in document.proto.graph.node:  # what ONNX Runtime puts in its place is named after it
        node.name = node.output[0]
    with tempfile.TemporaryDirectory() as folder:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = runtime.InferenceSession(
            document.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = _feed(document, batch)
        for _ in range(RUNS + 1):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _spent(events)


def _feed(document: Document, batch: int) -> Mapping[str, NDArray[Any]]:
    inputs = input_specs(document.proto)
    shapes = {
        spec.name: (batch, *(int(size or 1) for size in spec.shape[1:] if isinstance(size, int)))
        for spec in inputs
        if spec.shape and not isinstance(spec.shape[0], int)
    }
    feed = made_up_feed(inputs, shapes)
    assert feed is not None, "the models of this tool take pictures"
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(array.shape).astype(array.dtype) for name, array in feed.items()
    }


def _spent(events: list[dict[str, Any]]) -> Profile:
    """Return the median of every node's runs, the first of which warms up."""
    times: dict[str, list[float]] = defaultdict(list)
    ops: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_MARKS[0]):
            name = event["name"]
            told = event["args"]["op_name"]
            blocked = "_nchwc" in name
            for mark in _MARKS:
                name = name.removesuffix(mark)
            times[name].append(event["dur"] / 1000)
            ops[name] = f"{told} (in blocks of channels)" if blocked else told
    return {
        name: Spent(op=ops[name], milliseconds=median(found[1:])) for name, found in times.items()
    }


def named(document: Document) -> list[str]:
    """Return what the nodes of a model are called in its profile."""
    return [node.output[0] or node_key(node) for node in document.proto.graph.node]


def main() -> int:
    """Profile one model in this process; `profile` starts it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--result", type=Path, required=True)
    options = parser.parse_args()
    found = _profiled(load(options.model), options.batch, options.threads)
    options.result.write_text(json.dumps({name: vars(one) for name, one in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
