"""The history of iterations as a table in CSV and as a curve in SVG."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from html import escape
from math import floor, log10
from typing import Final

from onnx_relief.history import IterationRow
from onnx_relief.report.text import plain

_COLUMNS: Final = (
    "iteration",
    "metric pruned",
    "metric retrained",
    "compression rate",
    "remaining %",
    "architecture",
    "FLOPs",
    "alpha conv",
    "alpha fc",
    "parameters not zero",
    "epochs",
    "seconds",
)
_Place = Callable[[float, float], tuple[float, float]]
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 56


def history_csv(rows: Sequence[IterationRow]) -> str:
    """Return one line per iteration, with the columns of the authors' code and some more."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow(
            (
                row.iteration,
                f"{row.metric_pruned:.4f}",
                f"{row.metric_retrained:.4f}",
                f"{row.compression:.4f}",
                f"{row.remaining:.4f}",
                "-".join(map(str, row.architecture)),
                "" if row.flops is None else f"{row.flops:.0f}",
                *row.alpha,
                row.nonzero,
                row.epochs,
                f"{row.seconds:.1f}",
            )
        )
    return text.getvalue()


def curve_svg(rows: Sequence[IterationRow], metric: str) -> str:
    """Return metric against weights left, on a logarithmic axis, as a picture.

    Args:
        rows: The dense model, then the iterations.
        metric: What the scores are, for the axis.
    """
    remaining = [max(row.remaining, 1e-3) for row in rows]
    low, high = _range([row.metric_retrained for row in rows])
    left, right = log10(min(remaining)), log10(max(*remaining, 100.0))
    right = right if right > left else left + 1

    def place(share: float, score: float) -> tuple[float, float]:
        x = _MARGIN + (log10(max(share, 1e-3)) - left) / (right - left) * (_WIDTH - 2 * _MARGIN)
        y = _HEIGHT - _MARGIN - (score - low) / (high - low) * (_HEIGHT - 2 * _MARGIN)
        return x, y

    points = [place(row.remaining, row.metric_retrained) for row in rows]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>iteration {row.iteration}: '
        f"{row.metric_retrained:.2f} at {row.remaining:.2f} %</title></circle>"
        for row, (x, y) in zip(rows, points, strict=True)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        f"{_axes(low, high, left, right, place)}"
        f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>\n'
        f'<g fill="#1f6feb">{dots}</g>\n'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">weights left, %</text>\n'
        f'<text x="16" y="{_HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 16 {_HEIGHT / 2})">{escape(plain(metric))}</text>\n</svg>\n'
    )


def _axes(low: float, high: float, left: float, right: float, place: _Place) -> str:
    shares = [
        digit * 10.0**power
        for power in range(floor(left), floor(right) + 1)
        for digit in (1, 2, 5)
        if left - 1e-9 <= log10(digit * 10.0**power) <= right + 1e-9
    ]
    lines = []
    for share in shares:
        x, bottom = place(share, low)
        lines.append(_grid(x, bottom, x, _MARGIN) + _label(x, bottom + 16, "middle", f"{share:g}"))
    for step in range(6):
        score = low + step * (high - low) / 5
        x, y = place(10**left, score)
        lines.append(_grid(x, y, _WIDTH - _MARGIN, y) + _label(x - 6, y + 4, "end", f"{score:.2f}"))
    return "".join(f"{line}\n" for line in lines)


def _grid(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _range(scores: Sequence[float]) -> tuple[float, float]:
    low, high = min(scores), max(scores)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room
