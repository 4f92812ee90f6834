"""How the outputs of a model are made: what their numbers are can be told by the last operator."""

from __future__ import annotations

import onnx

_SIGMOIDS = {"Sigmoid", "HardSigmoid"}
_MOVING = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
"""Operators that change no number, and whose first input alone holds numbers."""


def sigmoid_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the outputs whose numbers are sigmoids, each for itself.

    So they are shares that need not add up to 1: of several labels any number may hold.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    return frozenset(value.name for value in model.graph.output if _is_sigmoid(value.name, made_by))


def _is_sigmoid(name: str, made_by: dict[str, onnx.NodeProto]) -> bool:
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        node = made_by.get(name)
        if node is None or node.domain not in ("", "ai.onnx"):
            return False
        if name in seen or node.op_type in _SIGMOIDS:
            continue
        seen.add(name)
        if node.op_type == "Concat":
            waiting += node.input
        elif node.op_type in _MOVING:
            waiting.append(node.input[0])
        else:
            return False
    return True
