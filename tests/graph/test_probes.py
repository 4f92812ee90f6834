"""Layers that read alike share a measurement; layers that do not, do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from reference import (
    convolution_signals,
    kernels_by_unit,
    matmul_signals,
    seen_by_taps,
    shares,
)
from scored import assert_scores, model_of, scores_of

from onnx_relief.graph import patch_probes
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.probes import probes_for
from onnx_relief.settings import Estimator
from onnx_relief.structures import KERNEL, WEIGHT, Structure

RNG = np.random.default_rng(9)


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def probes_of(model: onnx.ModelProto) -> list[Any]:
    survey = find_layers(load(model))
    return [p for s in survey.sites for p in probes_for(s, Estimator.PAPER, KERNEL)]


def test_layers_that_read_alike_share_a_probe_and_are_scored_alike() -> None:
    x, weights = numbers(4, 3), {"v": numbers(3, 2), "w": numbers(3, 4)}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"], name="one"),
        helper.make_node("MatMul", ["x", "w"], ["b"], name="two"),
    ]
    model = model_of(nodes, weights, {"x": x}, ["a", "b"])
    assert len(probes_of(model)) == 2
    assert len(set(probes_of(model))) == 1
    scores = scores_of(model, {"x": x}, {"x": 3 * x})
    for name, weight in (("one", weights["v"]), ("two", weights["w"])):
        expected = shares(matmul_signals(np.concatenate([x, 3 * x]), weight, weight_left=False))
        none = np.zeros((weight.shape[1], 0))
        assert_scores(scores[name], *expected, none, rtol=1e-5, atol=0)


def test_same_input_but_other_kernels_are_other_probes() -> None:
    x = numbers(3, 2, 5, 5)
    weights = {"t": numbers(4, 2, 3, 3), "s": numbers(4, 2, 3, 3)}  # measured by their kernels
    weights |= {"u": numbers(20, 2, 3, 3), "v": numbers(20, 2, 3, 3), "w": numbers(9, 2, 2, 2)}
    said: dict[str, dict[str, Any]] = {name: {} for name in weights}
    said["v"] = {"dilations": [2, 2]}
    nodes = [helper.make_node("Conv", ["x", n], [f"y{n}"], name=n, **said[n]) for n in weights]
    model = model_of(nodes, weights, {"x": x}, [f"y{n}" for n in weights])
    assert len(set(probes_of(model))) == 5
    scores = scores_of(model, {"x": x})
    for name, weight in weights.items():
        seen = seen_by_taps(x, weight.shape[2:], said[name], transposed=False)
        kernels = kernels_by_unit(weight, 1, transposed=False)
        signals = convolution_signals(seen, kernels, 1, mean_map=False, weights=False)
        assert_scores(scores[name], *shares(signals), np.zeros((len(weight), 0)), rtol=1e-5, atol=0)


def test_convolutions_of_other_groups_share_the_patches() -> None:
    x, weights = numbers(3, 4, 5, 5), {"v": numbers(12, 4, 2, 2), "w": numbers(12, 2, 2, 2)}
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], name="v", group=1),
        helper.make_node("Conv", ["x", "w"], ["b"], name="w", group=2),
    ]
    model = model_of(nodes, weights, {"x": x}, ["a", "b"])
    assert len(set(probes_of(model))) == 1
    scores = scores_of(model, {"x": x})
    seen = seen_by_taps(x, (2, 2), {}, transposed=False)
    for groups, (name, weight) in enumerate(weights.items(), 1):
        kernels = kernels_by_unit(weight, groups, transposed=False)
        signals = convolution_signals(seen, kernels, groups, mean_map=False, weights=False)
        assert_scores(scores[name], *shares(signals), np.zeros((12, 0)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("structure", [KERNEL, WEIGHT], ids=str)
@pytest.mark.parametrize("entries", [1, 300, 1000])
def test_blocks_of_samples_do_not_show(
    entries: int, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weights = numbers(7, 2, 5, 5), {"v": numbers(20, 2, 3, 3), "w": numbers(4, 2, 3, 3)}
    nodes = [helper.make_node("Conv", ["x", name], [f"y{name}"], name=name) for name in weights]
    model = model_of(nodes, weights, {"x": x}, ["yv", "yw"])
    whole = scores_of(model, {"x": x}, structure=structure)
    monkeypatch.setattr(patch_probes, "_BLOCK_ENTRIES", entries)
    for name, scores in scores_of(model, {"x": x}, structure=structure).items():
        np.testing.assert_allclose(scores.weights, whole[name].weights, rtol=1e-6, atol=0)
