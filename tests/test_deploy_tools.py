"""What the tools say of runtimes and of speed: counts, and which operator does not follow."""

from __future__ import annotations

from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(autouse=True)
def _tools_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def timing(median, slowest):
    return {"median": median, "slowest": slowest, "sessions": 2, "runs": 9}


def row(runtime, smaller, dense=None, *, difference=1e-6, error=None):
    return {
        "runtime": runtime,
        "timing": smaller,
        "dense": dense,
        "difference": difference,
        "error": error,
    }


def test_what_holds_for_all_models_is_counted():
    from deploy_tables import in_short

    dense = timing(10.0, 11.0)
    rows = [timing(5.0, 6.0), timing(10.5, 12.0), timing(20.0, 21.0)]
    found = {
        str(place): [
            {
                "way": "dense",
                "rows": [row("a", dense), row("b", None, error="no", difference=None)],
            },
            {
                "way": "zeros",
                "rows": [
                    row("a", smaller, dense, difference=1e-3),
                    row("b", None, None, error="no", difference=None),
                ],
            },
        ]
        for place, smaller in enumerate(rows)
    }
    lines = in_short(found | {"not here": "it is missing"}).splitlines()
    assert "| zeros | 1 / 1 / 1 | 0 / 0 / 0 |" in lines
    assert "| a | 6 | 0 | 1e-03 |" in lines
    assert "| b | 0 | 6 | - |" in lines


def test_the_node_that_does_not_follow_its_work_is_named_first():
    from speed_profile import Spent, explained

    dense = {"one": Spent(op="Conv", milliseconds=4.0), "two": Spent(op="Gemm", milliseconds=2.0)}
    small = {"one": Spent(op="Conv", milliseconds=2.0), "two": Spent(op="Slow", milliseconds=3.0)}
    told = explained(dense, small, {"one": (100.0, 50.0), "two": (10.0, 5.0)}).splitlines()
    assert "| all | 6.00 | 5.00 | 83 |" in told
    places = [told.index(line) for line in told if line.startswith(("| one |", "| two |"))]
    assert told[places[0]] == "| two | Slow | 50 | 2.00 | 3.00 |"
    assert told[places[1]] == "| one | Conv | 50 | 4.00 | 2.00 |"
    assert told[-1] == "Run by another kernel than before: 1 nodes Gemm -> Slow."


def test_runtime_that_refuses_only_what_was_pruned_is_quoted():
    from deploy_tables import section

    dense = timing(10.0, 11.0)
    refused = row("a", None, dense, error="no such shape", difference=None)
    refused["dense_error"] = None
    pruned = {"way": "heads", "parameters": 50, "macs": 50, "problem": None, "rows": [refused]}
    first = {"way": "dense", "rows": [row("a", dense)]}
    assert "- a, heads: no such shape" in section([first, pruned])
    refused["dense_error"] = "nothing runs"
    assert "heads: no such" not in section([first, pruned])
