"""Criteria by repairs, for every budget: what differs in those two alone, side by side."""

from __future__ import annotations

import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from _bench import table

from oneshot.rows import TOOL, Row

_REPAIRS: Final = ("none", "bias", "least-squares", "reconstruct")
_EPOCHS: Final = "--repair-epochs"
_PLAIN: Final = "relief"
_DEFAULT: Final = "obs"
"""The criterion that the tool takes with a budget."""


@dataclass(frozen=True, order=True, kw_only=True)
class Place:
    """Where a row stands: the other flags in words, the budget, the criterion, the repair.

    A repair of so many epochs is one of its own.
    """

    flags: str
    asked: str
    criterion: str
    repair: str


def place_of(row: Row) -> Place | None:
    """Return where a row stands; None where it is not of this package or names no repair."""
    if row.tool != TOOL or "--repair" not in row.method or math.isnan(row.score):
        return None
    words = shlex.split(row.method.strip("`"))
    found = {"--criterion": _DEFAULT, "--repair": "", _EPOCHS: ""}
    for flag in found:
        if flag in words:
            at = words.index(flag)
            found[flag] = words[at + 1]
            del words[at : at + 2]
    return Place(
        flags=shlex.join(words),
        asked=row.asked,
        criterion=found["--criterion"],
        repair=found["--repair"] + (f" {_EPOCHS} {found[_EPOCHS]}" if found[_EPOCHS] else ""),
    )


def crossed(rows: Sequence[Row], digits: int) -> tuple[list[str], list[Row]]:
    """Return Markdown of the rows that differ in criterion or repair, and rows for other tables.

    Those with the default criterion are among the latter, too.

    Args:
        rows: Those of one task.
        digits: Digits of its scores.
    """
    at = {place: row for row in rows if (place := place_of(row)) is not None}
    criteria: dict[str, dict[str, None]] = defaultdict(dict)
    for place in at:
        criteria[place.flags][place.criterion] = None
    parts, shown = [], set()
    for flags, names in criteria.items():
        if len(names) == 1:
            continue
        here = {place: row for place, row in at.items() if place.flags == flags}
        parts += [f"`{flags}`: score, error, cpu s.", _matrix(here, digits), *_beside_plain(here)]
        shown |= {id(row) for place, row in here.items() if place.criterion != _DEFAULT}
    return parts, [row for row in rows if id(row) not in shown]


def _matrix(here: dict[Place, Row], digits: int) -> str:
    repairs = _repairs(here)
    lines = []
    for asked, criterion in dict.fromkeys((place.asked, place.criterion) for place in here):
        found = {
            p.repair: r for p, r in here.items() if (p.asked, p.criterion) == (asked, criterion)
        }
        cells = [_cell(found[one], digits) if one in found else "" for one in repairs]
        lines.append([asked, criterion, *cells])
    return table(["budget", "criterion", *repairs], lines, left=2)


def _repairs(here: dict[Place, Row]) -> list[str]:
    """Return the repairs of some rows, the simplest first."""
    return sorted({p.repair for p in here}, key=lambda one: (_REPAIRS.index(one.split()[0]), one))


def _cell(row: Row, digits: int) -> str:
    seconds = f"{row.cpu:.{1 if row.cpu < 10 else 0}f}"
    return f"{row.score:.{digits}f}, {row.error:.3f}, {seconds}"


def _beside_plain(here: dict[Place, Row]) -> list[str]:
    """Return in words at how many budgets the plain score is behind each other criterion."""
    sentences = []
    for repair in _repairs(here):
        plain = {p.asked: r for p, r in here.items() if (p.criterion, p.repair) == (_PLAIN, repair)}
        behind: dict[str, list[bool]] = defaultdict(list)
        for place, row in here.items():
            if place.repair == repair and place.criterion != _PLAIN and place.asked in plain:
                behind[place.criterion].append(plain[place.asked].score < row.score)
        if behind:
            said = ", ".join(f"{n} at {sum(b)} of {len(b)} budgets" for n, b in behind.items())
            sentences.append(f"Plain `{_PLAIN}` with `--repair {repair}` is behind {said}.")
    return ["\n".join(sentences)] if sentences else []
