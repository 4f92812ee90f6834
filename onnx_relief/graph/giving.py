"""Which layers give the outputs of a model: a unit without weights there is an output without any.

A layer gives an output where its units come to it past no other layer. Where they are added to what
comes another way, an output is left of which they are a part.
"""

from __future__ import annotations

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.nodes import STANDARD
from onnx_relief.graph.sites import Site
from onnx_relief.graph.walk import Place, Scope, Use

_SIZES = ("Shape", "Size")
"""Operators that look at no value."""
_JOINS = ("Add", "Sub", "Sum")


def giving_outputs(survey: Survey) -> frozenset[str]:
    """Return the names of the layers whose units are outputs of the model."""
    layers = {(site.scope.path, site.node.output[0]): site for site in survey.sites}
    return frozenset(site.layer.name for site in survey.sites if _gives(site, layers))


def _gives(site: Site, layers: dict[Place, Site]) -> bool:
    made = [(site.scope, name) for name in dict.fromkeys((*site.node.output, site.output)) if name]
    everything = set(_places(_from(made, layers, set())[0]))
    return _from(made, layers, everything)[1]


def _from(
    made: list[tuple[Scope, str]], layers: dict[Place, Site], own: set[Place]
) -> tuple[list[tuple[Scope, str]], bool]:
    """Return what becomes of some tensors up to the next layers, and whether that is an output.

    Args:
        made: The tensors, and where they are.
        layers: By what their nodes give.
        own: What becomes of them, to tell it from what comes another way; empty where joins are
            passed, too.
    """
    found, seen, given = list(made), set(_places(made)), False
    for scope, name in found:  # the list grows while it is walked
        for use in scope.uses.get(name, []):
            if use.node is None and use.scope.owner is None:
                given = True
            elif not _ends(use, layers, own):
                onward = _onward(use)
                found += [one for one in onward if (one[0].path, one[1]) not in seen]
                seen |= set(_places(onward))
    return found, given


def _places(tensors: list[tuple[Scope, str]]) -> list[Place]:
    return [(scope.path, name) for scope, name in tensors]


def _onward(use: Use) -> list[tuple[Scope, str]]:
    """Return what is made of a tensor where it is used: of a body's output what the body gives."""
    node, scope = (use.node, use.scope) if use.node else (use.scope.owner, use.scope.parent)
    if node is None or scope is None:
        return []
    return [(scope, name) for name in node.output if name]


def _ends(use: Use, layers: dict[Place, Site], own: set[Place]) -> bool:
    """Whether units are no longer themselves behind a use."""
    node = use.node
    if node is None:
        return False
    reader = layers.get((use.scope.path, node.output[0]))
    if reader is not None:
        return use.index == reader.data_input
    if node.domain not in STANDARD:
        return False
    joins = node.op_type in _JOINS and bool(own)
    return node.op_type in _SIZES or (
        joins
        and any(
            (use.scope.path, name) not in own and _says_something(use.scope, name, set())
            for name in node.input
        )
    )


def _says_something(scope: Scope, name: str, seen: set[Place]) -> bool:
    """Whether a tensor changes with the values of the data, and not with their number alone."""
    definer = scope.definer(name) if name else None
    if definer is None or (definer.path, name) in seen or name not in definer.moving:
        return False
    seen.add((definer.path, name))
    node = definer.producers.get(name)
    if node is None:
        return True  # an input of the model or of a body
    if node.op_type in _SIZES:
        return False
    return not node.input or any(_says_something(definer, one, seen) for one in node.input)
