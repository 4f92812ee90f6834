"""ONNX Runtime's profile of one session, summed up by operator."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROWS = 12
# Their time is that of the operators in their bodies, which are listed themselves.
BODIES = ("If", "Loop", "Scan")


# Parts of a run, as `activity_child.py` times them.
READING = "reading and checking the model"
RUNNING = "session and runs"
SCORING = "scoring connections"


def hottest(profile: Path, parts: Mapping[str, float]) -> list[list[Any]]:
    """Return rows (part, calls, milliseconds, share of the whole in percent), dearest first.

    Args:
        profile: What ONNX Runtime wrote.
        parts: Seconds by part of the whole run.
    """
    spent: defaultdict[str, float] = defaultdict(float)
    calls: defaultdict[str, int] = defaultdict(int)
    inside = started = 0.0
    for event in json.loads(profile.read_text()):
        name, took = event.get("name", ""), event.get("dur", 0) / 1000
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            if operator in BODIES:
                continue
            spent[operator] += took
            calls[operator] += 1
        elif name == "model_run":
            inside += took
        elif name in ("session_initialization", "model_loading_uri", "model_loading_array"):
            started += took
    whole = 1000 * sum(parts.values())
    ranked = sorted(spent, key=spent.__getitem__, reverse=True)
    rows = [_row(operator, calls[operator], spent[operator], whole) for operator in ranked[:ROWS]]
    rest = sum(spent[operator] for operator in ranked[ROWS:])
    rows.append(_row("other operators", sum(calls[o] for o in ranked[ROWS:]), rest, whole))
    rows.append(_row("between operators", "", inside - sum(spent.values()), whole))
    rows.append(_row("session start", "", started, whole))
    around = 1000 * parts[RUNNING] - inside - started
    rows.append(_row("around the runs, in Python", "", around, whole))
    others = [(part, took) for part, took in parts.items() if part != RUNNING]
    rows += [_row(part, "", 1000 * took, whole) for part, took in others]
    return rows


def _row(part: str, calls: int | str, took: float, whole: float) -> list[Any]:
    return [part, calls, f"{took:.0f}", f"{100 * took / whole:.1f}"]
