"""Pictures that need nothing but a browser: SVG text, every name and number in it escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from typing import Final

from onnx_relief.report.text import plain

_ROW, _CELL, _TOP, _LABEL = 22, 104, 64, 330
_LONGEST: Final = 46
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 64


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One field of a grid.

    Attributes:
        text: What it says.
        heat: How bad it is, 0 to 1; None where nothing is known.
    """

    text: str
    heat: float | None


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a curve.

    Attributes:
        across: Where it lies on the horizontal axis.
        up: Where it lies on the vertical axis.
        name: What it is called.
    """

    across: float
    up: float
    name: str


def grid_svg(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    *,
    notes: Sequence[str] = (),
) -> str:
    """Return a grid of numbers, the worse the redder.

    Args:
        title: What the numbers are.
        columns: Names of the columns.
        rows: Name and cells of every row.
        notes: What is said below them, one to a line.
    """
    width = _LABEL + _CELL * len(columns) + 12
    bottom = _TOP + _ROW * len(rows)
    height = bottom + _ROW * len(notes) + 12
    parts = [_text(12, 24, title, size=14)]
    for place, column in enumerate(columns):
        parts.append(_text(_LABEL + (place + 0.5) * _CELL, _TOP - 10, column, anchor="middle"))
    for number, (name, cells) in enumerate(rows):
        top = _TOP + number * _ROW
        parts.append(_text(_LABEL - 8, top + 15, _shortened(name), anchor="end", full=name))
        for place, cell in enumerate(cells):
            left = _LABEL + place * _CELL
            parts.append(
                f'<rect x="{left}" y="{top}" width="{_CELL - 2}" height="{_ROW - 2}" '
                f'fill="{_colour(cell.heat)}"/>'
            )
            parts.append(_text(left + _CELL / 2 - 1, top + 15, cell.text, anchor="middle"))
    parts += [_text(12, bottom + 15 + _ROW * line, note) for line, note in enumerate(notes)]
    return _picture(width, height, parts)


def trade_off_svg(title: str, across: str, up: str, points: Sequence[Point]) -> str:
    """Return a curve through points, each with its name.

    Args:
        title: What is shown.
        across: What the horizontal axis is.
        up: What the vertical axis is.
        points: Where the curve goes, in this order; those that are no numbers are left out.
    """
    shown = [point for point in points if isfinite(point.across) and isfinite(point.up)]
    left, right = _range([point.across for point in shown])
    low, high = _range([point.up for point in shown])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _MARGIN + (x - left) / (right - left) * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - (y - low) / (high - low) * (_HEIGHT - 2 * _MARGIN),
        )

    parts = [_text(_MARGIN, 28, title, size=14)]
    for step in range(6):
        x, y = left + step * (right - left) / 5, low + step * (high - low) / 5
        (at_x, bottom), (at_left, at_y) = place(x, low), place(left, y)
        parts += [_line(at_x, bottom, at_x, _MARGIN), _line(at_left, at_y, _WIDTH - _MARGIN, at_y)]
        parts.append(_text(at_x, bottom + 16, f"{x:.4g}", anchor="middle"))
        parts.append(_text(at_left - 6, at_y + 4, f"{y:.4g}", anchor="end"))
    places = [place(point.across, point.up) for point in shown]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>')
    for point, (x, y) in zip(shown, places, strict=True):
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f6feb"><title>'
            f"{_safe(point.name)}: {point.up:.4g} at {point.across:.4g}</title></circle>"
        )
        parts.append(_text(x + 7, y - 7, point.name))
    parts.append(_text(_WIDTH / 2, _HEIGHT - 14, across, anchor="middle"))
    parts.append(_text(_MARGIN, 48, up))
    return _picture(_WIDTH, _HEIGHT, parts)


def as_page(picture: str, title: str) -> str:
    """Return a picture as a page of HTML that needs no other file."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_safe(title)}'
        f"</title></head>\n<body>\n{picture}</body></html>\n"
    )


def _picture(width: float, height: float, parts: Sequence[str]) -> str:
    inner = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n{inner}\n</svg>\n'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, full: str = ""
) -> str:
    title = f"<title>{_safe(full)}</title>" if full and full != text else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{_safe(text)}{title}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _safe(text: str) -> str:
    return escape(plain(text))


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}"


def _colour(heat: float | None) -> str:
    """Return white for 0, red for 1, grey where nothing is known."""
    if heat is None:
        return "#dddddd"
    other = round(255 - 165 * min(max(heat, 0.0), 1.0))
    return f"#ff{other:02x}{other:02x}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room
