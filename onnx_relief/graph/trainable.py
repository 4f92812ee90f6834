"""Which float constants of a model are weights that training may change.

A file does not say what was a parameter where it came from. What a node multiplies, adds or
normalises data with is one; epsilons, clip bounds, scales of quantisation, running statistics,
position grids and anchors are not.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from onnx_relief.graph.lift import Lifted
from onnx_relief.graph.walk import STANDARD, Scope

# What a node learns, by operator: the inputs that hold it.
_LEARNED: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Einsum": (0, 1, 2, 3),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
    "Gather": (0,),
    "GatherElements": (0,),
}
# Elementwise operators: a vector with one entry per channel is a bias or a scale.
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")
# What a weight may pass through on its way to the node that learns it.
_PASSING = frozenset(
    (
        *("Identity", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"),
        *("Concat", "Slice", "Split", "Expand", "Tile", "Neg", "Mul"),
    )
)


def trainable_names(lifted: Lifted) -> tuple[str, ...]:
    """Return the names of the lifted initializers that are weights, in the order of the file."""
    main = lifted.model.scopes[0]
    widths = _channel_counts(lifted)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in lifted.proto.graph.initializer}
    return tuple(
        name
        for name in lifted.names
        if _is_learned(main, name, lambda shape: _is_vector_of(shape, widths), sizes[name])
    )


def _is_learned(
    scope: Scope, name: str, is_vector: Callable[[tuple[int, ...]], bool], shape: tuple[int, ...]
) -> bool:
    for use in scope.uses.get(name, ()):
        node = use.node
        if node is None or node.domain not in (*STANDARD, "com.microsoft"):
            continue
        if use.index in _LEARNED.get(node.op_type, ()):
            return True
        moves = any(use.scope.changes(other) for other in node.input)
        if moves and node.op_type in _ELEMENTWISE and is_vector(shape):
            return True
        if moves or node.op_type not in _PASSING:
            continue
        if any(_is_learned(use.scope, out, is_vector, shape) for out in node.output if out):
            return True
    return False


def _is_vector_of(shape: tuple[int, ...], widths: set[int]) -> bool:
    long = [size for size in shape if size != 1]
    return len(long) == 1 and long[0] in widths


def _channel_counts(lifted: Lifted) -> set[int]:
    """Return how wide the tensors between layers are, as their weights tell."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in lifted.proto.graph.initializer}
    found: set[int] = set()
    for scope in lifted.model.scopes:
        for node in scope.graph.node:
            found |= _widths_of(node, [sizes.get(name) for name in node.input])
    return found


def _widths_of(node: onnx.NodeProto, shapes: list[tuple[int, ...] | None]) -> set[int]:
    weights = [shapes[i] for i in _LEARNED.get(node.op_type, ()) if i < len(shapes)]
    if node.op_type in ("Conv", "Gemm", "ConvTranspose", "MatMul", "LSTM", "GRU", "RNN"):
        return {size for shape in weights if shape is not None for size in shape}
    return set()
