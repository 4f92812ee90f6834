"""One contract for all criteria: what goes in stays as it is, and scores are numbers to rank by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_relief.errors import SettingsError
from onnx_relief.scoring.relief import relief_scores
from onnx_relief.scoring.table import CRITERIA, Clues, criterion_named
from onnx_relief.solving.support import damped

every = pytest.mark.parametrize("criterion", CRITERIA.values(), ids=list(CRITERIA))


def clues(seed=0, units=5, inputs=4, taps=3, scale=1.0):
    """Return what is known of a layer that read 100 random patches."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((units, inputs, taps)) * scale
    read = rng.standard_normal((100, inputs, taps)) * rng.uniform(0.1, 3, (inputs, 1))
    flat = read.reshape(100, -1)
    size = np.abs(read).mean(axis=0)
    return Clues(
        layer="layer",
        weights=weights,
        signals=lambda: np.abs(weights) * size,
        mean_square=(read**2).mean(axis=0)[None],
        moment=damped((flat.T @ flat / 100)[None], 1e-2),
        split=lambda rows: rows[None],
        join=lambda split: split[0],
        gradient=rng.standard_normal(weights.shape) ** 2,
        seed=7,
    )


@every
def test_scores_are_finite_not_negative_and_of_the_right_shape(criterion):
    found = clues()
    scores = criterion.scores(found)
    assert scores.shape == found.weights.shape
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()


@every
def test_what_goes_in_stays_as_it_is(criterion):
    found = clues()
    before = found.weights.copy(), found.moment.copy(), found.mean_square.copy()
    criterion.scores(found)
    for kept, now in zip(before, (found.weights, found.moment, found.mean_square), strict=True):
        assert np.array_equal(kept, now)


@every
def test_the_same_clues_give_the_same_scores(criterion):
    assert np.array_equal(criterion.scores(clues()), criterion.scores(clues()))


@every
def test_a_common_factor_of_the_weights_changes_no_share(criterion):
    """Folding BatchNormalization multiplies the weights of a unit by one number."""
    shares = []
    for scale in (1.0, 8.0):
        found = clues(scale=scale)
        scores = criterion.scores(found)
        shares.append(relief_scores(scores.reshape(len(scores), -1)))
    assert np.allclose(*shares)


@every
def test_units_are_scored_by_themselves(criterion):
    if criterion.name == "random":
        pytest.skip("what is drawn depends on the place")
    found = clues()
    order = np.array([3, 1, 4, 0, 2])
    moved = replace(
        found,
        weights=found.weights[order],
        signals=lambda: found.signals()[order],
        gradient=found.gradient[order],
    )
    assert np.allclose(criterion.scores(moved), criterion.scores(found)[order])


@every
def test_a_weight_of_zero_is_worth_nothing(criterion):
    if criterion.name == "random":
        pytest.skip("the control does not look at weights")
    found = clues()
    found.weights[2, 1] = 0.0
    found.gradient[2, 1] = 0.0
    assert not criterion.scores(found)[2, 1].any()


def test_uncorrelated_inputs_make_obs_wanda():
    found = clues()
    diagonal = np.einsum("gii->gi", found.moment)
    found = replace(
        found,
        moment=diagonal[:, :, None] * np.eye(12),
        mean_square=diagonal.reshape(1, 4, 3),
    )
    assert np.allclose(CRITERIA["obs"].scores(found), CRITERIA["wanda"].scores(found))


def test_without_a_matrix_obs_falls_back_to_what_is_known():
    found = replace(clues(), moment=None)
    assert np.array_equal(CRITERIA["obs"].scores(found), CRITERIA["wanda"].scores(found))


def test_the_seed_and_the_layer_decide_what_is_drawn():
    draw = CRITERIA["random"].scores
    assert not np.array_equal(draw(clues()), draw(replace(clues(), seed=8)))
    assert not np.array_equal(draw(clues()), draw(replace(clues(), layer="other")))


def test_other_names_are_refused():
    with pytest.raises(SettingsError, match="--criterion 'best' does not exist"):
        criterion_named("best")
