"""What one way to prune does to one task: a value, saved as JSON, and a line of a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from _bench import table, write_aside

from oneshot.child import Finished
from oneshot.tasks import Task
from onnx_relief.errors import ReliefError
from onnx_relief.graph.cost import layer_costs
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.positions import positions_on_data

NOTHING = float("nan")
TOOL: Final = "onnx-relief"
_SAME: Final = 1.5
"""Shares of weights in percent that differ by less are the same."""


class NotKeptError(Exception):
    """A row was wanted that no earlier run has left."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to prune, measured.

    Attributes:
        task: Name of the task, or of the group whose mean this is.
        tool: Who pruned, with version.
        method: How, in words or flags.
        asked: What was asked for, in words.
        weights: Weights of layers that are not zero, in percent of the dense model's.
        stored: Weights of layers that are stored, zero or not, in percent of the dense model's.
        macs: Multiply-accumulates, zeros included, in percent of the dense model's.
        score: What `Task.judge` says.
        error: Distance of the outputs from the dense ones, relative.
        seconds: From start to end of the process that pruned.
        cpu: Seconds of all its threads.
        peak_mb: The most memory it held.
        megabytes: Size of the file that it wrote.
        note: What went wrong, or nothing.
    """

    task: str
    tool: str
    method: str
    asked: str
    weights: float = NOTHING
    stored: float = NOTHING
    macs: float = NOTHING
    score: float = NOTHING
    error: float = NOTHING
    seconds: float = NOTHING
    cpu: float = NOTHING
    peak_mb: float = NOTHING
    megabytes: float = NOTHING
    note: str = ""


_NUMBERS = (
    *("weights", "stored", "macs", "score", "error"),
    *("seconds", "cpu", "peak_mb", "megabytes"),
)


def judged(row: Row, task: Task, finished: Finished, out: Path) -> Row:
    """Return `row` with everything that is measured on what a process wrote."""
    row = replace(row, seconds=finished.seconds, cpu=finished.cpu, peak_mb=finished.peak_mb)
    if finished.code not in (0, 6):  # 6: a target was not reached, the best model is written
        return replace(row, note=_last_line(finished.said) or f"exit code {finished.code}")
    try:
        score, error = task.score(out)
        return replace(
            row,
            **_left(task, out),
            score=score,
            error=error,
            megabytes=out.stat().st_size / 1e6,
            note="target not reached" if finished.code == 6 else "",
        )
    except ReliefError as problem:
        return replace(row, note=str(problem))


def _left(task: Task, out: Path) -> dict[str, Any]:
    dense, now = (_sizes(task, path) for path in (task.model, out))
    kept, stored, macs = (100.0 * after / before for after, before in zip(now, dense, strict=True))
    return {"weights": kept, "stored": stored, "macs": macs}


def _sizes(task: Task, path: Path) -> tuple[float, float, float]:
    """Return weights, of the dense model all of them; what is stored; multiply-accumulates."""
    document = load(path)
    survey = find_layers(document)
    data = task.data(document, calibration=False)
    costs = layer_costs(survey, positions_on_data(survey, data, "cpu").by_layer)
    stored = sum(cost.weights for cost in costs)
    kept = stored if path == task.model else sum(cost.nonzero for cost in costs)
    return float(kept), float(stored), sum(cost.macs or 0.0 for cost in costs)


def mean_of(rows: Sequence[Row], name: str) -> Row:
    """Return the mean of rows that differ in their task alone; the peak is the largest one."""
    first = rows[0]
    if len(rows) == 1:
        return replace(first, task=name)
    means: dict[str, Any] = {
        field: math.fsum(getattr(row, field) for row in rows) / len(rows) for field in _NUMBERS
    }
    notes = "; ".join(dict.fromkeys(row.note for row in rows if row.note))
    means["peak_mb"] = max(row.peak_mb for row in rows)
    return replace(first, task=name, note=notes, **means)


def save(row: Row, path: Path) -> None:
    """Write a row as JSON."""
    write_aside(path, json.dumps(asdict(row), indent=1) + "\n")


def read(path: Path) -> Row | None:
    """Return a row that was saved, or None where there is none."""
    return Row(**json.loads(path.read_text())) if path.exists() else None


def markdown(rows: Iterable[Row], meanings: Mapping[str, str], dense: Mapping[str, float]) -> str:
    """Return a table for every task, in the order in which they come.

    Args:
        rows: Rows of any tasks.
        meanings: By task, what its score is.
        dense: By task, the score of the dense model.
    """
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    parts = []
    for name, found in by_task.items():
        head = ["tool", "method", "asked", "weights left, %", "stored, %", "MACs, %"]
        head += [meanings[name], "error", "s", "cpu s", "peak MB"]
        lines = [_cells(row, _digits(dense[name])) for row in found]
        said = f"Dense: {dense[name]:.{_digits(dense[name])}f} ({meanings[name]})."
        parts += [f"## {name}", said, table(head, lines, left=3)]
        parts += [*_beside_relief(found), *_beside_sparsegpt(found)]
    return "\n\n".join(parts)


def _beside_relief(rows: Sequence[Row]) -> list[str]:
    """Return in words how `relief` does beside the other criteria, all else being equal."""
    sentences = []
    rows = [row for row in rows if not math.isnan(row.score)]
    for row in rows:
        before, plain, after = row.method.partition("--criterion relief")
        ours = [other for other in rows if plain and other.asked == row.asked and other is not row]
        others = {
            other.method[len(before) : len(other.method) - len(after)].split()[-1]: other.score
            for other in ours
            if other.method.startswith(f"{before}--criterion ") and other.method.endswith(after)
        }
        if not others:
            continue
        digits = _digits(row.score)
        ranks: dict[str, list[str]] = {"ahead of": [], "level with": [], "behind": []}
        for name, score in sorted(others.items(), key=lambda pair: -pair[1]):
            far = round(row.score, digits) - round(score, digits)
            place = "ahead of" if far > 0 else "behind" if far < 0 else "level with"
            ranks[place].append(f"{name} ({score:.{digits}f})")
        said = "; ".join(f"{place} {', '.join(names)}" for place, names in ranks.items() if names)
        with_what = after.strip(" `")
        head = f"`--criterion relief {with_what}` at {row.asked}, {row.score:.{digits}f}, is"
        sentences.append(f"{head} {said}.")
    return ["\n".join(sentences)] if sentences else []


def _beside_sparsegpt(rows: Sequence[Row]) -> list[str]:
    """Return in words what the quickest of our ways with as little error takes beside SparseGPT."""
    sentences = []
    whole = [row for row in rows if not math.isnan(row.error)]
    for row in whole:
        if row.tool == TOOL or row.method != "SparseGPT":
            continue
        pattern = "2:4" in row.asked
        beside = [
            one
            for one in whole
            if one.tool == TOOL
            and ("2:4" in one.method) == pattern
            and abs(one.weights - row.weights) < _SAME
            and one.stored == row.stored
        ]
        if not beside:
            continue
        as_good = [one for one in beside if one.error <= row.error]
        if not as_good:
            sentences.append(f"Nothing here has as little error as SparseGPT at {row.asked}.")
            continue
        best = min(as_good, key=lambda one: one.cpu)
        sentences.append(
            f"SparseGPT at {row.asked}: {row.cpu:.1f} cpu s, error {row.error:.3f}, "
            f"{row.peak_mb:.0f} MB; {best.method}: {best.cpu:.1f} cpu s ({best.cpu / row.cpu:.2f} "
            f"of it), error {best.error:.3f}, {best.peak_mb:.0f} MB."
        )
    return ["\n".join(sentences)] if sentences else []


def _digits(dense: float) -> int:
    return 3 if dense <= 1 else 2


def _cells(row: Row, digits: int) -> list[str]:
    cells = [row.tool, row.method, row.asked]
    if row.note and math.isnan(row.score):
        return [*cells, *[""] * 3, f"failed: {row.note[:80]}", "", *_costs(row)]
    cells += [f"{value:.1f}" for value in (row.weights, row.stored, row.macs)]
    score = f"{row.score:.{digits}f}" + (f" ({row.note})" if row.note else "")
    return [*cells, score, f"{row.error:.3f}", *_costs(row)]


def _costs(row: Row) -> list[str]:
    return [
        "" if math.isnan(value) else f"{value:.{1 if value < 100 else 0}f}"
        for value in (row.seconds, row.cpu, row.peak_mb)
    ]


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""
