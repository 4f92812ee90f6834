"""History and curve: every row is there, and no name or number breaks the file."""

from __future__ import annotations

import csv
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.history import IterationRow
from onnx_relief.report.curve import curve_svg, history_csv
from onnx_relief.report.iterated import iteration_line

DENSE = IterationRow(
    iteration=0,
    alpha=(1.0, 1.0),
    metric_pruned=98.5,
    metric_retrained=98.5,
    remaining=100.0,
    nonzero=45,
    architecture=(5, 3),
    flops=90.0,
    epochs=0,
    seconds=0.0,
)
SVG = "{http://www.w3.org/2000/svg}"


def rows_with(scores, shares):
    pairs = zip(scores, shares, strict=True)
    return [
        replace(DENSE, iteration=n, metric_retrained=score, remaining=share)
        for n, (score, share) in enumerate(pairs)
    ]


def test_the_columns_are_those_of_the_authors():
    row = replace(DENSE, iteration=1, remaining=25.0, flops=None, alpha=(0.9, 0.95))
    first, second = csv.DictReader(history_csv([DENSE, row]).splitlines())
    assert list(first)[:7] == [
        *("iteration", "metric pruned", "metric retrained", "compression rate", "remaining %"),
        *("architecture", "FLOPs"),
    ]
    assert (first["architecture"], first["FLOPs"]) == ("5-3", "90")
    assert (second["compression rate"], second["FLOPs"]) == ("4.0000", "")
    assert (second["alpha conv"], second["alpha fc"]) == ("0.9", "0.95")


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 100)), min_size=1, max_size=6),
    st.text(max_size=20),
)
def test_any_curve_is_a_picture_with_a_dot_for_each_row(pairs, metric):
    rows = rows_with(*zip(*pairs, strict=True))
    picture = ElementTree.fromstring(curve_svg(rows, metric))
    dots = picture.findall(f".//{SVG}circle")
    assert len(dots) == len(rows)
    for dot in dots:
        assert 0 <= float(dot.get("cx")) <= 640
        assert 0 <= float(dot.get("cy")) <= 400
    assert len(history_csv(rows).splitlines()) == len(rows) + 1


@pytest.mark.parametrize("metric", ["</text><script>", 'a"b&c', "\x00\x1b[31m", "\ud800"])
def test_hostile_metrics_are_text(metric):
    picture = ElementTree.fromstring(curve_svg([DENSE], metric))
    assert not picture.findall(f".//{SVG}script")


def test_smaller_is_further_left():
    picture = ElementTree.fromstring(curve_svg(rows_with([98, 97, 90], [100, 10, 1]), "accuracy"))
    across = [float(dot.get("cx")) for dot in picture.findall(f".//{SVG}circle")]
    assert across == sorted(across, reverse=True)
    assert across[0] - across[1] == pytest.approx(across[1] - across[2], abs=0.2)


def test_a_line_of_progress():
    assert iteration_line(DENSE) == "dense: 98.50"
    row = replace(DENSE, iteration=2, remaining=12.5, seconds=3.4)
    assert iteration_line(row) == "iteration 2: 12.50 % left, pruned 98.50, retrained 98.50 (3 s)"
