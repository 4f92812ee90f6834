"""Refuse weights that something else reads too: a change for one reader would change the other.

Several layers may share a weight: then a weight goes only if none of them wants it. Any other
reader (an embedding lookup, an output of the graph, an operator we do not know) forbids the change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.nodes import STANDARD, node_key
from onnx_relief.graph.sites import Part, Refusal, Site
from onnx_relief.graph.views import TensorView
from onnx_relief.graph.walk import Model, Place, Scope, TensorHome, Use, parts_of


def without_foreign_readers(
    sites: list[Site], model: Model, overlaps: Mapping[TensorHome, str]
) -> tuple[list[Site], list[Refusal]]:
    """Return the sites whose constants only layers read, and a refusal for each of the others.

    A bias that something else reads is left out of its layer, which stays.

    Args:
        sites: All that could be layers.
        model: Where their constants are read.
        overlaps: Constants whose bytes in a data file are those of another tensor too, which.
    """
    refusals: list[Refusal] = []
    while True:
        kept, refused = _one_round(sites, model, overlaps)
        refusals += refused
        # A refused layer is a foreign reader of the weights that it shared: ask again.
        if len(kept) == len(sites) and all(a is b for a, b in zip(kept, sites, strict=True)):
            return kept, refusals
        sites = kept


def _one_round(
    sites: list[Site], model: Model, overlaps: Mapping[TensorHome, str]
) -> tuple[list[Site], list[Refusal]]:
    scopes = {scope.path: scope for scope in model.scopes}
    own = {
        (part.view.passing[-1], place)
        for site in sites
        for part in site.tensors
        for place in _readers_of(site)
    }
    between = {p for site in sites for part in site.tensors for p in part.view.passing}
    steps = {(place, index) for place in between for index in _passed_on(scopes, place)}
    returned: set[tuple[Place, int]] = set()
    for path, name in between:
        into, back = _handed_on(scopes[path], name)
        steps |= into
        returned |= back
    disagreed = _seen_differently(part.view for site in sites for part in site.tensors)

    def foreign(part: Part) -> str | None:
        homes = parts_of(part.view.home)
        shared = next((home for home in homes if home in overlaps), None)
        if shared is not None:
            return f"tensors {overlaps[shared]} share its bytes in the data file"
        if not disagreed.isdisjoint(homes):
            return "other nodes see it with another shape or zero point, or joined with other parts"
        read = (*part.view.passing, *(p for home in homes for p in model.places.get(home, ())))
        for path, name in dict.fromkeys((*read, *_names_inside(scopes, read))):
            for use in scopes[path].uses.get(name, []):
                if use.node is None and ((path, name), use.index) in returned:
                    continue
                if use.node is None:
                    return f"{name!r} is also an output of the graph"
                if ((path, name), _place(use)) not in own and _place(use) not in steps:
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


def _handed_on(scope: Scope, name: str) -> tuple[set[tuple[Place, int]], set[tuple[Place, int]]]:
    """Return where a loop takes a tensor for its body, and as which output the body returns it.

    Nothing, where what the loop gives out of it in the end is read.
    """
    handed, around, node = scope.handed(name), scope.parent, scope.owner
    if handed is None or around is None or node is None or around.uses.get(handed.final):
        return set(), set()
    made = next((output for output in node.output if output), "")
    into = {((around.path, made), handed.place)}
    into |= {((scope.path, inside), 0) for inside in handed.inside[:-1]}  # the Identity between
    return into, {((scope.path, handed.inside[0]), handed.returned)}


def _names_inside(scopes: Mapping[str, Scope], places: Iterable[Place]) -> Iterator[Place]:
    for path, name in places:
        handed = scopes[path].handed(name)
        yield from () if handed is None else ((path, inside) for inside in handed.inside)


def _passed_on(scopes: Mapping[str, Scope], place: Place) -> range:
    """Return the inputs from which the node that makes a tensor takes its elements."""
    node = scopes[place[0]].producers.get(place[1])
    joins = node is not None and node.op_type == "Concat" and node.domain in STANDARD
    return range(len(node.input) if node is not None and joins else 1)


def _seen_differently(views: Iterable[TensorView]) -> set[TensorHome]:
    """Return the constants that cannot be changed at one place alone: not all see the same there.

    Two DequantizeLinear may give one tensor two zero points, the calls of a function may give one
    ConstantOfShape two shapes, and a constant may be read by itself and as part of a larger one.
    """
    by_home: dict[TensorHome, list[TensorView]] = defaultdict(list)
    for view in views:
        for home in parts_of(view.home):
            by_home[home].append(view)
    return {home for home, seen in by_home.items() if any(_differ(seen[0], v) for v in seen[1:])}


def _differ(first: TensorView, second: TensorView) -> bool:
    if first.home != second.home or first.stored_shape != second.stored_shape:
        return True
    if first.zero.ndim == second.zero.ndim == 0:
        return bool(first.zero != second.zero)
    return not np.array_equal(_zeros_as_stored(first), _zeros_as_stored(second))


def _zeros_as_stored(view: TensorView) -> NDArray[Any]:
    zeros = np.empty(view.size, dtype=view.zero.dtype)
    zeros[view.places()] = view.zero
    return zeros


def _place(use: Use) -> tuple[Place, int]:
    """Return where a tensor is read: by the node that makes this, at this input."""
    assert use.node is not None
    return (use.scope.path, next((name for name in use.node.output if name), "")), use.index


def _readers_of(site: Site) -> list[tuple[Place, int]]:
    """The inputs that may hold the site's constants: its node's, and those of the Add after it."""
    path = site.scope.path
    made = next((name for name in site.node.output if name), "")
    read = [((path, made), i) for i in range(len(site.node.input)) if i != site.data_input]
    return (
        read
        if site.output in site.node.output
        else [*read, *(((path, site.output), i) for i in (0, 1))]
    )
