"""A budget is said once, in one unit, and makes sense."""

from __future__ import annotations

import pytest

from onnx_relief.budget import Budget, parse_bytes
from onnx_relief.errors import SettingsError


def test_two_budgets_are_refused_by_name():
    with pytest.raises(SettingsError, match="--sparsity and --max-drop"):
        Budget(sparsity=0.5, max_drop=1.0)


@pytest.mark.parametrize(
    "said",
    [
        {"sparsity": 0.0},
        {"sparsity": 1.0},
        {"target_macs": 2.0},
        {"target_bytes": 0},
        {"max_drop": -1.0},
        {"target_params": float("nan")},
    ],
)
def test_what_makes_no_sense_is_refused_with_its_flag(said):
    flag = "--" + next(iter(said)).replace("_", "-")
    with pytest.raises(SettingsError, match=flag):
        Budget(**said)


def test_none_is_alpha():
    assert Budget().name is None
    assert str(Budget(target_macs=0.5)) == "--target-macs 0.5"


@pytest.mark.parametrize("text", ["", "5 apples", "-3MB", "MB", "1e3"])
def test_other_sizes_are_refused(text):
    with pytest.raises(SettingsError, match="--memory"):
        parse_bytes("--memory", text)
