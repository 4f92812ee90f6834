"""The way from all weights to few: exact shares, and supports that are worth their cost."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.solving.admm import descend, survivors
from onnx_relief.solving.support import damped, fit_on_support, output_error
from onnx_relief.structures import largest


def project(scores, share):
    count = max(1, round(share * scores.size))
    return largest(scores.reshape(-1), count).reshape(scores.shape)


def problem(seed, groups=1, units=6, entries=12):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((groups, entries, entries))
    inputs = rng.standard_normal((groups, 200, entries)) @ mixing
    moment = damped(np.einsum("gsi,gsj->gij", inputs, inputs) / 200, 1e-2)
    return moment, rng.standard_normal((groups, units, entries))


def best_error(moment, weights, keep):
    fitted = fit_on_support(moment, weights @ moment, keep)
    return output_error(moment, fitted - weights).sum()


@given(st.integers(0, 2**16), st.floats(0.05, 0.95), st.integers(1, 3))
def test_the_share_is_kept_exactly(seed, share, groups):
    moment, weights = problem(seed, groups)
    keep = survivors(moment, weights, share, project).keep
    assert keep.sum() == max(1, round(share * keep.size))


def test_its_supports_cost_less_than_those_of_magnitude():
    worse = 0
    for seed in range(20):
        moment, weights = problem(seed)
        found = best_error(moment, weights, survivors(moment, weights, 0.3, project).keep)
        plain = best_error(moment, weights, project(np.abs(weights), 0.3))
        worse += found > plain
    assert worse <= 2


def test_losses_grow_as_shares_fall():
    moment, weights = problem(0)
    steps = list(descend(moment, weights, [1.0, 0.8, 0.5, 0.2, 0.05], project))
    errors = [best_error(moment, weights, step.keep) for step in steps]
    assert errors[0] < 1e-12
    assert np.all(np.diff(errors) >= 0)
    for step, error in zip(steps[1:], errors[1:], strict=True):
        assert not step.weights[~step.keep].any()
        assert output_error(moment, step.weights - weights).sum() >= error * (1 - 1e-9)


@given(st.integers(0, 2**16), st.floats(0.1, 10))
def test_the_scale_of_the_inputs_does_not_matter(seed, scale):
    moment, weights = problem(seed)
    first = survivors(moment, weights, 0.3, project).keep
    second = survivors(moment * scale, weights, 0.3, project).keep
    assert (first == second).mean() > 0.95


@given(st.integers(0, 2**16), st.integers(-100, 100))
def test_the_scale_of_the_weights_does_not_matter(seed, power):
    moment, weights = problem(seed)
    first = survivors(moment, weights, 0.3, project)
    second = survivors(moment, weights * 2.0**power, 0.3, project)
    np.testing.assert_array_equal(first.keep, second.keep)
    np.testing.assert_allclose(second.weights / 2.0**power, first.weights, rtol=1e-6)
