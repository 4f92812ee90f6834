"""What the one-shot benchmark is built of: measured child processes, rows, and tasks."""

from __future__ import annotations

import importlib
import logging
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from onnx_relief.comparing.divergence import Divergence
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def tool(monkeypatch):
    """Return a function that imports a module of tools/ as its scripts do."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


@pytest.fixture
def digits(tool):
    """Return the first digits task, or skip where its model or its data is not here."""
    try:
        return tool("oneshot.tasks").task("digits-mlp-0")
    except tool("_bench").MissingError as error:
        pytest.skip(str(error))


def _child(tool, code, timeout=60.0):
    return tool("oneshot.child").run([sys.executable, "-c", code], timeout=timeout)


def test_peak_of_a_child_is_its_own_and_not_that_of_who_started_it(tool):
    held = np.ones(40_000_000)  # 305 MB, in this process
    small = _child(tool, "pass")
    large = _child(tool, "held = b'x' * 200_000_000")
    assert held.sum() == 40_000_000
    assert small.code == large.code == 0
    assert small.peak_mb < 100
    assert 190 < large.peak_mb < 240


def test_child_that_fails_gives_its_code_and_its_last_words(tool):
    failed = _child(tool, "raise SystemExit('no such thing')")
    assert failed.code == 1
    assert "no such thing" in failed.said


def test_child_that_takes_too_long_is_stopped_and_says_so(tool):
    stopped = _child(tool, "import time; time.sleep(60)", timeout=1.0)
    assert stopped.code is None
    assert "stopped after 1 s" in stopped.said


def test_mean_of_rows_is_a_mean_but_the_peak_is_the_largest(tool):
    rows = tool("oneshot.rows")
    parts = [
        rows.Row(task=f"t-{n}", tool="x", method="m", asked="a", score=s, peak_mb=p)
        for n, (s, p) in enumerate([(90.0, 10.0), (96.0, 30.0), (99.0, 20.0)])
    ]
    mean = rows.mean_of(parts, "t")
    assert (mean.task, mean.score, mean.peak_mb) == ("t", 95.0, 30.0)
    assert math.isnan(mean.error)


def test_row_comes_back_from_its_file(tool, tmp_path):
    rows = tool("oneshot.rows")
    row = rows.Row(task="t", tool="x", method="m", asked="a", score=1.5, note="n")
    rows.save(row, tmp_path / "row.json")
    back = rows.read(tmp_path / "row.json")
    assert (back.score, back.note, math.isnan(back.seconds)) == (1.5, "n", True)
    assert rows.read(tmp_path / "other.json") is None


def test_every_race_is_with_one_sparsegpt_and_for_one_budget(tool):
    race = tool("oneshot.race")
    budgets = tool("oneshot.ours").BUDGETS
    raced = 0
    for group in tool("oneshot.tasks").GROUPS:
        for one in race.races(group):
            raced += 1
            assert race.sparsegpt(group, one.asked).name == "SparseGPT"
            assert len(budgets & set(one.flags)) == (one.asked != "2:4")
    assert raced > 10


@pytest.mark.parametrize(
    ("error", "shown"), [(0.2, "0.200"), (0.5, "0.500"), (0.6, "0.600 (more)")]
)
def test_race_takes_turns_and_shows_medians(tool, monkeypatch, tmp_path, error, shown):
    race, rows = tool("oneshot.race"), tool("oneshot.rows")
    order, seconds = [], iter([10.0, 1.0, 40.0, 2.0, 20.0, 5.0])

    def run(name):
        order.append(name)
        cost = next(seconds)
        known = {"cpu": cost, "seconds": cost, "error": error if name == "ours" else 0.5}
        return rows.Row(task="t", tool=name, method="m", asked="a", peak_mb=8, **known)

    monkeypatch.setattr(race.peers, "measured", lambda *_, **__: run("peer"))
    monkeypatch.setattr(race, "ours", lambda *_, **__: run("ours"))
    one = next(race.races("zoo-c2f"))
    cells = race.line("zoo-c2f", one, "task", "python", tmp_path)
    assert order == ["peer", "ours"] * race.ROUNDS
    assert len(cells) == len(race.HEAD)
    assert cells[2:6] == ["0.500", "20.0", "20.0", "8"]
    assert cells[7:11] == [shown, "2.0", "2.0", "8"]
    assert cells[-3:] == ["0.10", "0.10", "1.00"]


def test_failed_row_shows_its_reason_in_the_table(tool):
    rows = tool("oneshot.rows")
    row = rows.Row(task="t", tool="x", method="m", asked="a", note="out of memory")
    text = tool("oneshot.page").markdown([row], {"t": "correct, %"}, {"t": 97.0})
    assert "failed: out of memory" in text
    assert "nan" not in text


def test_criteria_stand_beside_repairs_and_relief_beside_the_others(tool):
    rows = tool("oneshot.rows")

    def row(criterion, repair, score, share="0.9"):
        method = f"`--granularity weight --criterion {criterion} --repair {repair}`"
        known = {"tool": "onnx-relief", "asked": f"`--sparsity {share}`", "error": 0.5, "cpu": 2.0}
        return rows.Row(task="t", method=method, score=score, **known)

    some = [row("obs", "none", 96.0), row("relief", "none", 20.0), row("wanda", "none", 20.0)]
    some += [row("obs", "bias", 97.0), row("random", "none", 9.0), row("taylor", "none", math.nan)]
    some += [row("relief", "none", 50.0, "0.5"), row("wanda", "none", 60.0, "0.5")]
    alone = rows.Row(task="t", tool="onnx-relief", method="as it comes", asked="default", score=1.0)
    text, _, rest = (
        tool("oneshot.page")
        .markdown([*some, alone], {"t": "correct, %"}, {"t": 97.0})
        .partition("| tool |")
    )
    assert text.endswith(
        """`--granularity weight`: score, error, cpu s.

