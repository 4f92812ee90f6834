"""An analysis in tables and pictures: a column never promises more than what went."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from onnx_relief.analysis import CHANNELS, DENSE, LAYER, Analysis, TrialRow
from onnx_relief.report.analyzed import analysis_svg, analysis_table

EXPLAINED = "in brackets: the share that really went"
SVG = "{http://www.w3.org/2000/svg}"


def analysis(*kept, kind=LAYER, shares=(0.5, 0.9), granularity="kernel", more=()):
    """Return an analysis of one part that really kept so much; scores are 1, 2, ..."""
    rows = [
        TrialRow(kind=kind, name="conv", sparsity=share, kept=left, score=number, distance=number)
        for number, (share, left) in enumerate(zip(shares, kept, strict=True), start=1)
    ]
    dense = TrialRow(kind=DENSE, name="", sparsity=0.0, kept=1.0, score=0.0, distance=0.0)
    return Analysis(
        model="m.onnx",
        digest="",
        metric="divergence",
        unit="",
        data="x.npz",
        criterion="obs",
        granularity=granularity,
        sparsities=(*shares, *(row.sparsity for row in more)),
        trials=(dense, *rows, *more),
    )


def printed(found):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(analysis_table(found))
    return capture.get()


def drawn(found):
    """Return what stands in the fields of the picture, and all of its text."""
    texts = [one.text for one in ElementTree.fromstring(analysis_svg(found)).iter(f"{SVG}text")]
    return texts[texts.index("conv") + 1 :][: len(found.trials) - 1], texts


@pytest.mark.parametrize("kind", [LAYER, CHANNELS])
@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ((0.5, 0.1), ["1", "2"]),
        ((0.495, 0.109), ["1", "2"]),
        ((0.5, 0.5), ["1", "2 (50 %)"]),
        ((0.4, 1 / 3), ["1 (60 %)", "2 (67 %)"]),
        ((1.0, 0.875), ["-", "2 (12 %)"]),
        ((1.0, 1.0), ["-", "-"]),
    ],
)
def test_a_score_says_the_share_that_really_went(kind, kept, said):
    found = analysis(*kept, kind=kind)
    fields, texts = drawn(found)
    line = next(line for line in printed(found).splitlines() if line.startswith("conv"))
    assert fields == said
    assert line.split() == ["conv", *" ".join(said).split()]
    is_explained = said != ["1", "2"]
    assert (EXPLAINED in printed(found)) is is_explained
    assert any(EXPLAINED in text for text in texts) is is_explained


def test_a_share_of_nothing_has_a_score():
    fields, _ = drawn(analysis(1.0, 0.1, shares=(0.0, 0.9)))
    assert fields == ["1", "2"]


def test_where_nothing_went_is_no_colour_of_a_score():
    picture = ElementTree.fromstring(analysis_svg(analysis(1.0, 0.1)))
    nothing, some = (one.get("fill") for one in picture.findall(f".//{SVG}rect")[1:])
    assert (nothing, some) == ("#dddddd", "#ff5a5a")


def test_losses_are_those_at_the_share_that_really_went():
    assert analysis(1.0, 0.5).losses() == {"conv": ((0.0, 1.0), (0.5, 2.0))}


def test_a_pattern_is_one_column_of_layers():
    channels = replace(analysis(0.1, kind=CHANNELS, shares=(0.9,)).trials[1], name="units")
    found = analysis(0.5, shares=(0.5,), granularity="2:4,channel", more=(channels,))
    lines = [line.split() for line in printed(found).splitlines()]
    assert ["layer", "2:4"] in lines
    assert ["conv", "1"] in lines
    assert lines[3][-3:] == ["without", "90", "%"]
    assert ["units", "1"] in lines
    picture = ElementTree.fromstring(analysis_svg(found))
    assert len(picture.findall(f".//{SVG}rect")[1:]) == 4
    texts = [one.text or "" for one in picture.iter(f"{SVG}text")]
    assert texts[1:] == ["50 %", "90 %", "conv", "1", "", "units", "", "1"]
