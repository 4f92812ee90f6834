"""Tables: what a person sees, and that no name in a file can reach the terminal."""

from __future__ import annotations

import io
import re

import pytest
from classifier import cnn, written
from made_up import evaluation, latency, model, report, row
from rich.console import Console

from onnx_relief.inspection import inspect
from onnx_relief.report.build import RefusalRow
from onnx_relief.report.compared import Comparison, comparison_table
from onnx_relief.report.inspected import inspection_table
from onnx_relief.report.table import left_alone_lines, repair_sentences, report_table
from onnx_relief.report.text import plain
from onnx_relief.results import RepairRow

HOSTILE = "[red]a[/red]\x1b[2J\x07\u202e[/]:warning:"


def printed(*parts, width=200, terminal=False):
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal, legacy_windows=False).print(*parts)
    return file.getvalue()


def lines_of(rows=(), refusals=(), **options):
    return printed(*left_alone_lines(rows, refusals, **options))


def test_a_row_holds_the_numbers_of_a_layer():
    line = next(text for text in printed(report_table(report())).splitlines() if "Conv" in text)
    assert line.split() == ["conv", "Conv", "100", "60", "60.0", "%", "10", "8", "1"]


def test_totals_stand_side_by_side():
    text = printed(report_table(report()))
    for label, *numbers in (
        ("parameters, not zero", "900", "540", "60.0 %"),
        ("MACs, zeros skipped", "9,000", "5,400", "60.0 %"),
        ("file, zipped", "900 B", "500 B", "55.6 %"),
        ("latency, 1 sample", "2 ms", "2 ms", "100.0 %"),
    ):
        line = next(one for one in text.splitlines() if one.startswith(label))
        assert line.removeprefix(label).split() == " ".join(numbers).split()


def test_what_is_not_known_is_left_out():
    text = printed(report_table(report(evaluation=None, latency=None)))
    assert "latency" not in text
    assert "accuracy" not in text


def test_a_layer_left_alone_is_marked_and_explained():
    text = printed(report_table(report(layers=(row(left_alone="--skip conv", kept=100),))))
    assert "left alone" in text
    assert "1 x --skip conv: conv" in text


def test_reasons_that_differ_in_names_only_are_grouped():
    rows = [row(name=f"l{i}", not_followed=f"they are joined by Add 'add{i}'") for i in range(5)]
    text = lines_of(rows)
    assert "5 x they are joined by Add ...: l0, l1, l2 and 2 more" in text
    assert "l4" in lines_of(rows, verbose=True)
    assert "Add 'add0'" in lines_of(rows[:1])


def test_refusals_name_operator_and_node():
    refusals = [RefusalRow(node="n", op="Mul", reason="it scales")]
    assert "1 x it scales: Mul n" in lines_of([], refusals)


@pytest.mark.parametrize("terminal", [False, True])
def test_names_cannot_command_the_terminal(terminal):
    hostile = report(
        layers=(row(name=HOSTILE, op=HOSTILE), row(name=HOSTILE, left_alone=HOSTILE)),
        refusals=(RefusalRow(node=HOSTILE, op=HOSTILE, reason=HOSTILE),),
        evaluation=evaluation(output=HOSTILE, data=HOSTILE, notes=(HOSTILE,)),
        advice=(HOSTILE,),
    )
    text = printed(report_table(hostile), width=400, terminal=terminal)
    assert "[red]a[/red]\\x1b[2J\\x07\\u202e[/]:warning:" in text
    assert "\x1b[2J" not in text
    assert "\x07" not in text


def test_plain_keeps_what_can_be_read():
    assert plain("/layer1/Größe 層.0") == "/layer1/Größe 層.0"
    assert plain("two\nlines") == "two\\nlines"


def test_a_comparison_shows_both_models():
    found = Comparison(
        first=model(), second=model(zipped=450), evaluation=evaluation(), latency=latency()
    )
    text = printed(*comparison_table(found))
    assert "98.00 % -> 97.50 %" in text
    assert "50.0 %" in text


def test_agreement_is_said_to_be_with_the_dense_model():
    found = report(evaluation=evaluation(metric="agreement", dense=None, pruned=99.0))
    assert "agreement of y: 99.00 % with the dense model" in printed(report_table(found))


def test_an_inspection_shows_layers_and_totals(tmp_path):
    text = printed(*inspection_table(inspect(written(tmp_path, cnn()))))
    line = next(one for one in text.splitlines() if one.startswith("conv"))
    assert line.split() == ["conv", "Conv", "3x3", "4", "4", "8", "72", "0.0", "%", "4,608", "fc"]
    assert "MACs per sample: 4,620" in text
    assert "takes 'x': float32 (N, 2, 8, 8)" in text


def test_where_kernels_keep_some_of_their_weights_these_are_counted():
    whole = printed(report_table(report(layers=(row(),))))
    assert re.search(r"connections +kept", whole)
    assert re.search(r"conv +Conv +100 +60 +60.0 %", whole)
    part = printed(report_table(report(layers=(row(), row(kept=100, alive=10, name="fine")))))
    assert re.search(r"layer +op +weights +kept", part)
    assert re.search(r"fine +Conv +900 +540 +60.0 %", part)
    assert re.search(r"weights +1,800 +1,080 +60.0 %", part)


@pytest.mark.parametrize(
    ("before", "after", "undone", "said"),
    [
        (0.2, 0.2, False, "repair by bias changes nothing on held-out samples"),
        (0.2, 0.1, False, "on held-out samples, relative to their size, from 0.2 to 0.1"),
        (0.1, 0.2, True, "from 0.1 to 0.2, so the repair is undone"),
    ],
)
def test_a_repair_that_changed_nothing_is_told_so(before, after, undone, said):
    row = RepairRow(kind="bias", before=before, after=after, undone=undone, notes=("a note",))
    first, note = repair_sentences(row)
    assert said in first
    assert note == "a note"
