"""Give a bias to a layer that has none."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.document import Document
from onnx_relief.graph.initializers import add_initializer
from onnx_relief.graph.nodes import attributes, subgraphs
from onnx_relief.graph.sites import Site

TAKES_BIAS = ("Conv", "ConvTranspose", "Gemm")
"""Layers whose third input is a bias; products of the others are followed by an Add."""


def with_bias(document: Document, site: Site, values: NDArray[np.float64]) -> Document:
    """Return a copy of the document in which a Conv, ConvTranspose or Gemm has a bias.

    Args:
        document: The model; it is not changed.
        site: A layer of its main graph without a bias.
        values: One number for each unit.
    """
    document = document.copy()
    graph = document.proto.graph
    node = next(node for node in graph.node if node.output[:1] == site.node.output[:1])
    add_bias(graph, node, values.astype(site.parts[0].view.dtype))
    return document


def beta_of(site: Site) -> float:
    """Return what a layer multiplies a bias in its node with."""
    return float(attributes(site.node).get("beta", 1.0)) if site.layer.op == "Gemm" else 1.0


def add_bias(graph: onnx.GraphProto, node: onnx.NodeProto, values: NDArray[np.generic]) -> str:
    """Let a node of the graph read a new initializer as its third input, and return its name."""
    name = fresh_name(graph, f"{node.output[0]}_bias")
    add_initializer(graph, values, name)
    while len(node.input) < 3:
        node.input.append("")
    node.input[2] = name
    return name


def fresh_name(graph: onnx.GraphProto, wanted: str) -> str:
    """Return a name that nothing in the graph or in a body of it has yet."""
    taken = _names(graph)
    while wanted in taken:
        wanted += "_"
    return wanted


def _names(graph: onnx.GraphProto) -> set[str]:
    taken = {tensor.name for tensor in graph.initializer}
    taken |= {value.name for value in graph.input}
    for node in graph.node:
        taken |= {*node.input, *node.output}
        for _, body in subgraphs(node):
            taken |= _names(body)
    return taken
