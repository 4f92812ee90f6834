"""The right number of groups goes, those with the least scores, and ties fall the same way."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.selection.groups import drop_by_layer, drop_globally

scores = st.lists(st.integers(0, 9), min_size=1, max_size=40).map(lambda s: np.array(s, float))
kinds = st.lists(scores, min_size=1, max_size=4).map(lambda found: dict(enumerate(found)))


def drop_for_losses(kinds, ratio, **rest):
    """Drop globally where a loss is the sum of what goes, and every group costs the same."""
    losses = {kind: np.append(0, np.cumsum(np.sort(found))) for kind, found in kinds.items()}
    return drop_globally(kinds, losses, dict.fromkeys(kinds, 1.0), ratio, **rest)


rules = st.sampled_from([drop_by_layer, drop_for_losses])


@given(kinds, st.floats(0, 0.99), st.lists(st.integers(1, 8), min_size=4), st.integers(1, 3), rules)
def test_counts_are_multiples_or_everything(found, ratio, multiples, least, drop):
    steps = {kind: multiples[kind] for kind in found if kind % 2}
    gone = drop(found, ratio, steps=steps, least=least)
    for kind, values in found.items():
        kept = int((~gone[kind]).sum())
        assert kept == len(values) or (kept % steps.get(kind, 1) == 0 and kept >= least)


@given(kinds, st.floats(0, 0.99), rules)
def test_what_goes_is_never_worth_more_than_what_stays(found, ratio, drop):
    gone = drop(found, ratio)
    for kind, values in found.items():
        if gone[kind].any():
            assert values[gone[kind]].max() <= values[~gone[kind]].min()


@given(kinds, st.floats(0, 0.99))
def test_each_kind_loses_the_share_that_was_asked_for(found, ratio):
    gone = drop_by_layer(found, ratio)
    for kind, values in found.items():
        assert gone[kind].sum() == min(int(ratio * len(values) + 1e-9), len(values) - 1)


def test_globally_the_weak_kind_loses():
    gone = drop_for_losses({"a": np.full(4, 5.0), "b": np.arange(4.0)}, 0.375)
    assert gone["a"].sum() == 0
    assert gone["b"].tolist() == [True, True, True, False]


def test_what_costs_more_of_the_budget_goes_first_at_equal_losses():
    kinds = {"cheap": np.arange(1.0, 9.0), "dear": np.arange(1.0, 9.0)}
    losses = {kind: np.append(0, np.cumsum(found)) for kind, found in kinds.items()}
    gone = drop_globally(kinds, losses, {"cheap": 1.0, "dear": 4.0}, 0.5)
    assert gone["dear"].sum() > gone["cheap"].sum()


def test_of_equals_the_later_ones_go():
    assert drop_by_layer({0: np.ones(4)}, 0.5)[0].tolist() == [False, False, True, True]
