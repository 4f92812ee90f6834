"""Rows as a page of Markdown: criteria by repairs, then all that was measured, task by task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from _bench import table

from oneshot.crossed import crossed
from oneshot.rows import Row


def markdown(rows: Iterable[Row], meanings: Mapping[str, str], dense: Mapping[str, float]) -> str:
    """Return a section for every task, in the order in which they come.

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
        digits = _digits(dense[name])
        head = ["tool", "method", "asked", "weights left, %", "stored, %", "MACs, %"]
        head += [meanings[name], "error", "s", "cpu s", "peak MB"]
        side_by_side, others = crossed(found, digits)
        parts += [
            f"## {name}",
            f"Dense: {dense[name]:.{digits}f} ({meanings[name]}).",
            *side_by_side,
        ]
        parts += [table(head, [_cells(row, digits) for row in others], left=3)]
    return "\n\n".join(parts)


def _digits(dense: float) -> int:
    """Return how many digits a score of this size is shown with."""
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
