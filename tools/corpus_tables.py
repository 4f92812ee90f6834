"""What `bench_corpus.py` measured, as Markdown: the README's table, and the page in docs/."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from _bench import table

Row = dict[str, Any]
STATES: Final = {"left": "left alone", "skipped": "skipped", "failed": "failed"}
LEGEND: Final = (
    "Percent of the connections left → score in percent: accuracy, words read, keys found and so "
    "on, or likeness to the dense model where that is the measure; "
    "[docs/corpus.md](docs/corpus.md) says what each score means and why each layer was left alone."
)


def readme_table(rows: Sequence[Row], alphas: Sequence[float]) -> str:
    """Return the compact table: one row for each model that was pruned."""
    head = ["model", "made with", "layers found / pruned", "dense"]
    head += [f"alpha {alpha:g}" for alpha in alphas]
    body = []
    for row in rows:
        start = [row["name"], row["origin"]]
        if row["state"] != "pruned":
            body.append([*start, _layers(row), STATES[row["state"]], *[""] * len(alphas)])
            continue
        steps = [f"{step['left']:.0f} % → {step['score']:.1f}" for step in row["steps"]]
        body.append([*start, _layers(row), _dense(row), *steps])
    return f"{table(head, body, left=2)}\n\n{LEGEND}"


def page(rows: Sequence[Row], alphas: Sequence[float], provenance: str) -> str:
    """Return docs/corpus.md."""
    pruned = [row for row in rows if row["state"] == "pruned"]
    others = [row for row in rows if row["state"] != "pruned"]
    parts = [
        "# Real models, pruned",
        _INTRODUCTION,
        provenance,
        readme_table(pruned, alphas).removesuffix(LEGEND).rstrip(),
        "## What is measured",
        table(["model", "score", "samples (calibration + test)"], _meanings(pruned), left=3),
        "## How far the outputs move",
        "Of the output that is judged: the Euclidean norm of the difference over that of the dense "
        "output, and the mean cosine. Units are those removed as a whole at the smallest alpha.",
        table(_difference_head(alphas), [_differences(row) for row in pruned], left=2),
        "## What was left alone, and why",
        "\n".join(_left_alone(rows)),
    ]
    if others:
        lines = [f"- {row['name']}: {STATES[row['state']]}; {row['why']}" for row in others]
        parts += ["## Not pruned", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = (
    "One shot, no retraining, default settings (estimator `paper`, whole kernels of convolutions). "
    "A cell says how many percent of the connections are left, and the score with them. Scores are "
    "percent; where the column `dense` says so, the dense model is the measure itself. Every "
    "pruned model was written to a file, read back, accepted by `onnx.checker` and run. A layer "
    "counts as pruned if it lost something at the smallest alpha."
)


def _layers(row: Row) -> str:
    found = row.get("found")
    return "" if found is None else f"{found} / {row.get('pruned', 0)}"


def _dense(row: Row) -> str:
    return "the measure" if row["dense"] is None else f"{row['dense']:.1f}"


def _meanings(rows: Sequence[Row]) -> list[list[str]]:
    return [[row["name"], row["meaning"], row["data"]] for row in rows]


def _difference_head(alphas: Sequence[float]) -> list[str]:
    return ["model", "output", *(f"alpha {alpha:g}" for alpha in alphas), "units removed"]


def _differences(row: Row) -> list[str]:
    cells = [f"{_number(step['error'])}, {_number(step['cosine'])}" for step in row["steps"]]
    return [row["name"], f"`{row['steps'][0]['output']}`", *cells, str(row["steps"][-1]["removed"])]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _left_alone(rows: Sequence[Row]) -> list[str]:
    """Return one line for each reason, with the models and how many nodes it met there."""
    models: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        counts: defaultdict[str, int] = defaultdict(int)
        for op, reason, count in row.get("refused", ()):
            counts[f"{op}: {_general(reason)}"] += count
        for reason, count in row.get("idle", {}).items():
            counts[f"layer: {_general(reason)}"] += count
        for reason, count in counts.items():
            models[reason].append(f"{row['name']} ({count})")
    return [f"- {reason}. {', '.join(names)}" for reason, names in sorted(models.items())]


def _general(reason: str) -> str:
    """Return a reason without the names of tensors and nodes in it."""
    return re.sub(r"'[^']*'", "…", reason).rstrip(".")
