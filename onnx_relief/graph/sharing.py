"""Refuse weights that something else reads too: changing them for one reader would change the other.

Several layers may share a weight: then a weight goes only if none of them wants it. Any other
reader (an embedding lookup, an output of the graph, an operator we do not know) forbids the change.
"""

from __future__ import annotations

from dataclasses import replace

from onnx_relief.graph.sites import Part, Refusal, Site
from onnx_relief.graph.walk import Model, Scope, Use, node_key

Place = tuple[str, str]


def without_foreign_readers(sites: list[Site], model: Model) -> tuple[list[Site], list[Refusal]]:
    """Return the sites whose constants only layers read, and a refusal for each of the others.

    A bias that something else reads is left out of its layer, which stays.
    """
    refusals: list[Refusal] = []
    while True:
        kept, refused = _one_round(sites, model)
        refusals += refused
        # A refused layer is a foreign reader of the weights that it shared: ask again.
        if len(kept) == len(sites) and all(a is b for a, b in zip(kept, sites, strict=True)):
            return kept, refusals
        sites = kept


def _one_round(sites: list[Site], model: Model) -> tuple[list[Site], list[Refusal]]:
    scopes = {scope.path: scope for scope in model.scopes}
    readers = {
        (part.view.passing[-1], place)
        for site in sites
        for part in site.tensors
        for place in _readers_of(site)
    }
    steps = {place for site in sites for part in site.tensors for place in part.view.passing[1:]}

    def foreign(part: Part) -> str | None:
        for path, name in part.view.passing:
            for use in scopes[path].uses.get(name, []):
                if use.node is None:
                    return f"{name!r} is also an output of the graph"
                if ((path, name), _place(use)) not in readers and _place(use) not in steps:
                    return f"{use.node.op_type} {node_key(use.node)!r} reads it too"
        return None

    kept: list[Site] = []
    refusals: list[Refusal] = []
    for site in sites:
        reason = next((r for part in site.parts if (r := foreign(part)) is not None), None)
        if reason:
            name = site.layer.weights[0].name
            text = f"its weight {name} cannot be changed for this layer alone: {reason}"
            refusals.append(Refusal(site.layer.name, site.layer.op, text))
        elif site.bias and foreign(site.bias):
            kept.append(replace(site, bias=None, layer=replace(site.layer, bias=None)))
        else:
            kept.append(site)
    return kept, refusals


def _place(use: Use) -> Place:
    assert use.node is not None
    return (use.scope.path, _first_output(use.node.output))


def _first_output(outputs: object) -> str:
    return next((str(name) for name in outputs if name), "")  # type: ignore[attr-defined]


def _readers_of(site: Site) -> list[Place]:
    """The nodes that read the site's constants: its own, and the Add that follows it."""
    scope: Scope = site.scope
    own = (scope.path, _first_output(site.node.output))
    return [own] if site.output in site.node.output else [own, (scope.path, site.output)]
