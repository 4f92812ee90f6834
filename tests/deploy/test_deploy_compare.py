"""How far outputs lie apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.deploy.compare import largest_difference

ONES = np.ones((1, 3), np.float32)
NAN = np.array([[1, np.nan, 1]], np.float32)


@given(st.integers(1, 40), st.floats(1e-3, 1e3), st.floats(1e-4, 10))
def test_it_is_relative_to_the_largest_element(size, scale, share):
    expected = scale * np.linspace(-1, 1, size + 1)
    found = expected.copy()
    found[0] += share * scale
    assert largest_difference([expected], [found]) == pytest.approx(share)
    assert largest_difference([expected], [expected]) == 0


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([ONES], [ONES.ravel()], 0),
        ([ONES], [], math.inf),
        ([ONES], [None], math.inf),
        ([ONES], [np.ones(4)], math.inf),
        ([ONES], [NAN], math.inf),
        ([NAN], [ONES], math.inf),
        ([NAN], [NAN], 0),
        ([np.array([np.inf])], [np.array([-np.inf])], math.inf),
        ([np.zeros((0, 3))], [np.zeros((3, 0))], 0),
        ([np.zeros(2)], [np.full(2, 1e-9)], 1e-3),
        ([np.array([3])], [np.array([3], np.int32)], 0),
        ([np.array([True])], [np.array([False])], 1),
        ([None], [ONES], None),
        ([ONES, None, ONES], [ONES, None, 3 * ONES], 2),
    ],
)
def test_what_is_missing_or_not_finite_is_infinitely_far(expected, found, difference):
    assert largest_difference(expected, found) == pytest.approx(difference)
