"""Zeros in MNN: the graph is simplified first, and gives what it gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from test_deploy_verify import QUICK
from text_models import build, random, run

from onnx_relief.deploy.adapters import Task, simplified
from onnx_relief.deploy.runtimes import RUNTIMES
from onnx_relief.deploy.verify import TOLERANCE, verify
from onnx_relief.graph.document import load
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.plan import LayerPlan, PrunePlan

MINILM = Path(__file__).parents[2] / "corpus" / "minilm-l3.onnx"
SHAPES = """(int64[batch, words] ids) => (float[batch, words, heads, width] y) {
    table = Identity (t)
    e = Gather (table, ids)
    h = MatMul (e, w)
    s = Shape (h)
    zero = Constant <value = int64[1] {0}> ()
    two = Constant <value = int64[1] {2}> ()
    lead = Slice (s, zero, two)
    split = Constant <value = int64[2] {4, 6}> ()
    target = Concat <axis = 0> (lead, split)
    y = Reshape (h, target)
}"""


@pytest.fixture(name="sparse")
def installed():
    tried = next(one for one in RUNTIMES if one.name == "mnn-sparse")
    if not tried.installed:
        pytest.skip(f"MNN is not installed: {tried.remedy}")
    return tried


def test_simplifying_leaves_standard_operators_and_no_computed_shapes(tmp_path):
    model = build(SHAPES, opset=17, ir=8, t=random(30, 8), w=random(8, 24))
    onnx.save(model, tmp_path / "model.onnx")
    feed = {"ids": np.arange(14).reshape(2, 7)}
    path = simplified(Task(model=tmp_path / "model.onnx", feed=feed, outputs=("y",), threads=1))
    found = onnx.load(path)
    kinds = {node.op_type for node in found.graph.node}
    assert "Reshape" in kinds
    assert not kinds & {"Shape", "Slice", "Concat", "Constant", "Identity"}
    assert {node.domain for node in found.graph.node} <= {"", "ai.onnx"}
    np.testing.assert_array_equal(run(found, feed)[0], run(model, feed)[0])


def test_zeros_do_not_change_what_mnn_gives(sparse):
    weight = random(8, 24) * (random(8, 24, seed=3) > 1.3)
    model = build(SHAPES, opset=17, ir=8, t=random(30, 8), w=weight)
    feed = {"ids": np.arange(14).reshape(2, 7)}
    row = verify(load(model), feed, [sparse], effort=QUICK)[1]
    assert row.error is None
    assert row.difference <= 1e-4


@pytest.mark.corpus
def test_a_transformer_of_zeros_agrees(sparse):
    if not MINILM.exists():
        pytest.skip("no corpus/ folder; tools/fetch_corpus.py makes it")
    rng = np.random.default_rng(0)
    mask_of_words = np.ones((2, 16), np.int64)
    mask_of_words[1, 9:] = 0
    feed = {"input_ids": rng.integers(1000, 20000, (2, 16)), "attention_mask": mask_of_words}
    row = verify(_mostly_zero(load(MINILM), 0.9), feed, [sparse], effort=QUICK)[1]
    assert row.error is None
    assert row.difference <= TOLERANCE / 10


def _mostly_zero(document, share):
    """Return the model without the smallest weights of every layer."""
    survey = find_layers(document)
    plans = []
    for site in survey.sites:
        rows = [np.abs(survey.rows(part)) for part in site.parts]
        units, bias = site.layer.units, site.layer.bias
        plans.append(
            LayerPlan(
                layer=site.layer.name,
                alpha=1.0,
                keep=tuple(row >= np.quantile(row, share) for row in rows),
                keep_bias=np.ones((units, bias.count if bias else 0), dtype=bool),
                removed=np.zeros(units, dtype=bool),
            )
        )
    return mask(survey, PrunePlan(layers=tuple(plans)), follow_units(survey))
