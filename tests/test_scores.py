"""`--save-scores`: the scores are those that decided, whatever scored."""

from __future__ import annotations

import numpy as np
import pytest
from classifier import cnn, mlp, samples, weights
from text_models import build, random

import onnx_relief as relief
from onnx_relief.scoring.table import CRITERIA

RANKED = [name for name, criterion in CRITERIA.items() if not criterion.updates]


def scores(model, **chosen):
    """Return the scores, and the weights of the pruned model."""
    inputs = samples(shape=(6,) if len(model.graph.initializer) == 2 else (2, 8, 8))
    found = relief.prune(model, {"x": inputs["x"]}, repair="none", **chosen)
    return found.scores, weights(found.model)


def test_magnitudes_are_shares_of_a_unit():
    found, _ = scores(mlp(), criterion="magnitude", granularity="weight", sparsity=0.5)
    squares = np.square(random(6, 5, seed=1).T.astype(np.float64))
    assert set(found) == {"w1", "w2"}
    np.testing.assert_allclose(found["w1"], squares / squares.sum(axis=1, keepdims=True))


def test_scores_of_kernels_are_sums_over_their_taps():
    found, _ = scores(cnn(), criterion="magnitude-l1", sparsity=0.5)
    sizes = np.abs(random(4, 2, 3, 3, seed=1).astype(np.float64)).sum(axis=(2, 3))
    np.testing.assert_allclose(found["k"], sizes / sizes.sum(axis=1, keepdims=True))
    assert found["w"].shape == (3, 4)


@pytest.mark.parametrize("criterion", RANKED)
@pytest.mark.parametrize("how", [{"sparsity": 0.5}, {"alpha": 0.8}])
def test_the_best_scores_are_what_stays(criterion, how):
    found, left = scores(mlp(), criterion=criterion, granularity="weight", **how)
    for name in ("w1", "w2"):
        stays = left[name].T != 0
        for of_unit, kept in zip(found[name], stays, strict=True):
            assert of_unit[kept].min() >= of_unit[~kept].max(initial=0.0)


@pytest.mark.parametrize("granularity", ["kernel", "weight", "row", "2x1", "1:2"])
@pytest.mark.parametrize("criterion", ["obs", "wanda", "random"])
def test_every_structure_has_scores_in_the_shape_of_its_weights(granularity, criterion):
    how = {} if granularity == "1:2" else {"sparsity": 0.5}
    found, _ = scores(cnn(), criterion=criterion, granularity=granularity, only=["conv"], **how)
    (name,) = found
    assert name == "k"
    assert found["k"].shape == ((4, 2) if granularity == "kernel" else (4, 2, 3, 3))
    assert (found["k"] > 0).all()


def test_criteria_differ():
    told = {}
    for criterion in ("relief", "magnitude", "obs", "random"):
        told[criterion], _ = scores(mlp(), criterion=criterion, granularity="weight", sparsity=0.5)
    assert len({one["w1"].tobytes() for one in told.values()}) == len(told)


def test_a_weight_that_two_layers_read_is_scored_once():
    model = build(
        "(float[N,6] x) => (float[N,6] y) { a = MatMul (x, w)  r = Relu (a)  y = MatMul (r, w) }",
        w=random(6, 6, seed=1),
    )
    found = relief.prune(
        model, {"x": samples()["x"]}, criterion="magnitude", granularity="weight", sparsity=0.5
    )
    assert set(found.scores) == {"w"}
