"""Which handler onnx2fx takes for an operator at an opset, and how a handler reads a node."""

from __future__ import annotations

import pytest
import torch
from bridged import module_of
from onnx2fx.op_registry import get_handler, register_op, registry_context
from text_models import build

from onnx_relief.bridge.ops import FAMILIES, register_handlers
from onnx_relief.bridge.ops.registry import Row, call, register_all


@pytest.fixture(autouse=True)
def _own_registry():
    register_handlers()  # once for all tests, so not inside
    with registry_context():
        yield


def ours(since):
    return Row("Some", since, lambda _builder, _node: since)


def theirs(since):
    register_op("Some", lambda _builder, _node: -since, since_version=since)


def reigning(*opsets):
    return [get_handler("Some", "", opset)(None, None) for opset in opsets]


def test_handler_replaces_later_ones_of_the_library():
    theirs(1)
    theirs(13)
    register_all([ours(1)])
    assert reigning(1, 12, 13, 20) == [1, 1, 1, 1]


def test_handler_leaves_earlier_ones_of_the_library():
    theirs(1)
    theirs(13)
    register_all([ours(11)])
    assert reigning(10, 11, 13) == [-1, 11, 11]


@pytest.mark.parametrize("order", [(1, 11), (11, 1)])
def test_each_of_our_handlers_reigns_up_to_the_next(order):
    theirs(7)
    theirs(13)
    register_all(ours(since) for since in order)
    assert reigning(1, 7, 10, 11, 13) == [1, 1, 1, 11, 11]


def test_no_operator_has_two_handlers_of_ours_at_one_version():
    keys = [(row.domain, row.op_type, row.since) for rows in FAMILIES for row in rows]
    assert len(keys) == len(set(keys))


def test_function_gets_inputs_in_order_and_attributes_by_name():
    def some(x, missing, y, *, text, numbers, default=5):
        assert missing is None
        assert (text, numbers, default) == ("a", [1, 2], 5)
        return x - y

    register_all([Row("Some", 1, call(some), "my")])
    model = build(
        '(float[2] a, float[2] b) => (float[2] y) { y = my.Some<text="a", numbers=[1,2]>(a, , b) }'
    )
    assert module_of(model)(torch.ones(2), torch.ones(2)).tolist() == [0, 0]


@pytest.mark.parametrize("outputs", ["y", "y, z"])
def test_function_may_return_more_than_the_node_names(outputs):
    register_all([Row("Some", 1, call(lambda x: (x, 2 * x, 3 * x)), "my")])
    types = ", ".join(f"float[1] {name}" for name in outputs.split(", "))
    model = build(f"(float[1] x) => ({types}) {{ {outputs} = my.Some(x) }}")
    found = module_of(model)(torch.ones(1))
    assert len(found) == len(outputs.split(", "))
    assert [float(y) for y in found] == [1, 2][: len(found)]
