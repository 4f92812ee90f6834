"""The score of a weight is w^2 mean g^2, in float64; what is no number is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from onnx_relief.errors import DataError
from onnx_relief.scoring.taylor import taylor_scores

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=4)
NUMBERS = st.floats(-1e3, 1e3)


@given(SHAPES.flatmap(lambda s: st.tuples(arrays(float, s, elements=NUMBERS),
                                          arrays(float, s, elements=NUMBERS))))  # fmt: skip
def test_score_is_the_mean_square_of_gradient_times_weight(pair):
    weights, gradients = pair
    before = weights.copy()
    found = taylor_scores(weights, gradients**2)
    np.testing.assert_allclose(found, (weights * gradients) ** 2, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(weights, before)


@given(arrays(float, (2, 3, 1), elements=NUMBERS), st.sampled_from([0.25, 4.0, 1024.0]))
def test_scaling_a_weight_up_and_its_gradient_down_changes_nothing(weights, factor):
    gradients = np.arange(6.0).reshape(2, 3, 1)
    scaled = taylor_scores(weights * factor, gradients / factor**2)
    expected = taylor_scores(weights, gradients)
    np.testing.assert_allclose(scaled, expected, rtol=1e-12, atol=1e-300)


def test_half_precision_weights_do_not_overflow():
    weights = np.full((1, 1, 1), 6e4, np.float16)
    assert taylor_scores(weights, np.ones((1, 1, 1))).item() == float(weights.item()) ** 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_no_numbers_are_refused(bad):
    with pytest.raises(DataError, match="infinite or no number"):
        taylor_scores(np.ones((1, 2, 1)), np.array([[[1.0], [bad]]]))


def test_gradients_of_another_model_are_refused():
    with pytest.raises(DataError, match="same model"):
        taylor_scores(np.ones((1, 2, 1)), np.ones((2, 1, 1)))
