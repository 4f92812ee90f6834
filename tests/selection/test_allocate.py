"""A budget is spent, and nowhere could it be spent better."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from onnx_relief.selection.allocate import RUNGS, Ladder, allocate, uniform


@st.composite
def ladders(draw, most=60):
    """Draw layers whose loss grows faster the less they keep."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        power = rng.uniform(1.1, 4)
        shares = np.array(RUNGS)
        losses = rng.uniform(0.01, 5) * (1 - shares) ** power
        blocks = int(rng.integers(2, most))
        found.append(Ladder(shares=shares, losses=losses, blocks=blocks))
    return found


def loss_of(ladder, count):
    return np.interp(count / ladder.blocks, ladder.shares[::-1], ladder.losses[::-1])


@given(ladders() | ladders(most=5000), st.floats(0, 1) | st.floats(0, 0.02))
def test_the_budget_is_spent_to_the_last_block(found, share):
    budget = round(share * sum(one.blocks for one in found))
    for spread in (allocate, uniform):
        counts = spread(found, budget)
        assert sum(counts) == max(budget, len(found))
        assert all(1 <= n <= one.blocks for n, one in zip(counts, found, strict=True))


@given(ladders(most=12), st.floats(0.2, 0.9))
def test_no_other_way_is_better_by_more_than_a_block(found, share):
    budget = max(round(share * sum(one.blocks for one in found)), len(found))
    mine = sum(loss_of(o, n) for o, n in zip(found, allocate(found, budget), strict=True))
    best = min(
        sum(loss_of(o, n) for o, n in zip(found, counts, strict=True))
        for counts in product(*(range(1, one.blocks + 1) for one in found))
        if sum(counts) <= budget
    )
    a_block = max(loss_of(one, 1) - loss_of(one, min(2, one.blocks)) for one in found)
    assert mine <= best + a_block + 1e-9


def test_what_costs_more_keeps_less():
    shares = np.array(RUNGS)
    losses = (1 - shares) ** 2
    cheap, dear = (Ladder(shares=shares, losses=losses, blocks=100, price=p) for p in (1.0, 5.0))
    few, many = allocate([dear, cheap], 300.0)
    assert few < many
    assert few * 5 + many <= 300


def test_what_could_go_for_nothing_stays_within_the_budget():
    losses = np.maximum(0, 0.5 - np.array(RUNGS))
    ladder = Ladder(shares=np.array(RUNGS), losses=losses, blocks=100)
    assert allocate([ladder, ladder], 180) == [90, 90]
    assert allocate([ladder], 100) == [100]


def test_what_has_to_stay_stays():
    shares = np.array(RUNGS)
    ladder = Ladder(shares=shares, losses=1 - shares, blocks=50, least=20)
    assert allocate([ladder], 3) == [20]


@given(st.floats(0.01, 9), st.floats(0.5, 40))
@example(7.381, 18.0)
def test_a_budget_of_whole_blocks_is_met_whatever_losses_round_to(step, price):
    """A loss per weight that is divided and multiplied again may come out a little different."""
    ladder = Ladder(
        shares=np.array([1.0, 0.75, 0.5, 0.25]),
        losses=np.cumsum([0, step, step * 1.1, step * 1.3]),
        blocks=4,
        price=price,
    )
    assert [allocate([ladder], count * price) for count in (1, 2, 3, 4)] == [[1], [2], [3], [4]]


@given(ladders(), st.floats(0, 1), st.integers(0, 2**16))
def test_the_same_share_for_all_leaves_room_for_what_has_to_stay(found, share, seed):
    rng = np.random.default_rng(seed)
    found = [replace(one, least=int(rng.integers(1, one.blocks + 1))) for one in found]
    budget = round(share * sum(one.blocks for one in found))
    counts = uniform(found, budget)
    assert all(count >= one.least for count, one in zip(counts, found, strict=True))
    assert sum(counts) == max(budget, sum(one.least for one in found))
    free = [n / one.blocks for n, one in zip(counts, found, strict=True) if n > one.least]
    slack = 1 / min(one.blocks for one in found)
    assert not free or max(free) - min(free) <= 2 * slack
