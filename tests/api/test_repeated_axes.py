"""An Einsum that repeats an axis of length 1, as ONNX Runtime does, harms nothing around it."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build, initializer, random

import onnx_relief as relief

MODEL = """(float[N,6] x) => (float[N,3] y) {
    a = MatMul (x, w1)  r = Relu (a)  b = Einsum <equation = "bd,de->be"> (r, w2)  s = Relu (b)
    y = MatMul (s, w3)
}"""
DATA = {"x": random(80, 6, seed=1)}


def repeating():
    return build(MODEL, w1=random(6, 8), w2=random(1, 5, seed=2), w3=random(5, 3, seed=3))


@pytest.mark.parametrize("repair", ["none", "bias", "least-squares"])
def test_the_layers_around_it_are_pruned(repair):
    found = relief.prune(repeating(), DATA, sparsity=0.5, granularity="weight", repair=repair)
    left = found.model
    np.testing.assert_array_equal(initializer(left, "w2"), random(1, 5, seed=2))
    assert all((initializer(left, name) == 0).any() for name in ("w1", "w3"))


def test_what_it_reads_stays_and_the_report_says_why():
    found = relief.prune_channels(repeating(), DATA, ratio=0.5, round_to=1)
    shapes = {name: initializer(found.model, name).shape for name in ("w1", "w2", "w3")}
    assert shapes == {"w1": (6, 8), "w2": (1, 3), "w3": (3, 3)}
    assert any("Einsum repeats its weight" in why for why in found.kept)
