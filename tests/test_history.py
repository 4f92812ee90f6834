"""When iterations stop, which model is kept, and which alpha belongs to which iteration."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.errors import SettingsError
from onnx_relief.history import IterateSettings, IterationRow, choose_best
from onnx_relief.settings import Settings
from onnx_relief.training import TrainSettings

ROW = IterationRow(
    iteration=1,
    alpha=(0.9, 0.9),
    metric_pruned=90.0,
    metric_retrained=95.0,
    remaining=40.0,
    nonzero=400,
    architecture=(5, 3),
    flops=None,
    epochs=1,
    seconds=1.0,
)


def chosen(**options):
    return IterateSettings(prune=Settings(), train=TrainSettings(), **options)


def test_a_schedule_repeats_its_last_alpha():
    settings = chosen(alphas=(0.95, 0.9), alphas_conv=(0.8,), iterations=4)
    assert [settings.pruning(n).alpha for n in (1, 2, 3, 4)] == [0.95, 0.9, 0.9, 0.9]
    assert {settings.pruning(n).alpha_conv for n in (1, 2, 3, 4)} == {0.8}
    assert [settings.changes_after(n) for n in (1, 2, 3, 4)] == [True, False, False, False]


def test_an_empty_schedule_is_the_usual_alpha():
    assert chosen().pruning(3) == Settings()
    assert not chosen().changes_after(1)


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 0},
        {"until_sparsity": 0.0},
        {"until_sparsity": float("nan")},
        {"until_params": 0},
        {"max_drop": -0.1},
        {"max_drop": float("nan")},
        {"max_drop": float("inf")},
        {"alphas": (0.9, 0.0)},
        {"alphas_fc": (float("nan"),)},
    ],
)
def test_choices_that_make_no_sense_are_refused(options):
    with pytest.raises(SettingsError, match=r"must (be|lie|not)"):
        chosen(**options)


histories = st.lists(st.tuples(st.floats(1, 100), st.floats(-5, 60)), min_size=1, max_size=8)
targets = st.one_of(st.none(), st.floats(1, 99))
drops = st.one_of(st.none(), st.floats(0, 50))


@given(histories, targets, drops)
def test_the_kept_model_is_the_best_that_can_be_kept(history, sparsity, drop):
    settings = chosen(until_sparsity=sparsity, max_drop=drop)
    rows = [
        replace(ROW, iteration=n, remaining=remaining) for n, (remaining, _) in enumerate(history)
    ]
    lost = [loss for _, loss in history]
    best, met = choose_best(rows, lost, settings)
    good = [
        row for row, loss in zip(rows, lost, strict=True)
        if (drop is None or loss <= drop)
    ]  # fmt: skip
    small = [row for row in good if sparsity is None or 100 - row.remaining >= sparsity]
    assert met == bool(small)
    if small and sparsity is not None:
        assert lost[best.iteration] == min(lost[row.iteration] for row in small)
        assert best in small
    elif small or good:
        assert best.remaining == min(row.remaining for row in small or good)
    else:
        assert lost[best.iteration] == min(lost)
