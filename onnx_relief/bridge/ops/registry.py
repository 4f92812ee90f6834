"""How a handler is made of a function, and how it replaces onnx2fx's own.

A handler is best a plain function of tensors: the node's inputs come in order (None where one is
left out), its attributes as keywords, whose Python defaults are the defaults of ONNX. `call` makes
a handler of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import onnx
import onnx2fx
import torch.fx
from onnx import helper
from onnx2fx.op_registry import get_handler, get_handler_versions

# onnx2fx passes its GraphBuilder, or inside If, Loop and Scan a SubgraphBuilder that has no name
# outside the function that makes it; both have the same methods.
Builder = Any
Handler = Callable[[Builder, onnx.NodeProto], torch.fx.Node]


class Row(NamedTuple):
    """One line of a family's table.

    Attributes:
        op_type: The operator, of ONNX's own domain unless `domain` says another.
        since: The opset from which on the handler is right.
        handler: Adds what the node computes to the graph that the builder holds.
        domain: The domain of the operator.
    """

    op_type: str
    since: int
    handler: Handler
    domain: str = ""


def register_all(rows: Iterable[Row]) -> None:
    """Register handlers, also in place of the later ones that onnx2fx has for the same operator.

    onnx2fx takes the handler with the highest version that the model's opset reaches. So each of
    ours is put at its own version and at every later one of theirs, up to the next of ours.
    """
    table = list(rows)
    for row in table:
        ours = [other.since for other in table if _operator(other) == _operator(row)]
        end = min((since for since in ours if since > row.since), default=None)
        theirs = get_handler_versions(row.op_type, row.domain)
        later = {v for v in theirs if v > row.since and (end is None or v < end)}
        for version in {row.since, *later}:
            onnx2fx.register_op(row.op_type, row.handler, row.domain, version)


def call(function: Callable[..., Any], **fixed: object) -> Handler:
    """Return the handler that calls `function` with a node's inputs and attributes.

    Args:
        function: Takes tensors or None in the order of the node's inputs, and the attributes as
            keywords. It may return a tuple, of which a node takes as many as it names.
        fixed: Keywords that do not stand in the node, such as what an older opset meant.
    """

    def handler(builder: Builder, node: onnx.NodeProto) -> torch.fx.Node:
        result = builder.call_function(function, inputs(builder, node), attributes(node) | fixed)
        return outputs(builder, node, result)

    return handler


def theirs(op_type: str, opset: int = 23) -> Handler:
    """Return onnx2fx's own handler, for opsets from which on it is right."""
    return cast(Handler, get_handler(op_type, opset_version=opset))


def inputs(builder: Builder, node: onnx.NodeProto) -> list[torch.fx.Node | None]:
    """Return the node's inputs in the builder's graph; None where one is left out."""
    return [builder.get_value(name) if name else None for name in node.input]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes that stand in the node, texts as `str`.

    Left out is `consumed_inputs`, a hint of opset 1 that changes no result.
    """
    named = [a for a in node.attribute if a.name != "consumed_inputs"]
    values = {a.name: helper.get_attribute_value(a) for a in named}
    return {name: _plain(value) for name, value in values.items()}


def outputs(builder: Builder, node: onnx.NodeProto, result: torch.fx.Node) -> torch.fx.Node:
    """Return what the builder expects: the tensor itself where the node has a single output."""
    if len(node.output) > 1:
        return result
    found: torch.fx.Node = builder.call_function(first, (result,))
    return found


def first(result: object) -> object:
    """Return the first of several outputs, or the only one."""
    return result[0] if isinstance(result, tuple) else result


def _operator(row: Row) -> tuple[str, str]:
    return row.domain, row.op_type


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode()
    return [_plain(item) for item in value] if isinstance(value, Sequence) else value
