"""Which channels live or die together: a value, and the same as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.text import Text

from onnx_relief.report.table import grouped, named_table
from onnx_relief.report.text import count_text, plain, plural


@dataclass(frozen=True, kw_only=True)
class GroupMember:
    """An axis of a constant that groups of channels run through.

    Attributes:
        constant: Its name.
        axis: The axis, as stored.
        entries: How many entries of the axis belong to these groups.
        size: Length of the axis.
    """

    constant: str
    axis: int
    entries: int
    size: int


@dataclass(frozen=True, kw_only=True)
class CoupledRow:
    """Groups of channels that run through the same constants; each of them can go as a whole.

    Attributes:
        groups: How many.
        members: What they run through.
        parameters: Elements that would be gone without any of them.
        macs: Multiply-accumulates per sample that would be; None where they are not known.
    """

    groups: int
    members: tuple[GroupMember, ...]
    parameters: int
    macs: float | None


@dataclass(frozen=True, kw_only=True)
class StaysRow:
    """Groups of channels that stay.

    Attributes:
        reason: Why.
        groups: How many.
    """

    reason: str
    groups: int


def groups_table(
    rows: Sequence[CoupledRow], stays: Sequence[StaysRow], *, verbose: bool = False
) -> list[RenderableType]:
    """Return one line for each kind of group, and what stays and why; all names if `verbose`."""
    table = named_table("runs through", "axes", "groups", "parameters", "MACs", left=())
    for row in rows:
        table.add_row(
            Text(plain(_named(row, verbose))),
            f"{len(row.members):,}",
            f"{row.groups:,}",
            f"{row.parameters:,}",
            count_text(row.macs),
        )
    total = sum(row.groups for row in rows)
    head = Text(f"Channels that live or die together: {plural(total, 'group')}", style="bold")
    reasons = [(row.reason, plural(row.groups, "group")) for row in stays]
    return [head, table, *grouped("Channels that stay", reasons, verbose)]


def _named(row: CoupledRow, verbose: bool) -> str:
    """Return the constants, those with most entries first, with the axis that is cut."""
    members = row.members if verbose else row.members[:_NAMED]
    named = [
        f"{one.constant}[{one.axis}]" + ("" if one.entries == one.size else f" {one.entries:,}")
        for one in members
    ]
    more = len(row.members) - len(members)
    return ", ".join(named) + (f" and {more} more" if more else "")


_NAMED = 3
