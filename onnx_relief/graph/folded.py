"""Weights that a graph puts together from constants, as one constant each.

The newer exporter of PyTorch cuts the gates of an LSTM out of its weights and joins them in another
order. A channel then runs through all these parts; once they are joined it is a row again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import ModelError
from onnx_relief.graph.builders import BUILDERS
from onnx_relief.graph.document import Document
from onnx_relief.graph.initializers import add_initializer
from onnx_relief.graph.inline import inlined
from onnx_relief.graph.joins import MOVES, ancestors, only, run_nodes
from onnx_relief.graph.nodes import STANDARD
from onnx_relief.graph.orphans import drop_orphans
from onnx_relief.graph.sparse_store import densified
from onnx_relief.graph.views import FLOATS, Constants
from onnx_relief.graph.walk import Scope, understand

Array = NDArray[np.generic]
_JOINS = (
    *MOVES,
    *("Constant", "Neg", "Mul", "Add", "Sub", "Div", "Sqrt", "Pow", "ReduceSum", "ReduceL2"),
)


def ready_to_cut(document: Document) -> Document:
    """Return the document in a form where channels are slices of dense constants that stay.

    Local functions are written out, sparse weights are dense, and joined ones whole.
    """
    return with_whole_weights(inlined(densified(document)))


def with_whole_weights(document: Document) -> Document:
    """Return the document with constants where layers of its main graph read joined parts.

    What can be read as it is stays as it is, and so does what would be larger than its parts. If
    there is nothing to do it is the same document.
    """
    model = understand(document.proto)
    scope, constants = model.scopes[0], Constants(document, joins=False)
    found: dict[str, Array] = {}
    made = {name for node in document.proto.graph.node for name in node.output}
    for node in scope.graph.node:
        if node.op_type in BUILDERS and node.domain in STANDARD:
            for name in node.input:
                # What a local function makes is no tensor of the file's main graph.
                if name in made and name in scope.producers and not scope.changes(name):
                    value = None if name in found else _joined(scope, constants, name, model.opset)
                    if value is not None:
                        found[name] = value
    if not found:
        return document
    folded = document.copy()
    graph = folded.proto.graph
    for name, value in found.items():
        maker = next(node for node in graph.node if name in node.output)
        maker.output[list(maker.output).index(name)] = _unread(scope, name)
        add_initializer(graph, value, name)
    return drop_orphans(_without_unread(folded, document), document)


def _joined(scope: Scope, constants: Constants, name: str, opset: int) -> Array | None:
    """Return the value of a constant that is put together, None if it is to stay."""
    if not isinstance(constants.resolve(scope, name), str):
        return None
    nodes, leaves = ancestors(scope, name)
    values = {leaf: constants.array(scope, leaf) for leaf in leaves}
    given = {value.name for value in scope.graph.input}  # its value there is but a default
    known = {
        leaf: value for leaf, value in values.items() if value is not None and leaf not in given
    }
    if len(known) < len(values) or not only(nodes, _JOINS):
        return None
    try:
        made = run_nodes(nodes, known, name, opset)
    except ModelError:
        return None
    stored = sum(value.size for value in known.values() if value.dtype.name in FLOATS)
    return made if made.dtype.name in FLOATS and made.size <= stored else None


def _unread(scope: Scope, name: str) -> str:
    """Return a name for an output that nothing reads any more."""
    taken = {*scope.producers, *scope.initializers, *scope.inputs}
    number = 1
    while f"{name}_parts{number}" in taken:
        number += 1
    return f"{name}_parts{number}"


def _without_unread(folded: Document, before: Document) -> Document:
    """Drop the nodes whose outputs got names that are new."""
    graph = folded.proto.graph
    old = {out for node in before.proto.graph.node for out in node.output}
    for node in [node for node in graph.node if not old.intersection(node.output)]:
        graph.node.remove(node)
    return folded
