"""The change of a layer is the least-squares solution that NumPy finds in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onnx_relief.activity.gram import gram_of
from onnx_relief.repair.refit import RIDGES, added_error, refit, solve


def problem(seed, *, groups=1, entries=6, units=3, positions=40, dead=0):
    """Return inputs (1, groups, entries, positions), what outputs lack, and what survives."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(groups, entries, entries))
    columns = np.einsum("gde,gep->gdp", mix, rng.normal(size=(groups, entries, positions)))[None]
    columns += rng.normal(size=(1, groups, entries, 1))
    columns[:, :, :dead] = 0
    lacks = rng.normal(size=(1, groups, units, positions)) + 3
    keep = rng.random((groups, units, entries)) < 0.6
    return columns, lacks, keep


def by_numpy(columns, lacks, keep, ridge, towards, *, centred):
    """Return the same from numpy.linalg.lstsq, one unit at a time."""
    weights, offset = towards.copy(), np.zeros(keep.shape[:2])
    for group, unit in np.ndindex(*keep.shape[:2]):
        x, r, alive = columns[0, group].T, lacks[0, group, unit], keep[group, unit]
        mean, level = (x.mean(axis=0), r.mean()) if centred else (0 * x[0], 0.0)
        spread = np.mean((x - mean) ** 2)
        pull = np.sqrt(len(x) * (ridge * (spread or 1.0) + 1e-12)) * np.eye(alive.sum())
        rows = np.concatenate([(x - mean)[:, alive], pull])
        answers = np.concatenate([r - level, pull @ towards[group, unit, alive]])
        weights[group, unit, alive] = np.linalg.lstsq(rows, answers, rcond=None)[0]
        offset[group, unit] = level - weights[group, unit] @ mean if alive.any() else 0.0
    return weights, offset


@given(
    seed=st.integers(0, 2**31),
    groups=st.integers(1, 3),
    entries=st.integers(1, 7),
    units=st.integers(1, 4),
    positions=st.integers(1, 60),
    dead=st.integers(0, 3),
    ridge=st.sampled_from(RIDGES[:-1]),
    centred=st.booleans(),
    pulled=st.booleans(),
)
@example(  # two positions at which an input is nearly the same
    seed=165,
    groups=3,
    entries=3,
    units=1,
    positions=2,
    dead=0,
    ridge=1e-4,
    centred=True,
    pulled=False,
)
@settings(max_examples=60, deadline=None)
def test_a_solution_is_that_of_numpy(seed, ridge, centred, pulled, **sizes):
    columns, lacks, keep = problem(seed, **sizes)
    towards = np.where(keep, np.random.default_rng(seed).normal(size=keep.shape), 0.0) * pulled
    found = solve(
        gram_of(columns, lacks), keep, ridge, centred=centred, towards=towards if pulled else None
    )
    weights, offset = by_numpy(columns, lacks, keep, ridge, towards, centred=centred)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.offset, offset, rtol=1e-4, atol=1e-5)
    assert not found.weights[~keep].any()


@given(seed=st.integers(0, 2**31), ridge=st.sampled_from(RIDGES), centred=st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_error_that_a_change_adds_is_the_difference_of_two_errors(seed, ridge, centred):
    columns, lacks, keep = problem(seed)
    change = solve(gram_of(columns, lacks), keep, ridge, centred=centred)
    others, missed, _ = problem(seed + 1)
    left = missed - np.einsum("gud,ngdp->ngup", change.weights, others) - change.offset[..., None]
    wanted = (np.square(left).sum() - np.square(missed).sum()) / missed.shape[-1]
    assert added_error(gram_of(others, missed), change).sum() == pytest.approx(wanted, rel=1e-6)


def test_noise_is_not_fitted():
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, 1, 1, 30, 40))
    keep = np.ones((1, 4, 30), bool)
    parts = [gram_of(z, rng.normal(size=(1, 1, 4, 40))) for z in (x, other)]
    free, chosen = solve(parts[0], keep, RIDGES[0], centred=True), refit(*parts, keep, centred=True)
    assert added_error(parts[1], free).sum() > 0
    assert chosen is None or chosen.ridge >= 0.1


def test_what_can_be_explained_is_explained():
    columns, _, keep = problem(3, positions=500)
    wanted = np.where(keep, np.random.default_rng(1).normal(size=keep.shape), 0)
    lacks = np.einsum("gud,ngdp->ngup", wanted, columns) + 2
    halves = [
        gram_of(columns[..., some], lacks[..., some]) for some in (slice(400), slice(400, 500))
    ]
    found = refit(*halves, keep, centred=True)
    assert found is not None
    assert found.ridge == RIDGES[0]
    total = np.square(lacks[..., 400:]).sum(axis=2).mean()
    assert added_error(halves[1], found).sum() == pytest.approx(-total, rel=1e-4)


