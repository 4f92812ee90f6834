"""What the graph puts together from constants before a node reads it.

The newer exporter of PyTorch cuts the gates of an LSTM out of its weights and joins them in another
order; others join the weights of queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_relief.errors import ModelError
from onnx_relief.graph.nodes import STANDARD
from onnx_relief.graph.walk import Scope

Array = NDArray[np.generic]
MOVES: Final = (
    *("Concat", "Split", "Slice", "Gather", "Transpose", "Reshape", "Flatten", "Unsqueeze"),
    *("Squeeze", "Identity"),
)
"""Operators that move numbers and change none."""


def ancestors(scope: Scope, name: str) -> tuple[list[onnx.NodeProto], set[str]]:
    """Return the nodes of a graph that make a constant, in order, and what they start from."""
    wanted, used = {name}, list[onnx.NodeProto]()
    for node in reversed(scope.graph.node):
        if wanted.intersection(node.output) and node.op_type != "Constant":
            used.append(node)
            wanted.update(filter(None, node.input))
    return used[::-1], wanted - {out for node in used for out in node.output}


def only(nodes: Sequence[onnx.NodeProto], operators: Sequence[str]) -> bool:
    """Whether nodes are of these operators alone."""
    return all(node.domain in STANDARD and node.op_type in operators for node in nodes)


def run_nodes(
    nodes: Sequence[onnx.NodeProto], values: Mapping[str, Array], name: str, opset: int
) -> Array:
    """Return what some nodes make of constants under a name.

    Raises:
        ModelError: They cannot be computed.
    """
    graph = helper.make_graph(
        list(nodes),
        "joined",
        [],
        [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)],
        [numpy_helper.from_array(np.asarray(value), leaf) for leaf, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        (made,) = ReferenceEvaluator(model).run(None, {})
    except Exception as error:
        raise ModelError(f"{name!r} cannot be put together ({error})") from error
    return np.asarray(made)


def places_of(
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, tuple[int, ...]],
    operands: Mapping[str, Array],
    name: str,
    opset: int,
) -> NDArray[np.int64] | None:
    """Return for each element of what is put together its number among those of its parts.

    Args:
        nodes: They move elements and change none.
        shapes: Of the parts; elements are counted through all of them, one after the other.
        operands: What else the nodes read, as the bounds of a Slice.
        name: What is put together.
        opset: Version of the operators.

    Returns:
        In the shape of what is put together; None where some elements are used twice or not at all.

    Raises:
        ModelError: The nodes do not fit together.
    """
    numbers, total = dict[str, Array](operands), 0
    for part, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64))
        numbers[part] = np.arange(total, total + size, dtype=np.int64).reshape(shape)
        total += size
    places = run_nodes(nodes, numbers, name, opset).astype(np.int64)
    once = np.array_equal(np.bincount(places.reshape(-1), minlength=total), np.ones(total))
    return places if once else None
