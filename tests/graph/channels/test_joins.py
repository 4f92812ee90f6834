"""Residual branches that bring nothing are left out of the sum, with all that made them."""

from __future__ import annotations

import numpy as np
import pytest
from structures import PADS, kernels, norm
from test_steady import assert_equal, feed
from text_models import build, initializer, random

from onnx_relief.compaction.compact import compact
from onnx_relief.graph.document import load


def block(*, last, offset=None, tail="y = MatMul (q, w)", outputs="float[N,5] y", op="Add"):
    """Return a residual block whose branch ends in the kernels `last`."""
    scale, _, mean, variance = norm(6)
    offset = np.zeros(6, np.float32) if offset is None else offset
    mean = np.zeros(6, np.float32) if not offset.any() else mean
    return build(
        f"""(float[N,3,8,8] x) => ({outputs}) {{
            a = Conv {PADS} (x, k0)  r = Relu (a)  b = Conv {PADS} (r, k1)  c = Relu (b)
            d = Conv {PADS} (c, k2)  n = BatchNormalization (d, s, o, m, v)  e = {op} (n, r)
            t = Relu (e)  p = GlobalAveragePool (t)  q = Flatten (p)  {tail}
        }}""",
        k0=kernels(6, 3),
        k1=kernels(4, 6, seed=1),
        k2=last,
        s=scale,
        o=offset,
        m=mean,
        v=variance,
        w=random(6, 5),
    )


def compacted(model):
    found = compact(load(model), feed(2, 3, 8, 8), provider="cpu", round_to=1)
    assert_equal(model, found.document.proto, feed(3, 3, 8, 8))
    return found


def operators(found):
    return [node.op_type for node in found.document.proto.graph.node]


@pytest.mark.parametrize("op", ["Add", "Sum"])
def test_a_branch_of_zeros_goes_altogether(op):
    found = compacted(block(last=np.zeros((6, 4, 3, 3), np.float32), op=op))
    assert operators(found) == [
        *("Conv", "Relu", "Identity", "Relu", "GlobalAveragePool", "Flatten", "MatMul")
    ]
    assert found.joins == 1
    assert {t.name for t in found.document.proto.graph.initializer} == {"k0", "w"}


def test_a_branch_of_constants_becomes_one():
    found = compacted(block(last=np.zeros((6, 4, 3, 3), np.float32), offset=random(6)))
    assert operators(found)[:3] == ["Conv", "Relu", "Add"]
    scale, _, mean, variance = norm(6)
    expected = random(6) - scale * mean / np.sqrt(variance + 1e-5)
    constant = initializer(found.document.proto, "n_constant")
    np.testing.assert_allclose(constant, expected.reshape(6, 1, 1), rtol=1e-6)
    again = compact(found.document, feed(2, 3, 8, 8), provider="cpu", round_to=1)
    assert again.document.proto.SerializeToString() == found.document.proto.SerializeToString()


def test_a_branch_with_one_live_unit_stays():
    last = np.zeros((6, 4, 3, 3), np.float32)
    last[2] = 1
    found = compacted(block(last=last))
    assert found.joins == 0
    assert operators(found).count("Conv") == 3


def test_a_constant_branch_that_something_else_reads_stays():
    model = block(
        last=np.zeros((6, 4, 3, 3), np.float32),
        offset=random(6),
        tail="u = Neg (n)  y = MatMul (q, w)",
        outputs="float[N,5] y, float[N,6,8,8] u",
    )
    assert compacted(model).joins == 0


def test_a_branch_that_may_spread_the_other_over_the_batch_stays():
    """One state for all samples: without the branch the sum would have another shape."""
    model = build(
        """(float[N,6] x, float[M,4] state) => (float[K,4] y) {
            h = MatMul (x, w0)  g = MatMul (state, w1)  e = Add (h, g)  y = Relu (e)
        }""",
        w0=np.zeros((6, 4), np.float32),
        w1=random(4, 4),
    )
    inputs = {"x": random(1, 6), "state": random(1, 4)}
    found = compact(load(model), inputs, provider="cpu", round_to=1)
    assert found.joins == 0
    assert_equal(model, found.document.proto, {**inputs, "x": random(3, 6)})
