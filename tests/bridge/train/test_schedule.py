"""The learning rate at every step, from the formula."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.bridge.train.schedule import factor
from onnx_relief.training import TrainSettings

SCHEDULES = ("constant", "multistep", "cosine")


def rates(steps, **options):
    settings = TrainSettings(**options)
    return [factor(step, steps, settings) for step in range(steps)]


def test_constant_stays():
    assert rates(5, schedule="constant") == [1.0] * 5


def test_multistep_falls_at_shares_of_the_epochs():
    found = rates(8, schedule="multistep", milestones=(0.5, 0.75), gamma=0.1)
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_authors_step_at_half_of_twelve_epochs():
    found = rates(12 * 500, schedule="multistep", epochs=12)
    assert found == pytest.approx([1.0] * 3000 + [0.1] * 3000)


def test_cosine_falls_from_one_towards_zero():
    found = rates(100, schedule="cosine")
    assert found[0] == 1
    assert found[50] == pytest.approx(0.5)
    assert found[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.25, 2.0])
def test_warm_up_rises_in_equal_parts(schedule, warmup):
    found = rates(16, schedule=schedule, warmup=warmup, epochs=8)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[4] == pytest.approx(1.0)


@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 200),
    st.floats(0, 0.9),
    st.lists(st.floats(0.01, 0.99), max_size=3, unique=True),
)
def test_a_factor_lies_between_zero_and_one(schedule, steps, warmup, milestones):
    found = rates(
        steps, schedule=schedule, warmup=warmup, milestones=tuple(sorted(milestones)), epochs=9
    )
    assert all(0 < value <= 1 for value in found)
