"""Layers of integers get back the mean of what they no longer read, and are given no floats."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from text_models import build, random, run

import onnx_relief as relief

GRAPH = """(float[N,3,4,4] x) => (float[N,5,4,4] y) {
    [first] h = Conv (x, k1, b1)
    r = Relu (h)
    k = DequantizeLinear <axis = 0> (kq, ks)
    b = DequantizeLinear <axis = 0> (bq, bs)
    [second] y = Conv (r, k, b)
}"""
BARE = GRAPH.replace("(r, k, b)", "(r, k)")
INTEGERS = BARE.replace(
    "r = Relu (h)", "p = Relu (h) q = QuantizeLinear (p, rs, rz) r = DequantizeLinear (q, rs, rz)"
)


def network(graph):
    scales = np.linspace(0.001, 0.01, 5).astype(np.float32)
    return build(
        graph,
        k1=random(16, 3, 1, 1, seed=1),
        b1=np.full(16, 2.0, np.float32),
        kq=np.random.default_rng(2).integers(-127, 127, (5, 16, 1, 1)).astype(np.int8),
        ks=scales,
        bq=np.array([900, -1200, 0, 5, 70000], np.int32),
        bs=scales / 100,
        rs=np.float32(0.05),
        rz=np.uint8(0),
    )


@pytest.mark.parametrize("repair", ["none", "least-squares"])
def test_the_mean_of_every_unit_stays_to_a_step_of_its_bias(repair):
    dense = network(GRAPH)
    x = random(64, 3, 4, 4, seed=3)
    made = relief.prune_channels(
        dense, {"x": x}, ratio=0.4, round_to=1, repair=repair, provider="cpu"
    )
    stored = {t.name: numpy_helper.to_array(t) for t in made.model.graph.initializer}
    assert stored["kq"].shape[1] < 16
    assert (stored["kq"].dtype, stored["bq"].dtype) == (np.int8, np.int32)
    wanted, found = (run(m, {"x": x})[0].mean(axis=(0, 2, 3)) for m in (dense, made.model))
    spread = run(dense, {"x": x})[0].std(axis=(0, 2, 3))
    assert np.abs(wanted - found).max() < 0.05 * spread.min()


@pytest.mark.parametrize("graph", [BARE, INTEGERS])
def test_only_a_layer_that_reads_floats_is_given_a_bias_of_floats(graph):
    x = random(64, 3, 4, 4, seed=3)
    made = relief.prune_channels(
        network(graph), {"x": x}, ratio=0.4, round_to=1, repair="none", provider="cpu"
    )
    (second,) = [node for node in made.model.graph.node if "y" in node.output]
    assert len([name for name in second.input if name]) == (3 if graph is BARE else 2)