def test_units_that_the_ridge_is_not_tried_on_are_refitted_just_so():
    columns, lacks, keep = problem(11, groups=2, units=200)
    parts = [gram_of(columns[..., some], lacks[..., some]) for some in (slice(30), slice(30, 40))]
    found = refit(*parts, keep, centred=True)
    assert found is not None
    whole = solve(parts[0], keep, found.ridge, centred=True)
    np.testing.assert_allclose(found.weights, whole.weights)
    np.testing.assert_allclose(found.offset, whole.offset)


@pytest.mark.parametrize("units", [4, 200])
def test_weights_that_learned_few_samples_by_heart_are_taken_back(units):
    """As those are that made up for others: what held-out samples lack, fitting more mends less."""
    rng = np.random.default_rng(2)
    columns = rng.normal(size=(1, 1, 30, 60))
    noise = rng.normal(size=(1, 1, units, 60))
    keep = np.ones((1, units, 30), bool)
    parts = [gram_of(columns[..., some], noise[..., some]) for some in (slice(40), slice(40, 60))]
    learned = solve(parts[0], keep, RIDGES[0], centred=True)
    left = noise - np.einsum("gud,ngdp->ngup", learned.weights, columns)
    fit, tune = (
        gram_of(columns[..., some], left[..., some]) for some in (slice(40), slice(40, 60))
    )
    without, found = (
        refit(fit, tune, keep, centred=True, back=b) for b in (None, -learned.weights)
    )
    assert found is not None
    gained = 0.0 if without is None else added_error(tune, without).sum()
    assert added_error(tune, found).sum() < 0.6 * gained - 0.4 * noise.shape[2]
    assert np.abs(learned.weights + found.weights).max() < np.abs(learned.weights).max() / 2


def test_nobody_goes_back_for_next_to_nothing():
    """Going back is a large change, for which a small gain on few samples is no reason."""
    rng = np.random.default_rng(2)
    columns = rng.normal(size=(1, 1, 30, 60))
    noise = rng.normal(size=(1, 1, 4, 60))
    keep = np.ones((1, 4, 30), bool)
    fit, tune = (
        gram_of(columns[..., some], noise[..., some]) for some in (slice(40), slice(40, 60))
    )
    lacking = float(np.square(noise[..., 40:]).sum(axis=2).mean())
    plain = refit(fit, tune, keep, centred=True, lacking=lacking)
    assert plain is not None
    for far, goes in ((1e-4, False), (0.1, True)):  # what would take all of that share away
        missing = np.sqrt(far * lacking / 4 / 30) * np.sign(rng.normal(size=keep.shape))
        lacks = noise + np.einsum("gud,ngdp->ngup", missing, columns)
        pair = [gram_of(columns[..., p], lacks[..., p]) for p in (slice(40), slice(40, 60))]
        found, stays = (
            refit(*pair, keep, centred=True, back=back, lacking=lacking) for back in (missing, None)
        )
        assert found is not None
        assert stays is not None
        assert np.array_equal(found.weights, stays.weights) is not goes


def test_what_needs_no_way_back_takes_none():
    columns, lacks, keep = problem(3, positions=500)
    parts = [
        gram_of(columns[..., some], lacks[..., some]) for some in (slice(400), slice(400, 500))
    ]
    away = np.where(keep, 1e3, 0.0)
    found, plain = (refit(*parts, keep, centred=True, back=back) for back in (away, None))
    assert found is not None
    assert plain is not None
    np.testing.assert_array_equal(found.weights, plain.weights)


def test_a_unit_without_weights_is_left_as_it_is():
    columns, lacks, keep = problem(5)
    keep[:, 1] = False
    found = solve(gram_of(columns, lacks), keep, 1e-3, centred=True)
    assert not found.weights[:, 1].any()
    assert not found.offset[:, 1].any()
    assert found.offset[:, 0].any()


def test_where_nothing_lacks_there_is_no_change():
    columns, lacks, keep = problem(7)
    gram = gram_of(columns, 0 * lacks)
    assert refit(gram, gram, keep, centred=True) is None


def test_one_sample_is_no_reason_to_divide_by_zero():
    columns, lacks, keep = problem(9, positions=1)
    found = refit(gram_of(columns, lacks), None, keep, centred=False)
    assert found is not None
    assert np.isfinite(found.weights).all()


def test_units_that_count_little_do_not_choose_the_ridge():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(1, 1, 30, 60))
    lacks = np.einsum("ud,ngdp->ngup", rng.normal(size=(4, 30)), columns)
    lacks[:, :, 2:] = 30 * rng.normal(size=(1, 1, 2, 60))
    keep = np.ones((1, 4, 30), bool)
    parts = [gram_of(columns[..., some], lacks[..., some]) for some in (slice(40), slice(40, 60))]
    alike = refit(*parts, keep, centred=True)
    found = refit(*parts, keep, centred=True, weigh=np.array([[1, 1, 0, 0]]))
    assert found is not None
    assert found.ridge == RIDGES[0]
    assert alike is None or alike.ridge > found.ridge