| budget | criterion | none | bias |
| --- | --- | ---: | ---: |
| `--sparsity 0.9` | obs | 96.00, 0.500, 2.0 | 97.00, 0.500, 2.0 |
| `--sparsity 0.9` | relief | 20.00, 0.500, 2.0 |  |
| `--sparsity 0.9` | wanda | 20.00, 0.500, 2.0 |  |
| `--sparsity 0.9` | random | 9.00, 0.500, 2.0 |  |
| `--sparsity 0.5` | relief | 50.00, 0.500, 2.0 |  |
| `--sparsity 0.5` | wanda | 60.00, 0.500, 2.0 |  |

Plain `relief` with `--repair none` is behind obs at 1 of 1 budgets, wanda at 1 of 2 budgets, \
random at 0 of 1 budgets.

"""
    )
    assert rest.count("onnx-relief") == 4  # both of obs, the one without a score, the one alone
    assert "as it comes" in rest


def test_grid_asks_for_every_criterion_with_every_repair_at_every_budget(tool):
    ours = tool("oneshot.ours")
    crossed = [ours._in_words(flags) for flags in ours.grid("digits-mlp")]
    assert len(set(crossed)) == len(crossed) == (3 + 4) * 6 * 4 + 3


def test_flags_are_told_apart_from_the_budget(tool):
    flags = ("--criterion", "obs", "--sparsity", "0.9", "--quiet")
    assert tool("oneshot.ours")._in_words(flags) == (
        "`--criterion obs --quiet`",
        "`--sparsity 0.9`",
    )


def test_dense_model_has_no_error_and_another_has_one(digits):
    score, error = digits.score(digits.model)
    assert score > 95
    assert error == 0
    doubled, wrong = digits.judged(2 * digits.dense_outputs)
    assert doubled == score
    assert wrong == pytest.approx(1.0)


def test_calibration_and_test_share_no_sample_and_no_label_is_written(digits, tmp_path):
    path, _ = digits.write_data(tmp_path)
    with np.load(path) as stored:
        assert stored.files == ["x"]
        calibration = {row.tobytes() for row in stored["x"]}
    assert not calibration & {row.tobytes() for row in digits.case.test["x"]}


def test_feeds_hold_what_the_data_holds(digits, tmp_path):
    feeds = sorted(digits.write_feeds(tmp_path).glob("*.npz"))
    parts = [np.load(path)["x"] for path in feeds]
    assert np.array_equal(np.concatenate(parts), digits.case.calibration["x"])


def test_ours_is_measured_from_the_command_line(digits, tool, tmp_path):
    row = tool("oneshot.ours").ours(digits, ("--granularity", "weight", "--alpha", "0.9"), tmp_path)
    assert row.note == ""
    assert 20 < row.weights < 60
    assert row.stored == row.macs == 100
    assert row.score > 85
    assert row.seconds > 0
    assert row.peak_mb > 20


def test_peer_that_is_not_there_is_a_row_with_the_reason(digits, tool, tmp_path):
    peers = tool("oneshot.peers")
    method = next(peers.methods("digits-mlp"))
    row = peers.measured(digits, method, sys.executable, tmp_path)
    assert math.isnan(row.score)
    assert "onnxsim" in row.note


def test_vectors_of_another_length_have_the_same_cosine(tool):
    cosine = tool("oneshot.tasks").mean_cosine
    vectors = np.array([[1.0, 2.0], [3.0, -1.0]])
    assert cosine(5 * vectors, vectors) == pytest.approx(1.0)
    assert cosine(vectors[:, ::-1] * [1, -1], vectors) == pytest.approx(0.0)


def test_criteria_stand_beside_repairs_and_training_of_so_many_epochs_is_a_repair(tool):
    rows, side_by_side = tool("oneshot.rows"), tool("oneshot.crossed")
    found = [
        rows.Row(
            task="t",
            tool=rows.TOOL,
            method=f"`--granularity weight --criterion {criterion} --repair {repair}{more}`",
            asked="`--sparsity 0.5`",
            score=score,
            error=0.5,
            cpu=20.0,
        )
        for criterion, repair, more, score in [
            ("obs", "none", "", 90.0),
            ("obs", "reconstruct --repair-epochs 4", "", 91.0),
            ("relief", "none", "", 80.0),
            ("relief", "reconstruct --repair-epochs 4", "", 85.0),
            ("obs", "reconstruct --repair-epochs 45", " --flip", 93.0),
        ]
    ]
    parts, others = side_by_side.crossed(found, 1)
    assert [line.split(" | ")[2:] for line in parts[1].splitlines() if "relief" in line] == [
        ["80.0, 0.500, 20", "85.0, 0.500, 20 |"]
    ]
    assert parts[1].splitlines()[0].endswith("| none | reconstruct --repair-epochs 4 |")
    assert "`--repair reconstruct --repair-epochs 4` is behind obs at 1 of 1 budgets" in parts[2]
    assert [row.score for row in others] == [90.0, 91.0, 93.0]


def test_resnet_in_int8_is_still_the_same_model(tool, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)  # what the tool sets is undone with it
    make = tool("make_int8")
    try:
        dense = tool("oneshot.tasks").task("resnet20")
    except tool("_bench").MissingError as error:
        pytest.skip(str(error))
    made = tmp_path / "new" / "int8.onnx"
    monkeypatch.setattr(sys, "argv", ["make_int8.py", "--to", str(made)])
    assert make.main() == 0
    assert list(made.parent.iterdir()) == [made]
    before, after = load(dense.model), load(made)
    survey = find_layers(after)
    assert len(survey.sites) == len(find_layers(before).sites)
    assert all(part.view.quantised for site in survey.sites for part in site.parts)
    few = dense.data(before, calibration=False).take(32)
    lost = Divergence(before, few, batch_size=32).of(after)
    assert 0 < lost < 0.01


def test_quantising_says_what_data_is_missing(tool, tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level(logging.WARNING)
    make = tool("make_int8")

    def missing(_name):
        raise tool("_bench").MissingError("no pictures; run tools/fetch_corpus.py")

    monkeypatch.setattr(make, "task", missing)
    monkeypatch.setattr(sys, "argv", ["make_int8.py", "--to", str(tmp_path / "int8.onnx")])
    assert make.main() == 1
    assert "run tools/fetch_corpus.py" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
