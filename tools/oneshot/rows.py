"""What one way to prune does to one task: a value, saved as JSON, and a line of a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from _bench import write_aside

from oneshot.child import Finished
from oneshot.tasks import Task
from onnx_relief.errors import ReliefError
from onnx_relief.graph.cost import layer_costs
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.positions import positions_on_data

NOTHING = float("nan")
TOOL: Final = "onnx-relief"


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


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""
