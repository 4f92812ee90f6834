"""What lies before a tensor: outputs that no input reaches any more, and inputs past no layer."""

from __future__ import annotations

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.light import node_reads
from onnx_relief.graph.nodes import every_node, subgraphs
from onnx_relief.graph.walk import Scope

_MIXING = ("Attention", "Conv", "Einsum", "Gemm", "GRU", "LSTM", "MatMul", "RNN")
"""What the names of operators hold that mix channels, those of runtimes (FusedMatMul) included."""


def cut_off(survey: Survey) -> dict[str, str]:
    """Return outputs that are the same whatever the input, and a layer without weights for each.

    A layer whose weights are all zero lets nothing through. Layers inside bodies are taken to let
    everything through.
    """
    scope = survey.model.scopes[0]
    empty = {
        site.node.output[0]: site.layer.name
        for site in survey.sites
        if site.scope is scope
        and not any(survey.constants.values(part.view).any() for part in site.parts)
    }
    found = {}
    for value in scope.graph.output:
        seen, waiting, silent = {value.name}, [value.name], ""
        for name in waiting:  # the list grows while it is walked
            node = scope.producers.get(name)
            if node is None:
                continue
            if node.output[0] in empty:
                silent = silent or empty[node.output[0]]
                continue
            reads = set(node_reads(node))
            waiting += sorted(reads - seen)
            seen |= reads
        if silent and not any(scope.changes(name) for name in seen & scope.inputs):
            found[value.name] = silent
    return found


def mixes(operator: str) -> bool:
    """Whether an operator mixes channels, by its name."""
    return any(part in operator for part in _MIXING)


def comes_from_layers(scope: Scope, name: str) -> bool:
    """Whether an operator that mixes channels stands before a tensor of the main graph.

    One in a body counts as its node, though it may not be what this tensor comes from.
    """
    waiting, seen = [name], {name}
    for one in waiting:  # the list grows while it is walked
        node = scope.producers.get(one)
        if node is None:
            continue
        inside = (one for _, body in subgraphs(node) for one in every_node(body))
        if any(mixes(one.op_type) for one in (node, *inside)):
            return True
        onward = [read for read in dict.fromkeys(node_reads(node)) if read not in seen]
        waiting += onward
        seen.update(onward)
    return False
