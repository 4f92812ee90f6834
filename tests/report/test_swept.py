"""A curve as a table: what is said of its models, and of all of them once."""

from __future__ import annotations

import io

import pytest
from made_up import evaluation, model
from rich.console import Console

from onnx_relief.report.swept import Sweep, SweepPoint, sweep_svg, sweep_table


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


def curve(*shares):
    """Return a curve of channels, by the shares that were to go and those that went."""
    points = tuple(
        SweepPoint(
            share=share,
            went=went,
            written="m.onnx",
            cost=model(),
            evaluation=evaluation(),
            latency=None,
        )
        for share, went in shares
    )
    return Sweep(dense=model(), points=points, settings={})


def test_another_share_of_the_channels_than_was_to_go_is_told():
    """Only multiples go, and some channels stay whatever is asked; weights add up to the share."""
    found = curve((0.3, 0.295), (0.5, 0.375), (0.7, None), (0.9, 0.0))
    file = io.StringIO()
    Console(file=file, width=200).print(sweep_table(found))
    rows = [line.strip() for line in file.getvalue().splitlines()]
    for label in ("30 %  ", "50 % (38 %)  ", "70 %  ", "90 % (0 %)  "):
        assert sum(row.startswith(label) for row in rows) == 1
    assert "- in brackets: the share of the channels that really went" in rows
    assert "-50 % (38 %)" in sweep_svg(found)


def test_nothing_is_explained_where_the_shares_are_those_that_were_to_go():
    file = io.StringIO()
    Console(file=file, width=200).print(sweep_table(curve((0.3, 0.295), (0.7, None))))
    assert "in brackets" not in file.getvalue()
