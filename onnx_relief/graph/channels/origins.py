"""Where the entries of a computed shape come from, so that the constants among them can follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.nodes import attributes

_PASSING = ("Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape")


@dataclass(frozen=True)
class Origin:
    """A number on its way into a shape, which a node could read as a constant.

    Attributes:
        constant: Name of the tensor that it is in.
        index: Which of its entries.
        node: Index of the node that reads it.
        input: At which input.
    """

    constant: str
    index: int
    node: int
    input: int


def origins(trace: Trace, name: str) -> list[Origin | None]:
    """Return for every entry of an integer tensor where it could be told, or None."""
    values = trace.values(name)
    nothing: list[Origin | None] = [None] * (0 if values is None else values.size)
    node = trace.whole.producers.get(name)
    if name in trace.frozen:
        return nothing
    if node is None or node.op_type == "Constant":
        return nothing
    place = trace.node_index(node)
    if node.op_type in _PASSING or node.op_type == "Concat":
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        found = [part for at, one in enumerate(sources) for part in _of(trace, one, place, at)]
        if node.op_type == "Concat" and len(node.input) == len(found):
            # A size on its own: as the width of an axis of channels it is always the same.
            found = [
                part or Origin(one, 0, place, at)
                for at, (one, part) in enumerate(zip(node.input, found, strict=True))
            ]
        return found if len(found) == len(nothing) else nothing
    if node.op_type == "Gather" and int(attributes(node).get("axis", 0)) == 0:
        data = _of(trace, node.input[0], place, 0)
        chosen = trace.values(node.input[1])
        if chosen is not None and trace.is_constant(node.input[1]) and data:
            return [data[int(index) % len(data)] for index in np.asarray(chosen).reshape(-1)]
    return nothing


def _of(trace: Trace, name: str, reader: int, at: int) -> list[Origin | None]:
    values = trace.values(name)
    if values is not None and (name in trace.frozen or trace.whole.is_stored(name)):
        return [Origin(name, index, reader, at) for index in range(values.size)]
    return origins(trace, name)


def readers(trace: Trace, origin: Origin) -> set[int] | None:
    """Return the nodes that may read an entry as a size; None where that is not known."""
    found: set[int] = set()
    names = list(trace.whole.nodes[origin.node].output)
    for name in names:  # the list grows while it is walked
        for use in trace.whole.uses.get(name, ()):
            if use.node is None:
                return None
            node = trace.whole.nodes[use.node]
            moves = node.op_type in (*_PASSING, "Concat", "Gather")
            if moves and (use.input == 0 or node.op_type == "Concat"):
                names += [out for out in node.output if out not in names]
            else:
                found.add(use.node)
    return found
