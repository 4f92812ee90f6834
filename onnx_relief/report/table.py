"""A report as tables for a terminal. Every name is escaped: it comes from a file of a stranger."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from onnx_relief.report.build import LayerRow, RefusalRow, Report
from onnx_relief.report.text import (
    bytes_text,
    change_text,
    count_text,
    plain,
    plural,
    score_text,
    share_text,
    time_text,
)
from onnx_relief.results import Evaluation, Latency, ModelCost, RepairRow, Score

NO_WHOLE_UNITS: Final = (
    "Layers that lose connections to a mask, but no whole units "
    "(`compact` and --granularity channel can follow more)"
)
_NAMED: Final = 3
"""How many layers or nodes a reason names before it only counts them."""

_QUOTED: Final = re.compile(r"'[^']*'")


def report_table(report: Report, *, verbose: bool = False) -> RenderableType:
    """Return everything worth knowing of a run of `prune`; all refusals only if `verbose`."""
    parts: list[RenderableType] = [
        layer_table(report.layers),
        totals_table(report.dense, report.pruned, report.latency, report),
    ]
    if report.evaluation is not None:
        parts.append(evaluation_table(report.evaluation))
    if report.repair is not None:
        parts += sentences(repair_sentences(report.repair))
    parts += left_alone_lines(report.layers, report.refusals, verbose=verbose)
    parts += sentences(report.advice)
    return Group(*parts)


@dataclass(frozen=True)
class Counts:
    """What a table counts, and how many of it a layer had and has."""

    name: str
    before: Callable[[LayerRow], int]
    after: Callable[[LayerRow], int]


_KERNELS: Final = Counts("connections", lambda row: row.connections, lambda row: row.kept)
_WEIGHTS: Final = Counts("weights", lambda row: row.weights, lambda row: row.nonzero)


def counts_of(rows: Iterable[LayerRow]) -> Counts:
    """Return what says more: connections, which are kernels, or single weights.

    Half of all weights may be zero while hardly a kernel of a convolution is.
    """
    whole = all(row.nonzero * row.connections == row.kept * row.weights for row in rows)
    return _KERNELS if whole else _WEIGHTS


def layer_table(rows: Sequence[LayerRow]) -> Table:
    """Return one line per layer."""
    counted = counts_of(rows)
    table = named_table("layer", "op", counted.name, "kept", "% kept", "units", "alive", "removed")
    for row in rows:
        before, after = counted.before(row), counted.after(row)
        table.add_row(
            Text(plain(row.name), style="" if row.left_alone is None else "dim"),
            Text(plain(row.op)),
            f"{before:,}",
            f"{after:,}" if row.left_alone is None else "left alone",
            share_text(after, before),
            f"{row.units:,}",
            f"{row.alive:,}",
            f"{row.removed:,}" if row.removed else "-",
        )
    return table


def totals_table(
    dense: ModelCost,
    pruned: ModelCost,
    latency: Latency | None,
    report: Report | None = None,
    names: tuple[str, str] = ("dense", "pruned"),
) -> Table:
    """Return size, work and time of two models side by side."""
    table = named_table("", *names, "left")
    if report is not None:
        counted = counts_of(report.layers)
        before = sum(map(counted.before, report.layers))
        after = sum(map(counted.after, report.layers))
        _add_counts(table, counted.name, before, after)
    _add_counts(table, "parameters, all", dense.parameters, pruned.parameters)
    _add_counts(table, "parameters, not zero", dense.nonzero, pruned.nonzero)
    _add_counts(table, "MACs, zeros included", dense.macs, pruned.macs)
    _add_counts(table, "MACs, zeros skipped", dense.effective_macs, pruned.effective_macs)
    for label, before, after in (
        ("file", dense.plain, pruned.plain),
        ("file, zipped", dense.zipped, pruned.zipped),
    ):
        table.add_row(label, bytes_text(before), bytes_text(after), share_text(after, before))
    if latency is not None:
        first, second = latency.timings
        table.add_row(
            _latency_label(latency),
            time_text(first.median),
            time_text(second.median),
            share_text(second.median, first.median),
        )
    return table


def _latency_label(latency: Latency) -> str:
    threads = f", {plural(latency.threads, 'thread')}" if latency.threads else ""
    return f"latency, {plural(latency.samples, 'sample')}{threads}"


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """Return the score and the difference of every output."""
    table = named_table("output", "largest difference", "relative error", "mean cosine")
    for gap in evaluation.differences:
        values = (gap.largest, gap.relative_error, gap.cosine)
        table.add_row(Text(plain(gap.output)), *(score_text(value, "") for value in values))
    return (
        Group(score_line(evaluation), table) if evaluation.differences else score_line(evaluation)
    )


def left_alone_lines(
    rows: Iterable[LayerRow], refusals: Iterable[RefusalRow], *, verbose: bool = False
) -> list[RenderableType]:
    """Return what was left alone and why, grouped by reason."""
    layers = [(row.left_alone, row.name) for row in rows if row.left_alone]
    nodes = [(refusal.reason, f"{refusal.op} {refusal.node}") for refusal in refusals]
    units = [(row.not_followed, row.name) for row in rows if row.not_followed]
    return [
        *grouped("Layers left alone", layers, verbose),
        *grouped("Nodes with constants that are no layers", nodes, verbose),
        *grouped(NO_WHOLE_UNITS, units, verbose),
    ]


def sentences(texts: Iterable[str]) -> list[RenderableType]:
    """Return sentences, one to a line."""
    return [Text(f"- {plain(text)}") for text in texts]


def repair_sentences(repair: RepairRow) -> list[str]:
    """Return how a repair turned out."""
    said = []
    if repair.before is not None and repair.before == repair.after:
        said.append(f"repair by {repair.kind} changes nothing on held-out samples")
    elif repair.before is not None and repair.after is not None:
        change = change_text(repair.before, repair.after)
        what = "the mean square error of the outputs on held-out samples, relative to their size,"
        end = ", so the repair is undone" if repair.undone else ""
        said.append(f"repair by {repair.kind} takes {what} {change}{end}")
    return [*said, *repair.notes]


def score_line(found: Evaluation | Score) -> Text:
    """Return metric, score and data on one line."""
    scores = _one_score(found) if isinstance(found, Score) else _both_scores(found)
    text = f"{found.metric} of {plain(found.output)}: {scores}, on {plain(found.data)}"
    return Text(text, style="bold")


def _one_score(score: Score) -> str:
    return score_text(score.value, score.unit)


def _both_scores(evaluation: Evaluation) -> str:
    now = score_text(evaluation.pruned, evaluation.unit)
    known = evaluation.margin is not None
    to = f" (to {evaluation.margin:.1f} points, with 95 % confidence)" if known else ""
    if evaluation.dense is not None:
        return f"{score_text(evaluation.dense, evaluation.unit)} -> {now}{to}"
    return f"{now} with the dense model{to}" if evaluation.metric == "agreement" else now


def grouped(
    title: str, entries: Iterable[tuple[str | None, str]], verbose: bool
) -> list[RenderableType]:
    """Return (reason, name) pairs as one line per reason, all names only if `verbose`."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for reason, name in entries:
        # Reasons that differ in the names of nodes only are one reason.
        groups.setdefault(_QUOTED.sub("...", str(reason)), []).append((str(reason), name))
    if not groups:
        return []
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right")
    grid.add_column(overflow="fold")
    for general, members in groups.items():
        reason = members[0][0] if len({reason for reason, _ in members}) == 1 else general
        shown = members if verbose else members[:_NAMED]
        more = f" and {len(members) - len(shown)} more" if len(members) > len(shown) else ""
        named = ", ".join(plain(name) for _, name in shown)
        grid.add_row(f"  {len(members):,} x", Text(f"{plain(reason)}: {named}{more}"))
    return [Text(f"{title}:", style="bold"), grid]


def _add_counts(table: Table, label: str, before: float | None, after: float | None) -> None:
    if before is None or after is None:
        return
    table.add_row(label, count_text(before), count_text(after), share_text(after, before))


def named_table(first: str, *others: str, left: tuple[str, ...] = ("op",)) -> Table:
    """Return an empty table; columns but the first are right-aligned if not in `left`."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        justify: JustifyMethod = "left" if name in left else "right"
        table.add_column(Text(plain(name)), justify=justify, overflow="fold")
    return table
