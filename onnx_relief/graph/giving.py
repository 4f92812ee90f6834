"""Which layers give the outputs of a model: a unit without weights there is an output without any.

A layer gives an output where its units come to it past no other layer. Where they are added to what
comes another way, an output is left of which they are a part.
"""

from __future__ import annotations

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.nodes import STANDARD
from onnx_relief.graph.sites import Site
from onnx_relief.graph.walk import Model, Place, Scope, Use

_SIZES = ("Shape", "Size")
"""Operators that look at no value."""
_JOINS = ("Add", "Sub", "Sum")


def giving_outputs(survey: Survey) -> frozenset[str]:
    """Return the names of the layers whose units are outputs of the model."""
    layers = {(site.scope.path, site.node.output[0]): site for site in survey.sites}
    silent = _silent(survey.model)
    return frozenset(site.layer.name for site in survey.sites if _gives(site, layers, silent))


def _gives(site: Site, layers: dict[Place, Site], silent: set[Place]) -> bool:
    """Whether what becomes of a layer's units up to the next layers is an output.

    Args:
        site: The layer.
        layers: By what their nodes give.
        silent: Tensors that tell nothing of the data's values.
    """
    made = [(site.scope, name) for name in dict.fromkeys((*site.node.output, site.output)) if name]
    own = set(_places(made))
    for scope, name in made:  # the list grows while it is walked
        for use in scope.uses.get(name, []):
            if use.node is None and use.scope.owner is None:
                return True
            if _ends(use, layers) or _is_joined(use, own, silent):
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


def _is_joined(use: Use, own: set[Place], silent: set[Place]) -> bool:
    """Whether a use adds to units what comes another way, or has not come yet.

    A join of two of their own ways is met again by the second one.
    """
    node = use.node
    if node is None or node.op_type not in _JOINS or node.domain not in STANDARD:
        return False
    return any(
        (use.scope.path, name) not in own and _changes(use.scope, name, silent)
        for name in node.input
    )


def _silent(model: Model) -> set[Place]:
    """Return the tensors that change with the number of the data alone, not with its values."""
    silent: set[Place] = set()
    for scope in model.scopes:
        for node in scope.graph.node:
            told = any(_changes(scope, name, silent) for name in node.input) or not node.input
            if node.op_type in _SIZES or not told:
                silent |= {(scope.path, name) for name in node.output}
    return silent


def _changes(scope: Scope, name: str, silent: set[Place]) -> bool:
    """Whether a tensor changes with the values of the data."""
    definer = scope.definer(name) if name else None
    if definer is None or name not in definer.moving:
        return False
    return (definer.path, name) not in silent
