"""Least squares on a support against numpy.linalg.lstsq and the dense formula, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.solving import support
from onnx_relief.solving.support import damped, fit_on_support, output_error, shrinkage


@st.composite
def problems(draw):
    """Draw inputs (groups, samples, entries), weights and a support."""
    groups, units = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    entries, samples = draw(st.integers(1, 7)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inputs = rng.standard_normal((groups, samples, entries))
    if draw(st.booleans()):
        inputs[:, :, draw(st.integers(0, entries - 1))] = 0.0
    weights = rng.standard_normal((groups, units, entries))
    return inputs, weights, rng.random((groups, units, entries)) < draw(st.floats(0.1, 1))


def moment_of(inputs):
    return np.einsum("gsi,gsj->gij", inputs, inputs) / inputs.shape[1]


@given(problems())
def test_it_is_least_squares(problem):
    inputs, weights, keep = problem
    moment = damped(moment_of(inputs), 1e-3)
    fitted = fit_on_support(moment, weights @ moment, keep)
    assert not fitted[~keep].any()
    for group, wanted in enumerate(weights):
        root = np.linalg.cholesky(moment[group]).T  # |root w|**2 = w' H w
        for unit, kept in enumerate(keep[group]):
            best = np.linalg.lstsq(root[:, kept], root @ wanted[unit], rcond=None)[0]
            assert np.allclose(fitted[group, unit, kept], best, atol=1e-8)


@given(problems())
def test_it_is_the_update_of_optimal_brain_surgeon(problem):
    inputs, weights, keep = problem
    moment = damped(moment_of(inputs), 1e-2)
    fitted = fit_on_support(moment, weights @ moment, keep)
    for group, wanted in enumerate(weights):
        inverse = np.linalg.inv(moment[group])
        for unit, kept in enumerate(keep[group]):
            gone = ~kept
            solved = np.linalg.solve(inverse[np.ix_(gone, gone)], wanted[unit, gone])
            expected = wanted[unit] - inverse[:, gone] @ solved
            assert np.allclose(fitted[group, unit], np.where(kept, expected, 0), atol=1e-7)


@given(problems())
def test_keeping_all_changes_nothing(problem):
    inputs, weights, keep = problem
    moment = damped(moment_of(inputs), 1e-2)
    fitted = fit_on_support(moment, weights @ moment, np.ones_like(keep))
    assert np.allclose(fitted, weights, atol=1e-8)
    assert output_error(moment, fitted - weights).max() < 1e-12


@given(problems(), st.booleans())
def test_conjugate_gradients_come_to_the_same(problem, near):
    inputs, weights, keep = problem
    moment = damped(moment_of(inputs), 1e-1)
    direct = fit_on_support(moment, weights @ moment, keep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(support, "_SMALL", 0)
        patch.setattr(support, "_DIRECT", -1)
        patch.setattr(support, "_QUICKER", np.inf)
        patch.setattr(support, "_ENOUGH", 1e-12)
        asked = patch_counter(patch)
        iterated = fit_on_support(moment, weights @ moment, keep, weights if near else None)
    same = all((one == one[:1]).all() for one in keep)
    assert same or asked
    assert not iterated[~keep].any()
    assert np.allclose(direct, iterated, atol=1e-4 * max(1, np.abs(weights).max()))


def patch_counter(patch):
    """Let conjugate gradients note that they were asked."""
    asked, plain = [], support._conjugate

    def noted(*problem):
        asked.append(True)
        return plain(*problem)

    patch.setattr(support, "_conjugate", noted)
    return asked


def test_what_large_layers_lose_is_nearly_the_least():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((1, 900, 300)) @ rng.standard_normal((1, 300, 300))
    moment, weights = damped(moment_of(inputs), 1e-2), rng.standard_normal((1, 1000, 300))
    keep = rng.random(weights.shape) < 0.5
    with pytest.MonkeyPatch.context() as patch:
        asked = patch_counter(patch)
        quick = fit_on_support(moment, weights @ moment, keep)
        patch.setattr(support, "_DIRECT", np.inf)
        exact = fit_on_support(moment, weights @ moment, keep)
    assert len(asked) == 1
    least = output_error(moment, exact - weights).sum()
    assert output_error(moment, quick - weights).sum() < 1.02 * least


def test_the_error_is_the_mean_square_of_the_outputs():
    inputs, change = np.random.default_rng(0).standard_normal((2, 1, 50, 4))
    moved = inputs @ change[:, :3].transpose(0, 2, 1)
    found = output_error(moment_of(inputs), change[:, :3])
    assert np.allclose(found, (moved**2).mean(axis=1))


@pytest.mark.parametrize("inputs", [np.zeros((1, 5, 3)), np.ones((1, 5, 3))])
def test_singular_moments_are_mended(inputs):
    moment = damped(moment_of(inputs), 1e-2)
    weights = np.array([[[1.0, 2.0, 3.0]]])
    fitted = fit_on_support(moment, weights @ moment, np.array([[[True, False, False]]]))
    assert np.isfinite(fitted).all()


@given(seed=st.integers(0, 1000), samples=st.integers(5, 40))
def test_the_ridge_is_the_one_of_a_search_over_mixtures(seed, samples):
    rng = np.random.default_rng(seed)
    spread = rng.random((12, 12))
    one, other = (
        np.stack([np.cov(spread @ rng.standard_normal((12, samples)), bias=True) for _ in range(2)])
        for _ in range(2)
    )
    other[1] *= 100  # the size of a group does not count
    one[1] *= 100
    found = shrinkage(np.concatenate([one, np.zeros((1, 12, 12))]), other[[0, 1, 1]])
    levels = [np.trace(moment) / 12 for moment in one]

    def distance(share):
        target = [level * np.eye(12) for level in levels]
        apart = [(1 - share) * one[k] + share * target[k] - other[k] for k in range(2)]
        return sum(np.square(apart[k] / levels[k]).sum() for k in range(2))

    shares = np.linspace(0, 0.5, 2001)
    best = shares[int(np.argmin([distance(share) for share in shares]))]
    assert found / (1 + found) == pytest.approx(best, abs=3e-4)


def test_moments_that_others_confirm_need_no_ridge():
    moment = np.cov(np.random.default_rng(0).standard_normal((6, 50)))[None]
    assert shrinkage(moment, moment) == 0
    assert shrinkage(np.eye(3)[None], 2 * np.eye(3)[None]) == 0


@given(problem=problems(), spread=st.floats(0, 6))
def test_the_units_of_inputs_do_not_matter_where_they_are_their_own(problem, spread):
    inputs, weights, keep = problem
    units = 10.0 ** np.random.default_rng(0).uniform(-spread, spread, inputs.shape[2])
    fitted, ridges = [], []
    for unit in (np.ones_like(units), units):
        one, other = (moment_of(half * unit) for half in (inputs, inputs[:, ::2]))
        ridges.append(shrinkage(one, other, own_units=True))
        moment = damped(one, 1e-2, own_units=True)
        fitted.append(fit_on_support(moment, weights / unit @ moment, keep) * unit)
    assert ridges[0] == pytest.approx(ridges[1], rel=1e-6, abs=1e-9)
    assert np.allclose(*fitted, rtol=1e-4, atol=1e-4 * np.abs(weights).max())
