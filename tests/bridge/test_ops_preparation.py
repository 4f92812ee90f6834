"""How pipelines prepare what a network takes, against ONNX Runtime; names are left out."""

from __future__ import annotations

import numpy as np
import pytest
from bridged import assert_agree, node_model
from text_models import build, differences, random

import onnx_relief
from onnx_relief.bridge.ops.preparation import DOMAIN

ROWS = random(5, 3)
NONE_IN_ONE = ROWS * np.array([[1], [1], [0], [1], [1]], np.float32)


@pytest.mark.parametrize("rows", [ROWS, ROWS[0], (10 * ROWS).astype(np.int64)])
@pytest.mark.parametrize(
    "said",
    [{"offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, 4.0]}, {"offset": [1.0], "scale": [3.0]}],
)
def test_scaler(rows, said):
    assert_agree(node_model("Scaler", [rows], ["y"], domain=DOMAIN, opset=3, **said), [rows])


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(norm):
    model = node_model("Normalizer", [NONE_IN_ONE], ["y"], domain=DOMAIN, opset=3, norm=norm)
    assert_agree(model, [NONE_IN_ONE])


@pytest.mark.parametrize("repair", ["none", "reconstruct"])
def test_a_classifier_that_gives_names_alone_is_pruned_and_trained(repair):
    text = """(float[N,4] x) => (string[N] y) {
        h = MatMul (x, w)  r = Relu (h)  s = MatMul (r, v)
        i = ArgMax <axis = 1, keepdims = 0> (s)  y = Gather (names, i)
    }"""
    names = np.array(["cat", "dog", "eel"], dtype=object)
    model = build(text, w=random(4, 9), v=random(9, 3, seed=1), names=names)
    found = onnx_relief.prune(
        model, random(60, 4), sparsity=0.5, criterion="wanda", repair=repair, repair_epochs=3
    )
    assert found.report.evaluation.metric == "agreement"
    assert differences(found.model, model)
    if repair == "reconstruct":
        assert not any("cannot be trained" in note for note in found.report.repair.notes)
        assert found.report.repair.after < found.report.repair.before
