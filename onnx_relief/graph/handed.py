"""What a loop hands to its body in every step: a state that goes on as it came.

Exporters of TensorFlow hand the weights of a recurrent cell to its loop like that. Source: the ONNX
operator specifications of Loop and Scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnx_relief.graph.nodes import STANDARD, attributes


@dataclass(frozen=True)
class Handed:
    """A tensor that a loop hands to its body in every step.

    Attributes:
        outside: Its name in the graph around.
        place: Which input of the loop it is.
        inside: Its names in the body, the body's output first, its input last.
        returned: Which output of the body it is.
        final: What the loop gives it out as in the end; may be empty.
    """

    outside: str
    place: int
    inside: tuple[str, ...]
    returned: int
    final: str


def handed_by(
    node: onnx.NodeProto, body: onnx.GraphProto, producers: Mapping[str, onnx.NodeProto], name: str
) -> Handed | None:
    """Return how an input of a body is the same tensor of the graph around in every step.

    Args:
        node: The Loop or Scan that has the body; of any other node nothing is known.
        body: Its body.
        producers: The node of the body that makes a tensor, by name.
        name: An input of the body.
    """
    if node.domain not in STANDARD:
        return None
    place = [value.name for value in body.input].index(name)
    if node.op_type == "Loop":
        first, last = 2, len(node.input)  # trip count and condition come before the states
    elif node.op_type == "Scan" and len(node.input) == len(body.input):  # from opset 9
        first, last = 0, len(node.input) - attributes(node).get("num_scan_inputs", 0)
    else:
        return None
    returned = place - 1 if node.op_type == "Loop" else place
    if not first <= place < last or returned >= len(body.output):
        return None
    inside = [body.output[returned].name]
    while inside[-1] != name:
        made = producers.get(inside[-1])
        if made is None or made.op_type != "Identity" or made.domain not in STANDARD:
            return None
        inside.append(made.input[0])
    final = node.output[place - first] if place - first < len(node.output) else ""
    if not node.input[place]:
        return None
    return Handed(node.input[place], place, tuple(inside), returned, final)
