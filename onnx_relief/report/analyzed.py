"""An analysis as tables for a terminal and as a picture."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnx_relief.analysis import CHANNELS, LAYER, Analysis, TrialRow
from onnx_relief.report.plots import Cell, as_page, grid_svg
from onnx_relief.report.table import named_table, sentences
from onnx_relief.report.text import plain, score_text

_TITLES = {LAYER: "layer", CHANNELS: "channels that live or die together"}
_MENTIONED = 3
_NOTHING = 1e-9
_POINT = 0.01
_EXPLAINED = "in brackets: the share that really went; a dash: nothing could go"


def analysis_table(analysis: Analysis) -> RenderableType:
    """Return one line for every layer and every kind of channels, one column for every share."""
    dense = score_text(analysis.dense, analysis.unit)
    parts: list[RenderableType] = [
        Text(f"dense: {analysis.metric} {dense}, on {plain(analysis.data)}", style="bold")
    ]
    for kind in (LAYER, CHANNELS):
        if analysis.names(kind):
            parts.append(_table(analysis, kind))
    parts += sentences([*_explained(analysis), *remarks(analysis), *analysis.notes])
    return Group(*parts)


def remarks(analysis: Analysis) -> Iterator[str]:
    """Yield what the numbers come to."""
    for kind, what in ((LAYER, "layers"), (CHANNELS, "channels")):
        worst = []
        for name in analysis.names(kind):
            last = analysis.rows(kind, name)[-1:]
            worst += [(lost, row) for row in last if (lost := _worse(analysis, row)) is not None]
        worst.sort(key=lambda pair: -pair[0])
        named = ", ".join(repr(row.name) for lost, row in worst[:_MENTIONED] if lost > _NOTHING)
        if named and len(worst) > 1:
            yield f"the most sensitive {what}: {named}"


def analysis_svg(analysis: Analysis) -> str:
    """Return the tables as one picture, worse numbers redder."""
    lost = [_worse(analysis, row) for row in analysis.trials]
    worst = max((loss for loss in lost if loss is not None), default=0.0)
    rows = []
    for kind in (LAYER, CHANNELS):
        for name in analysis.names(kind):
            found = {row.sparsity: row for row in analysis.rows(kind, name)}
            rows.append((name, [_cell(analysis, found.get(s), worst) for s in _shares(analysis)]))
    dense = score_text(analysis.dense, analysis.unit)
    title = f"{analysis.model}: {analysis.metric} with one part pruned alone (dense {dense})"
    columns = [_share(share) for share in _shares(analysis)]
    return grid_svg(title, columns, rows, notes=_explained(analysis))


def analysis_page(analysis: Analysis) -> str:
    """Return the picture as a page of HTML."""
    return as_page(analysis_svg(analysis), f"Sensitivity of {analysis.model}")


def _cell(analysis: Analysis, row: TrialRow | None, worst: float) -> Cell:
    """Return a field of the picture; empty where that share was not tried."""
    if row is None:
        return Cell(text="", heat=None)
    loss = None if _is_empty(row) else _worse(analysis, row)
    heat = None if loss is None else loss / worst if worst > 0 else 0.0
    return Cell(text=_score(analysis, row), heat=heat)


def _table(analysis: Analysis, kind: str) -> Table:
    columns = [f"without {_share(share)}" for share in analysis.shares(kind)]
    structure = analysis.granularity.split(",")[0]
    if kind == LAYER and ":" in structure:  # N of M: it says itself what goes
        columns = [structure]
    table = named_table(_TITLES[kind], *columns)
    for name in analysis.names(kind):
        rows = analysis.rows(kind, name)
        table.add_row(Text(plain(name)), *(_score(analysis, row) for row in rows))
    return table


def _worse(analysis: Analysis, row: TrialRow) -> float | None:
    """Return by how much a trial is worse than the dense model; None where that is not known."""
    lost = analysis.lost(row)
    return None if lost is None else max(lost, 0.0)


def _shares(analysis: Analysis) -> list[float]:
    return sorted(set(analysis.sparsities))


def _score(analysis: Analysis, row: TrialRow) -> str:
    """Return what a trial showed, with the share that went where that is not what was to go."""
    if _is_empty(row):
        return "-"
    text = score_text(row.score, analysis.unit)
    return f"{text} ({100 * (1 - row.kept):.0f} %)" if _is_other(row) else text


def _explained(analysis: Analysis) -> list[str]:
    """Return what marked scores mean, where there are any."""
    return [_EXPLAINED] if any(map(_is_other, analysis.trials)) else []


def _is_other(row: TrialRow) -> bool:
    """Whether another share went than the one that the column names."""
    return _is_empty(row) or abs(1 - row.kept - row.sparsity) > _POINT + _NOTHING


def _is_empty(row: TrialRow) -> bool:
    """Whether nothing went although something was to go: its score says nothing."""
    return row.kept == 1 and row.sparsity > 0


def _share(share: float) -> str:
    return f"{100 * share:.4g} %"
