"""The iterations of a run as lines and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from onnx_relief.history import IterationRow
from onnx_relief.report.table import named_table
from onnx_relief.report.text import score_text


def iterations_table(rows: Sequence[IterationRow], best: IterationRow, unit: str) -> Table:
    """Return one line per iteration; the one that was kept has a star.

    Args:
        rows: The dense model, then the iterations.
        best: The one that was kept.
        unit: Of the scores.
    """
    table = named_table(
        "iteration", "alpha", "pruned", "retrained", "left", "times smaller", "MACs"
    )
    for row in rows:
        table.add_row(
            f"{row.iteration}{' *' if row is best else ''}" if row.iteration else "dense",
            _alphas(row) if row.iteration else "",
            score_text(row.metric_pruned, unit) if row.iteration else "",
            score_text(row.metric_retrained, unit),
            f"{row.remaining:.2f} %",
            f"{row.compression:.1f}",
            "-" if row.flops is None else f"{row.flops / 2:,.0f}",
        )
    return table


def iteration_line(row: IterationRow) -> str:
    """Return one iteration as a line of progress."""
    if not row.iteration:
        return f"dense: {row.metric_retrained:.2f}"
    return (
        f"iteration {row.iteration}: {row.remaining:.2f} % left, pruned {row.metric_pruned:.2f}, "
        f"retrained {row.metric_retrained:.2f} ({row.seconds:.0f} s)"
    )


def _alphas(row: IterationRow) -> str:
    conv, others = row.alpha
    return f"{conv:g}" if conv == others else f"{conv:g}, {others:g}"
