"""Which layers give the outputs of a model: a unit without weights there is an output without any.

A layer gives an output where its units come to it past no other layer. Where they are added to what
no pruning can cut off, as data, embeddings or units of a layer that gives, an output is left of
which they are a part.
"""

from __future__ import annotations

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.light import node_reads
from onnx_relief.graph.nodes import STANDARD, subgraphs
from onnx_relief.graph.sites import Site
from onnx_relief.graph.walk import Model, Place, Scope, Use

_SIZES = ("Shape", "Size")
"""Operators that look at no value."""
_JOINS = ("Add", "Sub", "Sum")


def giving_outputs(survey: Survey) -> frozenset[str]:
    """Return the names of the layers whose units are outputs of the model.

    Of layers that are added up, the first one gives: the others may lose units then.
    """
    layers = {(site.scope.path, site.node.output[0]): site for site in survey.sites}
    silent = _silent(survey.model)
    giving: dict[Place, str] = {}
    solid = _solid(survey.model, layers, giving, silent)
    for place, site in layers.items():
        if _gives(site, layers, solid):
            giving[place] = site.layer.name
            solid = _solid(survey.model, layers, giving, silent)
    return frozenset(giving.values())


def _gives(site: Site, layers: dict[Place, Site], solid: set[Place]) -> bool:
    """Whether what becomes of a layer's units up to the next layers is an output.

    Args:
        site: The layer.
        layers: By what their nodes give.
        solid: Tensors of which no entry can be cut off.
    """
    made = [(site.scope, name) for name in dict.fromkeys((*site.node.output, site.output)) if name]
    own = set(_places(made))
    for scope, name in made:  # the list grows while it is walked
        for use in scope.uses.get(name, []):
            if use.node is None and use.scope.owner is None:
                return True
            if _ends(use, layers) or _is_joined(use, own, solid):
                continue
            onward = [one for one in _onward(use) if (one[0].path, one[1]) not in own]
            made += onward
            own |= set(_places(onward))
    return False


def _places(tensors: list[tuple[Scope, str]]) -> list[Place]:
    return [(scope.path, name) for scope, name in tensors]


def _onward(use: Use) -> list[tuple[Scope, str]]:
    """Return what is made of a tensor where it is used: of a body's output what the body gives."""
    node, scope = (use.node, use.scope) if use.node else (use.scope.owner, use.scope.parent)
    if node is None or scope is None:
        return []
    return [(scope, name) for name in node.output if name]


def _ends(use: Use, layers: dict[Place, Site]) -> bool:
    """Whether units are no longer themselves behind a use."""
    node = use.node
    if node is None:
        return False
    reader = layers.get((use.scope.path, node.output[0]))
    if reader is not None:
        return use.index == reader.data_input
    return node.op_type in _SIZES and node.domain in STANDARD


def _is_joined(use: Use, own: set[Place], solid: set[Place]) -> bool:
    """Whether a use adds to units what comes another way and stays.

    A join of two of their own ways is met again by the second one.
    """
    node = use.node
    if node is None or node.op_type not in _JOINS or node.domain not in STANDARD:
        return False
    places = {_place(use.scope, name) for name in node.input}
    return not solid.isdisjoint(places - own)


def _place(scope: Scope, name: str) -> Place:
    """Return where a tensor is defined that is seen from a graph."""
    definer = scope.definer(name)
    return (scope if definer is None else definer).path, name


def _solid(
    model: Model, layers: dict[Place, Site], giving: dict[Place, str], silent: set[Place]
) -> set[Place]:
    """Return the tensors that change with the data and of which no entry can be cut off.

    What comes into or out of a body counts as what can be.
    """
    main = model.scopes[0]
    solid = {(main.path, name) for name in main.inputs if _changes(main, name, silent)}
    for scope in model.scopes:
        for node in scope.graph.node:
            place = (scope.path, node.output[0])
            reads = [name for name in node.input if _changes(scope, name, silent)]
            stay = [_place(scope, name) in solid for name in reads]
            joins = node.op_type in _JOINS and node.domain in STANDARD
            if place in layers:
                found = place in giving
            else:
                found = any(stay) if joins else all(stay) and bool(stay)
            if found and not any(subgraphs(node)):
                solid |= {(scope.path, name) for name in node.output}
    return solid


def _silent(model: Model) -> set[Place]:
    """Return the tensors that change with the number of the data alone, not with its values."""
    silent: set[Place] = set()
    for scope in model.scopes:
        for node in scope.graph.node:
            told = any(_changes(scope, name, silent) for name in node_reads(node)) or not node.input
            if node.op_type in _SIZES or not told:
                silent |= {(scope.path, name) for name in node.output}
    return silent


def _changes(scope: Scope, name: str, silent: set[Place]) -> bool:
    """Whether a tensor changes with the values of the data."""
    return bool(name) and scope.changes(name) and _place(scope, name) not in silent
