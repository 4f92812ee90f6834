"""Rows as a page of Markdown: criteria by repairs, then all that was measured, task by task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from _bench import table

from oneshot.crossed import crossed
from oneshot.rows import TOOL, Row

_SAME: Final = 1.5
"""Shares of weights in percent that differ by less are the same."""


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
        parts += _beside_sparsegpt(found)
    return "\n\n".join(parts)


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
