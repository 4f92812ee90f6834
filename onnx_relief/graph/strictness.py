"""Where `onnx.checker` is stricter than the runtimes that models are made for."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.defs

from onnx_relief.graph.nodes import STANDARD, every_node

_UNCHECKED = "onnx_relief.unchecked"
"""The domain of nodes that the checker is to pass over."""
_FREE = 4
"""The IR version from which on initializers need not be inputs."""


def as_checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without what only the checker refuses: a copy, or the same if it has none.

    Outputs without a shape get one of any rank, and a graph without a name gets one. Initializers
    that are no inputs count as those of IR version 4, where that is allowed: optimisers leave such
    files. Operators that ONNX has taken back are put in a domain that is not checked: runtimes run
    some of them, like GroupNormalization of opset 18.
    """
    graph = proto.graph
    fine = graph.name and not any(map(_lacks_shape, graph.output)) and not _needs_inputs(proto)
    if fine and next(_deprecated(proto), None) is None:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.name = graph.name or "graph"
    copy.ir_version = _FREE if _needs_inputs(proto) else proto.ir_version
    for value in filter(_lacks_shape, copy.graph.output):
        value.type.tensor_type.shape.SetInParent()
    for node in list(_deprecated(copy)):
        node.domain = _UNCHECKED
    for body in (copy, *copy.functions):
        body.opset_import.add(domain=_UNCHECKED, version=1)
    return copy


def _needs_inputs(proto: onnx.ModelProto) -> bool:
    """Whether initializers would have to be inputs and are not."""
    given = {value.name for value in proto.graph.input}
    early = 0 < proto.ir_version < _FREE
    return early and any(tensor.name not in given for tensor in proto.graph.initializer)


def _lacks_shape(value: onnx.ValueInfoProto) -> bool:
    kind = value.type
    return kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape")


def _deprecated(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for imports, body in (
        (proto.opset_import, proto.graph),
        *((function.opset_import, function) for function in proto.functions),
    ):
        versions = {_domain(one.domain): one.version for one in imports}
        for node in every_node(body):
            domain = _domain(node.domain)
            if domain not in versions or not onnx.defs.has(node.op_type, domain):
                continue
            try:
                schema = onnx.defs.get_schema(node.op_type, versions[domain], domain)
            except onnx.defs.SchemaError:  # it came later
                continue
            if schema.deprecated:
                yield node


def _domain(name: str) -> str:
    return "" if name in STANDARD else name
