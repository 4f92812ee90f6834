"""A trade-off curve: what each model on it costs and how good it is, as a value, table, picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from onnx_relief.report.build import as_plain
from onnx_relief.report.plots import Point, as_page, trade_off_svg
from onnx_relief.report.table import named_table, repair_sentences, sentences
from onnx_relief.report.text import bytes_text, plain, score_text, share_text, time_text
from onnx_relief.results import Evaluation, Latency, ModelCost, RepairRow

FORMAT = "onnx-relief sweep 1"
_POINT = 0.01
_EXPLAINED = "in brackets: the share of the channels that really went"


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One model on the curve.

    Attributes:
        share: The share that was to go.
        written: Where the model lies.
        cost: What it costs.
        evaluation: How it compares with the dense model.
        latency: Of the dense model and of this one.
        repair: How its repair turned out; None where there was none.
        missed: What was asked and not reached, in words.
        went: The share of the channels that went; None where weights did, which add up to it.
    """

    share: float
    written: str
    cost: ModelCost
    evaluation: Evaluation | None
    latency: Latency | None
    repair: RepairRow | None = None
    missed: str | None = None
    went: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A trade-off curve.

    Attributes:
        dense: What the dense model costs.
        points: The models, the share that goes rising; at least one.
        settings: What the user chose.
        notes: What has to be said of all of them, in sentences.
    """

    dense: ModelCost
    points: tuple[SweepPoint, ...]
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"format": FORMAT, **as_plain(self)}


def sweep_table(sweep: Sweep) -> RenderableType:
    """Return one line for every model."""
    dense = sweep.dense
    columns = ("parameters", "MACs", "file", "zipped", "latency", _metric(sweep.points))
    table = named_table("without", *columns)
    first = sweep.points[0]
    table.add_row(
        Text("dense"),
        *("100 %", "100 %", bytes_text(dense.plain), bytes_text(dense.zipped)),
        _time(first.latency, 0),
        _score(first.evaluation, dense=True),
    )
    for point in sweep.points:
        cost = point.cost
        table.add_row(
            Text(_without(point)),
            share_text(cost.nonzero, dense.nonzero),
            share_text(cost.effective_macs or 0.0, dense.effective_macs or 0.0),
            bytes_text(cost.plain),
            bytes_text(cost.zipped),
            _time(point.latency, 1),
            _score(point.evaluation),
        )
    same = _said_of_all(sweep.points)
    told = [
        f"without {100 * point.share:.4g} %: {sentence}"
        for point in sweep.points
        for sentence in (
            *(repair_sentences(point.repair) if point.repair else ()),
            *((point.missed,) if point.missed else ()),
            *(note for note in _notes(point) if note not in same),
        )
    ]
    note = "parameters and MACs that are not zero, of the dense model's"
    told[:0] = [_EXPLAINED] if any(map(_is_other, sweep.points)) else []
    models = [Text(f"pruned model: {plain(point.written)}") for point in sweep.points]
    return Group(table, *sentences([note, *told, *same, *sweep.notes]), *models)


def sweep_svg(sweep: Sweep) -> str:
    """Return the curve: the metric against the parameters that are left."""
    points = [
        Point(
            across=100 * point.cost.nonzero / max(sweep.dense.nonzero, 1),
            up=point.evaluation.pruned,
            name=f"-{_without(point)}",
        )
        for point in sweep.points
        if point.evaluation is not None and point.evaluation.pruned is not None
    ]
    dense = sweep.points[0].evaluation
    if dense is not None and dense.dense is not None:
        points.insert(0, Point(across=100.0, up=dense.dense, name="dense"))
    across = "parameters that are not zero, % of the dense model's"
    return trade_off_svg(sweep.dense.name, across, _metric(sweep.points), points)


def sweep_page(sweep: Sweep) -> str:
    """Return the curve as a page of HTML."""
    return as_page(sweep_svg(sweep), f"Trade-off of {sweep.dense.name}")


def _without(point: SweepPoint) -> str:
    """Return the share that was to go, with the one that went where that is another."""
    asked = f"{100 * point.share:.4g} %"
    return f"{asked} ({100 * (point.went or 0.0):.0f} %)" if _is_other(point) else asked


def _is_other(point: SweepPoint) -> bool:
    """Whether another share of the channels went: some stay, or only multiples go."""
    return point.went is not None and abs(point.went - point.share) > _POINT


def _notes(point: SweepPoint) -> tuple[str, ...]:
    return () if point.evaluation is None else point.evaluation.notes


def _said_of_all(points: Sequence[SweepPoint]) -> list[str]:
    """Return what the comparison of every model says: it is about the data or the dense model."""
    first, *others = map(_notes, points)
    return [note for note in first if all(note in notes for notes in others)]


def _metric(points: Sequence[SweepPoint]) -> str:
    found = points[0].evaluation
    return "metric" if found is None else found.metric


def _score(found: Evaluation | None, *, dense: bool = False) -> str:
    if found is None:
        return "-"
    return score_text(found.dense if dense else found.pruned, found.unit)


def _time(latency: Latency | None, place: int) -> str:
    return "-" if latency is None else time_text(latency.timings[place].median)
