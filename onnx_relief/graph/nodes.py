"""What a node of a graph says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import helper

STANDARD = ("", "ai.onnx")
"""Spellings of the default operator domain."""

RANDOM = (
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Bernoulli", "Multinomial"),
)
"""Operators that draw random numbers; Dropout, which may be trained, is not among them."""


def node_key(node: onnx.NodeProto) -> str:
    """Return what names a node best: its name, or that of its first output."""
    return str(node.name or next((name for name in node.output if name), node.op_type))


def operator(node: onnx.NodeProto) -> str:
    """Return what a node does: the operator's name, after its domain if that is not the default."""
    name = str(node.op_type)
    return name if node.domain in STANDARD else f"{node.domain}.{name}"


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values, strings decoded."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name or attribute.type == onnx.AttributeProto.GRAPH:
            continue
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = (
            value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        )
    return found


def subgraphs(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """Yield the attribute name and graph of every body that `node` carries."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        for index, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}{index}", graph


def every_node(graph: onnx.GraphProto | onnx.FunctionProto) -> list[onnx.NodeProto]:
    """Return the nodes of a graph and of the bodies in it; those of a body before its node."""
    found: list[onnx.NodeProto] = []
    for node in graph.node:
        for _, body in subgraphs(node):
            found += every_node(body)
        found.append(node)
    return found


def random_operators(graph: onnx.GraphProto) -> list[str]:
    """Return the operators in a graph and its bodies that draw random numbers."""
    drawn = [node.op_type for node in every_node(graph) if node.op_type in RANDOM]
    return list(dict.fromkeys(drawn))


def every_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the bodies in it, from outside to inside."""
    yield graph
    for node in graph.node:
        for _, body in subgraphs(node):
            yield from every_graph(body)
