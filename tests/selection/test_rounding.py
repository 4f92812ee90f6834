"""Every axis keeps a multiple, and short axes keep a choice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.selection.rounding import CANDIDATES, Rounding, roundings

entries = st.lists(st.integers(1, 64), min_size=1, max_size=4)


@given(st.integers(1, 32), st.integers(1, 300), entries)
def test_a_step_makes_every_axis_a_multiple_and_no_smaller_one_does(multiple, groups, taken):
    step = Rounding(multiple=multiple).step(groups, taken)
    assert all(step * one % multiple == 0 for one in taken)
    smaller = [s for s in range(1, step) if all(s * one % multiple == 0 for one in taken)]
    assert smaller == []


@given(st.sampled_from(CANDIDATES), st.integers(1, 300), entries)
def test_one_that_fits_leaves_a_choice(multiple, groups, taken):
    step = Rounding(multiple=multiple, fits=True).step(groups, taken)
    assert step == 1 or 2 * step <= groups
    assert step <= Rounding(multiple=multiple).step(groups, taken)


def test_what_was_asked_for_is_all_that_is_tried():
    assert roundings(5) == (Rounding(multiple=5),)
    assert [one.multiple for one in roundings(None)] == [16, 8, 1]
