"""A curve as a table: what is said of its models, and of all of them once."""

from __future__ import annotations

import io

import pytest
from made_up import evaluation, model
from rich.console import Console

from onnx_relief.report.swept import Sweep, SweepPoint, sweep_table


def told(*notes):
    """Return the sentences below the table of a curve, by the notes of each comparison."""
    points = tuple(
        SweepPoint(
            share=0.1 * (1 + place),
            written="m.onnx",
            cost=model(),
            evaluation=evaluation(notes=said),
            latency=None,
        )
        for place, said in enumerate(notes)
    )
    file = io.StringIO()
    Console(file=file, width=200).print(
        sweep_table(Sweep(dense=model(), points=points, settings={}))
    )
    return [line[2:] for line in file.getvalue().splitlines() if line.startswith("- ")][1:]


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ((("all NaN",), ("all NaN",)), ["all NaN"]),
        ((("all NaN", "3 NaN"), ("all NaN", "5 NaN")), ["10 %: 3 NaN", "20 %: 5 NaN", "all NaN"]),
        (((), ("5 NaN",)), ["20 %: 5 NaN"]),
        ((("NaN",),), ["NaN"]),
    ],
)
def test_notes_of_the_comparisons_are_said_once(notes, said):
    assert told(*notes) == [
        text.replace("10 %", "without 10 %").replace("20 %", "without 20 %") for text in said
    ]
