"""Units that pass a gate (HardSwish written out, squeeze-and-excite) go without a trace."""

from __future__ import annotations

import numpy as np
from text_models import assert_outputs_agree, build, random

from onnx_relief.data import open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.pipeline import prune
from onnx_relief.settings import Settings

GRAPH = """(float[N,2,6,6] x) => (float[N,3,6,6] y) {
    [first] c = Conv <pads = [1,1,1,1]> (x, w, b)
    r = Relu(c)  a = HardSigmoid(r)  h = Mul(r, a)
    p = GlobalAveragePool(h)  [gate] q = Conv(p, g)  s = Sigmoid(q)
    e = Mul(h, s)
    [last] y = Conv(e, v)
}"""


def test_dead_units_behind_gates_go_and_change_nothing():
    bias = np.where(np.arange(8) < 3, -1000, 0).astype(np.float32)
    model = build(GRAPH, w=random(8, 2, 3, 3), b=bias, g=random(8, 8, 1, 1), v=random(3, 8, 1, 1))
    x = np.random.default_rng(0).random((20, 2, 6, 6), dtype=np.float32)
    document = load(model)
    pruned = prune(document, open_data(x, input_specs(model)), Settings(alpha=1 - 1e-12))
    assert pruned.plan.for_layer("first").removed.tolist() == [True] * 3 + [False] * 5
    assert not pruned.plan.for_layer("gate").keep[0][:, :3].any()
    assert not pruned.plan.for_layer("last").keep[0][:, :3].any()
    assert_outputs_agree(model, pruned.document.proto, {"x": x}, rtol=1e-5, atol=1e-6)
