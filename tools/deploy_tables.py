"""The tables of docs/deploy.md: one section per model, and what holds for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from _bench import table

from onnx_relief.results import Timing

Found = list[dict[str, Any]] | str
"""What was measured of one model: the dense one, then by way of pruning; or why nothing was."""


def in_short(found: Mapping[str, Found]) -> str:
    """Return what holds for all models: where each way is faster, and whether outputs agree."""
    measured = {name: one for name, one in found.items() if not isinstance(one, str)}
    runtimes = list(
        dict.fromkeys(row["runtime"] for one in measured.values() for row in one[0]["rows"])
    )
    ways = list(dict.fromkeys(way["way"] for one in measured.values() for way in one[1:]))
    speed = [[way, *(_counted(measured, way, runtime) for runtime in runtimes)] for way in ways]
    gaps = [[name, *_agreement(measured, name)] for name in runtimes]
    return "\n\n".join(
        [
            f"Measured together: {', '.join(measured)}.",
            "Of the models that run: how many are faster / slower / not shown to be either, since "
            "the processes of both overlap.",
            table(["", *runtimes], speed),
            "Outputs, of all versions of all models: how many run, how many do not, and the "
            "largest difference of those that do.",
            table(["runtime", "run", "refused or crashed", "largest difference"], gaps),
        ]
    )


def _rows(measured: Mapping[str, list[dict[str, Any]]], runtime: str) -> Iterator[tuple[str, Any]]:
    """Yield the way and the row of every version of every model in one runtime."""
    for one in measured.values():
        for version in one:
            for row in version["rows"]:
                if row["runtime"] == runtime:
                    yield version["way"], row


def _counted(measured: Mapping[str, list[dict[str, Any]]], way: str, runtime: str) -> str:
    counts = [0, 0, 0]
    for found, row in _rows(measured, runtime):
        if found == way and row["timing"] and row["dense"]:
            smaller, dense = Timing(**row["timing"]), Timing(**row["dense"])
            faster = smaller.median < dense.median
            counts[2 if not _apart(smaller, dense) else 0 if faster else 1] += 1
    return " / ".join(map(str, counts))


def _agreement(measured: Mapping[str, list[dict[str, Any]]], runtime: str) -> list[str]:
    rows = [row for _, row in _rows(measured, runtime)]
    gaps = [row["difference"] for row in rows if row["difference"] is not None]
    largest = max(gaps, default=0.0)
    shown = "wrong" if math.isinf(largest) else f"{largest:.0e}" if largest else "0"
    return [
        str(sum(not row["error"] for row in rows)),
        str(sum(bool(row["error"]) for row in rows)),
        shown if gaps else "-",
    ]


def section(found: Found) -> str:
    """Return the section of one model; a text says why there is none."""
    if isinstance(found, str):
        return f"Not measured: {found}."
    dense = found[0]["rows"]
    names = [row["runtime"] for row in dense]
    rows = [["dense", "100", "100", *map(_latency, dense)]]
    gaps = [["dense", *map(_gap, dense)]]
    notes = [f"- {row['runtime']}: {_short(row['error'])}" for row in dense if row["error"]]
    for version in found[1:]:
        if version["problem"]:
            notes.append(f"- {version['way']}: {version['problem']}")
            continue
        notes += [
            f"- {row['runtime']}, {version['way']}: {_short(row['error'])}"
            for row in version["rows"]
            if row["error"] and not row["dense_error"]
        ]
        sizes = [_percent(version["parameters"]), _percent(version["macs"])]
        rows.append([version["way"], *sizes, *map(_left, version["rows"])])
        gaps.append([version["way"], *map(_gap, version["rows"])])
    return "\n\n".join(
        [
            "Latency: milliseconds of the dense model, then percent of it.",
            table(["", "parameters, %", "MACs, %", *names], rows),
            "Largest difference to ONNX Runtime, relative to the largest output.",
            table(["", *names], gaps),
            *(["\n".join(notes)] if notes else []),
        ]
    )


def _latency(row: dict[str, Any]) -> str:
    return "-" if row["timing"] is None else f"{row['timing']['median']:.3g}"


def _left(row: dict[str, Any]) -> str:
    smaller, dense = row["timing"], row["dense"]
    if smaller is None or dense is None:
        return "-"
    unclear = not _apart(Timing(**smaller), Timing(**dense))
    return f"{100 * smaller['median'] / dense['median']:.0f}{' ?' if unclear else ''}"


def _apart(one: Timing, other: Timing) -> bool:
    """Return whether the processes of two models do not overlap."""
    return one.slowest < other.median or other.slowest < one.median


def _gap(row: dict[str, Any]) -> str:
    if row["error"]:
        return "crashed" if row["error"].startswith("crashed") else "refused"
    found = row["difference"]
    if found is None:
        return "-"
    return "wrong" if math.isinf(found) else f"{found:.0e}" if found else "0"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0f}"


def _short(text: str) -> str:
    return " ".join(text.split())[:240].replace("|", "/")
