"""Layers whose input cannot be observed are said to be, with the reason; the rest is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser
from scored import measured, model_of

from onnx_relief.data.batch import Batch
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.measure import measure
from onnx_relief.settings import Settings

RNG = np.random.default_rng(13)


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


V, W = numbers(3, 2), numbers(2, 3)


def test_a_layer_in_a_body_that_cannot_pass_statistics_out_is_said() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["pair"]),
        helper.make_node(
            "SequenceMap",
            ["pair"],
            ["mapped"],
            body=helper.make_graph(
                [helper.make_node("MatMul", ["one", "v"], ["out"], name="hidden")],
                "body",
                [helper.make_tensor_value_info("one", 1, ["N", 3])],
                [helper.make_tensor_value_info("out", 1, ["N", 2])],
            ),
        ),
        helper.make_node("ConcatFromSequence", ["mapped"], ["y"], axis=0),
        helper.make_node("MatMul", ["y", "w"], ["z"], name="seen"),
    ]
    x = numbers(4, 3)
    model = model_of(
        nodes, {"v": V, "w": W}, {"x": x}, [helper.make_tensor_value_info("z", 1, ["N", 3])]
    )
    found = measured(model, {"x": x})
    assert list(found.activities) == ["seen"]
    assert found.unobserved == {"mapped.body/hidden": "it sits in the body of a SequenceMap"}


def test_a_layer_that_the_operator_set_cannot_observe_is_said() -> None:
    feed = {"X": numbers(5, 2, 3), "lengths": np.array([5, 2], np.int32)}
    nodes = [
        helper.make_node(
            "RNN", ["X", "W", "R", "", "lengths"], ["", "last"], name="recurrent", hidden_size=2
        ),
        helper.make_node("MatMul", ["X", "w"], ["y"], name="seen"),
    ]
    constants = {"W": numbers(1, 2, 3), "R": numbers(1, 2, 2), "w": numbers(3, 2)}
    found = measured(model_of(nodes, constants, feed, ["last", "y"], opset=8), feed)
    assert list(found.activities) == ["seen"]
    assert "operator set 8 cannot" in found.unobserved["recurrent"]
    with pytest.raises(UnsupportedError, match=r"no layer can be observed.*'recurrent': .*13 or"):
        measured(model_of(nodes[:1], constants, feed, ["last"], opset=8), feed)


def test_a_layer_in_a_body_is_measured_but_not_dumped(tmp_path: Path) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N, 3] x, bool turn) => (float[N, 3] z) {
            y = If (turn) <
                then_branch = graph () => (float[N, 2] a) { a = MatMul (x, v) },
                else_branch = graph () => (float[N, 2] b) { b = MatMul (x, v) }
            >
            z = MatMul (y, w)
        }
    """)
    model.graph.initializer.extend(
        [numpy_helper.from_array(V, "v"), numpy_helper.from_array(W, "w")]
    )
    survey = find_layers(load(model))
    feed = {"x": numbers(4, 3), "turn": np.array(True)}
    batch = Batch(feed=feed, labels=None, count=4)
    found = measure(survey, survey.sites, [batch], Settings(), dump=tmp_path)
    assert sorted(found.activities) == ["y.then_branch/a", "z"]
    assert [folder.name for folder in tmp_path.iterdir()] == ["z"]
