"""Too few samples for second moments are named, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from classifier import mlp, written

import onnx_relief as relief
from onnx_relief.measuring.shortage import about_few_samples
from onnx_relief.results import FileSize, LayerCost, ModelCost


def said(samples, *, positions=10.0, criterion="obs", repair="none"):
    layer = LayerCost(
        layer="conv", connections=100, kept=60, weights=900, nonzero=900, units=10, alive=10,
        positions=positions,
    )  # fmt: skip
    file = FileSize(name="m.onnx", plain=1, zipped=1, sha256="0" * 64)
    dense = ModelCost(name="m", files=(file,), parameters=900, nonzero=900, layers=(layer,))
    return list(about_few_samples(dense, samples, criterion=criterion, repair=repair))


def test_a_layer_that_saw_as_much_as_it_has_inputs_is_no_matter():
    assert said(11) == []  # two are held out
    (text,) = said(10)
    assert "10 samples are few for --criterion obs: 1 layer of 1 has more inputs" in text
    assert "conv: 90 inputs, 80 times" in text
    assert said(10, positions=None) == []
    assert "1 sample is few" in said(1)[0]


@pytest.mark.parametrize("criterion", ["relief", "magnitude", "wanda", "taylor", "random"])
def test_what_needs_no_second_moments_is_no_matter(criterion):
    assert said(2, criterion=criterion) == []
    assert said(2, criterion=criterion, repair="bias") == []
    for repair in ("least-squares", "reconstruct"):
        assert f"few for --repair {repair}:" in said(2, criterion=criterion, repair=repair)[0]


@pytest.mark.parametrize(("count", "told"), [(5, True), (40, False)])
def test_pruning_with_fewer_samples_than_inputs_says_it(tmp_path, count, told):
    data = {"x": np.random.default_rng(0).standard_normal((count, 6)).astype(np.float32)}
    found = relief.prune(written(tmp_path, mlp()), data, sparsity=0.5)
    assert any("more inputs than were seen" in text for text in found.report.advice) == told


def test_maps_are_not_looked_at_everywhere():
    layer = LayerCost(
        layer="conv", connections=512, kept=512, weights=4608, nonzero=4608, units=1, alive=1,
        positions=784.0,
    )  # fmt: skip
    file = FileSize(name="m.onnx", plain=1, zipped=1, sha256="0" * 64)
    dense = ModelCost(name="m", files=(file,), parameters=4608, nonzero=4608, layers=(layer,))
    (text,) = about_few_samples(dense, 10, criterion="obs", repair="none")
    assert "4,608 inputs, 3,200 times" in text  # 8 samples of 400 places, not of 784
