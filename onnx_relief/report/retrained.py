"""What `retrain` has to tell, as a value, as JSON, and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.table import named_table, sentences
from onnx_relief.report.text import plain, score_text
from onnx_relief.results import Score
from onnx_relief.training import EpochRow, Trained

FORMAT = "onnx-relief retraining 1"
_SHOWN: Final = 12
"""Epochs that the table shows, the last ones, unless everything is asked for."""


@dataclass(frozen=True, kw_only=True)
class RetrainReport:
    """All that can be said about one run of `retrain`.

    Attributes:
        versions: Of this package and of what it ran with.
        settings: What the user chose, by flag.
        before: How good the model was.
        after: How good it is now.
        trained: How training went.
        weights: Numbers that were trained.
        held: Numbers that were held at zero.
        differences: How far torch and ONNX Runtime lay apart, by output.
        teacher: What the model learned from besides labels, or None.
        advice: What to make of it, in sentences.
    """

    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    before: Score
    after: Score
    trained: Trained
    weights: int
    held: int
    differences: Mapping[str, float]
    teacher: str | None
    advice: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data: dicts, lists, numbers, text, None."""
        return {"format": FORMAT, **as_plain(self)}

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return to_json(self.to_dict())


def retrain_table(report: RetrainReport, *, verbose: bool = False) -> RenderableType:
    """Return epochs, scores and what to make of them."""
    rows = report.trained.history if verbose else report.trained.history[-_SHOWN:]
    table = named_table("epoch", "training loss", "validation loss", "validation accuracy", "rate")
    for row in (*((report.trained.start,) if report.trained.start else ()), *rows):
        table.add_row(*epoch_cells(row, best=row.epoch == report.trained.best_epoch))
    scores = Table(box=None, pad_edge=False)
    scores.add_column("")
    for name in ("before", "after"):
        scores.add_column(name, justify="right")
    scores.add_row(
        Text(plain(f"{report.after.metric} of {report.after.output!r}")),
        *(score_text(score.value, score.unit) for score in (report.before, report.after)),
    )
    total = report.weights + report.held
    lines = (
        f"{report.weights:,} weights trained, {report.held:,} of {total:,} held at zero.",
        f"Judged on {report.after.data}.",
        *report.advice,
    )
    return Group(table, Text(), scores, *sentences(lines))


def epoch_cells(row: EpochRow, *, best: bool = False) -> list[str]:
    """Return one epoch as the cells of a table."""
    accuracy = "-" if row.validation_accuracy is None else f"{row.validation_accuracy:.2f} %"
    loss = "-" if row.validation_loss is None else f"{row.validation_loss:.5f}"
    return [
        f"{row.epoch or 'before'}{' *' if best else ''}",
        "-" if row.train_loss is None else f"{row.train_loss:.5f}",
        loss,
        accuracy,
        f"{row.lr:.2e}" if row.epoch else "-",
    ]


def epoch_line(row: EpochRow, total: int) -> str:
    """Return one epoch as a line of progress."""
    parts = [f"epoch {row.epoch}/{total}"]
    if row.train_loss is not None:
        parts.append(f"loss {row.train_loss:.4f}")
    if row.validation_loss is not None:
        parts.append(f"validation {row.validation_loss:.4f}")
    if row.validation_accuracy is not None:
        parts.append(f"{row.validation_accuracy:.2f} %")
    return ", ".join([*parts, f"{row.seconds:.1f} s"])
