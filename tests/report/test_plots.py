"""Pictures: well-formed whatever names and numbers are, and nothing lies outside."""

from __future__ import annotations

from math import isfinite
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.report.plots import Cell, Point, as_page, grid_svg, trade_off_svg

SVG = "{http://www.w3.org/2000/svg}"
names = st.text(max_size=60) | st.sampled_from(
    ["</text><script>", 'a"b&c', "\x00\x1b[31m", "\ud800"]
)
numbers = st.floats(-1e9, 1e9) | st.sampled_from([float("nan"), float("inf"), 0.0])
cells = st.builds(Cell, text=names, heat=st.none() | st.floats(-1, 2))


@given(names, st.lists(st.builds(Point, across=numbers, up=numbers, name=names), max_size=6))
def test_a_curve_has_a_dot_for_every_point_that_is_a_number(name, points):
    picture = ElementTree.fromstring(trade_off_svg(name, name, name, points))
    dots = picture.findall(f".//{SVG}circle")
    assert len(dots) == sum(isfinite(point.across) and isfinite(point.up) for point in points)
    for dot in dots:
        assert 0 <= float(dot.get("cx")) <= 640
        assert 0 <= float(dot.get("cy")) <= 400
    assert not picture.findall(f".//{SVG}script")


@given(names, st.lists(st.tuples(names, st.lists(cells, min_size=2, max_size=2)), max_size=5))
def test_a_grid_has_a_field_for_every_cell(name, rows):
    picture = ElementTree.fromstring(grid_svg(name, [name, name], rows))
    fields = picture.findall(f".//{SVG}rect")[1:]
    assert len(fields) == 2 * len(rows)
    for field in fields:
        assert float(field.get("x")) + float(field.get("width")) <= float(picture.get("width"))
        assert float(field.get("y")) + float(field.get("height")) <= float(picture.get("height"))


def test_worse_is_redder():
    row = [("a", [Cell(text="", heat=heat) for heat in (0.0, 0.5, 1.0, None)])]
    picture = ElementTree.fromstring(grid_svg("", ["", "", "", ""], row))
    colours = [field.get("fill") for field in picture.findall(f".//{SVG}rect")[1:]]
    assert colours[0] == "#ffffff"
    assert colours[0] > colours[1] > colours[2]
    assert colours[3] == "#dddddd"


@given(names)
def test_a_page_holds_names_as_text(name):
    assert "<script" not in as_page("", name)
