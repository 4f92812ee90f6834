"""Layers of which a budget could think that they cost nothing, and ones that read vectors."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build, function, initializer, random

import onnx_relief as relief
from onnx_relief.data.held_out import fitted_to, spread

SAMPLES = 40


def rarely():
    """Return a model that takes a branch where a number is large, and one sample in five that is.

    None of these is held out, so that trials of single layers see nothing of that branch.
    """
    model = build(
        """(float[N,12] x) => (float[N,4] y) {
            limit = Constant <value = float {9}> ()  zero = Constant <value = int64[1] {0}> ()
            one = Constant <value = int64[1] {1}> ()
            f = Slice (x, zero, one, one)  m = ReduceMax <keepdims = 0> (f)
            much = Greater (m, limit)
            h = If (much) <then_branch = t () => (float[N,10] o) { o = MatMul (x, a) },
                else_branch = e () => (float[N,10] p) { p = MatMul (x, b) }>
            r = Relu (h)  y = MatMul (r, c) }""",
        a=random(12, 10, seed=1),
        b=random(12, 10, seed=2),
        c=random(10, 4, seed=3),
        opset=17,
    )
    x = random(SAMPLES, 12, seed=4)
    judged = spread(SAMPLES, SAMPLES - fitted_to(SAMPLES))
    large = np.setdiff1d(np.arange(SAMPLES), judged)[::4]
    x[large, 0] = 10
    return model, x


def test_a_branch_that_trials_do_not_enter_is_not_free():
    model, x = rarely()
    found = relief.prune(
        model, x, sparsity=0.5, granularity="weight", batch_size=1, repair="none"
    ).model
    kept = {name: (initializer(found, name) != 0).mean() for name in "abc"}
    assert kept["a"] > 0.2
    assert kept["b"] > 0.2


@pytest.mark.parametrize("criterion", ["relief", "wanda", "obs", "magnitude"])
@pytest.mark.parametrize("repair", ["none", "bias", "least-squares"])
def test_a_matrix_times_a_vector_loses_what_a_vector_times_a_matrix_does(
    tmp_path, criterion, repair
):
    weight, x = random(8, 6, seed=1), random(SAMPLES, 8, seed=2)
    for number, sample in enumerate(x):
        np.savez(tmp_path / f"{number:03}.npz", x=sample)
    ways = ("(float[8] x) => (float[6] y) { y = MatMul (w, x) }", weight.T.copy())
    others = ("(float[8] x) => (float[6] y) { y = MatMul (x, w) }", weight)
    kept = []
    for graph, stored in (ways, others):
        found = relief.prune(
            build(graph, w=stored),
            tmp_path,
            sparsity=0.5,
            granularity="weight",
            criterion=criterion,
            repair=repair,
        ).model
        kept.append(initializer(found, "w"))
    np.testing.assert_allclose(kept[0].T, kept[1], rtol=1e-4, atol=1e-6)
    assert (kept[0] == 0).sum() == 24


@pytest.mark.parametrize("criterion", ["relief", "wanda", "obs", "magnitude"])
@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_layers_of_a_local_function_lose_what_they_lose_without_it(criterion, granularity):
    """What they read has another name once the function is written out."""
    nodes = "m = MatMul (x, w)  h = Add (m, b)  r = Relu (h)  y = MatMul (r, v)"
    head = "(float[N,8] x) => (float[N,3] y)"
    weights = {"w": random(8, 12, seed=1), "b": random(12, seed=2), "v": random(12, 3, seed=3)}
    called = build(
        f"{head} {{ y = my.net (x, w, b, v) }}",
        functions=function("net", "(x, w, b, v) => (y)", nodes),
        **weights,
    )
    chosen = {"granularity": granularity, "criterion": criterion, "repair": "least-squares"}
    if granularity == "weight":
        chosen["sparsity"] = 0.5
    x = random(SAMPLES, 8, seed=4)
    one, other = (
        relief.prune(model, x, **chosen).model
        for model in (called, build(f"{head} {{ {nodes} }}", **weights))
    )
    for name in ("w", "v"):
        zeros = [initializer(model, name) == 0 for model in (one, other)]
        np.testing.assert_array_equal(*zeros)
        assert zeros[0].any()
