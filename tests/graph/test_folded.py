"""Weights that are joined from parts become one constant; everything else stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import assert_outputs_agree, build, random

from onnx_relief.graph.document import check, load
from onnx_relief.graph.folded import with_whole_weights
from onnx_relief.graph.layers import find_layers


def joined(**more):
    return build(
        """(float[N,4] x) => (float[N,6] y) {
            a, b = Split <axis = 1, num_outputs = 2> (w)  w2 = Concat <axis = 1> (b, a)
            y = MatMul (x, w2)
        }""",
        w=random(4, 6),
        **more,
    )


def test_a_joined_weight_makes_a_layer_and_the_same_outputs():
    before = load(joined())
    after = with_whole_weights(before)
    check(after)
    assert [node.op_type for node in after.proto.graph.node] == ["MatMul"]
    assert [tensor.name for tensor in after.proto.graph.initializer] == ["w2"]
    assert len(find_layers(after).layers) == 1
    feed = {"x": random(3, 4, seed=1)}
    assert_outputs_agree(before.proto, after.proto, feed, rtol=0, atol=0)


@pytest.mark.parametrize(
    "graph",
    [
        "(float[N,4] x) => (float[N,6] y) { t = Transpose (w)  y = MatMul (x, t) }",
        # Larger than its parts.
        "(float[N,4] x) => (float[N,12] y) {"
        "  t = Transpose (w)  u = Concat <axis = 1> (t, t)  y = MatMul (x, u) }",
        # It depends on the data.
        "(float[N,4] x) => (float[N,N] y) { t = Concat <axis = 0> (x)  u = Transpose (t)"
        "  y = MatMul (x, u) }",
        # Nothing but layers wants whole constants.
        "(float[N,6] x) => (float[N,6] y) { a = Slice (w, zero, one)  y = Add (x, a) }",
    ],
)
def test_what_need_not_be_joined_stays(graph):
    document = load(build(graph, w=random(6, 4), zero=np.array([0]), one=np.array([1])))
    assert with_whole_weights(document) is document


def test_parts_that_are_read_elsewhere_stay():
    document = load(
        build(
            """(float[N,4] x) => (float[N,6] y, float[4,3] a) {
                a, b = Split <axis = 1, num_outputs = 2> (w)  w2 = Concat <axis = 1> (b, a)
                y = MatMul (x, w2)
            }""",
            w=random(4, 6),
        )
    )
    after = with_whole_weights(document)
    check(after)
    feed = {"x": random(3, 4, seed=1)}
    assert_outputs_agree(document.proto, after.proto, feed, rtol=0, atol=0)


def test_the_weight_of_every_kind_of_layer_is_joined():
    graph = """(float[N,4] x) => (float[N,6] y) {
        a, b = Split <axis = 1, num_outputs = 2> (w)  w2 = Concat <axis = 1> (b, a)
        y = Einsum <equation = "bi,io->bo"> (x, w2)
    }"""
    after = with_whole_weights(load(build(graph, w=random(4, 6))))
    assert [node.op_type for node in after.proto.graph.node] == ["Einsum"]
    assert len(find_layers(after).layers) == 1


def test_an_input_with_a_default_is_no_constant():
    model = build(
        """(float[N,4] x, float[1,6] g) => (float[N,6] y) { v = Mul (w, g)  y = MatMul (x, v) }""",
        w=random(4, 6),
        g=random(1, 6, seed=1),
    )
    document = load(model)
    assert with_whole_weights(document) is document


def test_what_a_local_function_joins_is_left_to_it():
    model = build(
        """(float[N,4] x) => (float[N,6] y) { y = my.changed (x, w, up, down) }""",
        functions="""<domain: "my", opset_import: ["" : 21]> changed (x, w, a, b) => (o)
        { c = MatMul (a, b)  v = Add (w, c)  o = MatMul (x, v) }""",
        w=random(4, 6),
        up=random(4, 2, seed=1),
        down=random(2, 6, seed=2),
    )
    document = load(model)
    assert with_whole_weights(document) is document
