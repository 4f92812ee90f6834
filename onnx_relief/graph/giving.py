"""Which layers give the outputs of a model: a unit without weights there is an output without any.

A layer gives an output where its units come to it past no other layer. Where they are added to what
no pruning can cut off, as data, embeddings or units of a layer that gives, an output is left of
which they are a part. Six inputs `x` and three layers A, B and C of six units show the words::

    h = MatMul (x, A)       x is solid: it changes with the data, and no pruning cuts it off
    n = Shape (h)           n is silent: it changes with the number of samples alone
    g = MatMul (h, B)       made of B's units are g, r, s and y; these are B's own
    r = Relu (g)
    s = Add (g, r)          both are B's own, so units of B go on
    z = MatMul (x, C)
    y = Add (s, z)          z is not solid, since units of C may be cut off: so B is giving

A is not giving: its units end at h, where the next layer reads them. From then on g, r and s are
solid, so C, whose units are added to s, is not giving either. It would be if s were one number for
all six, or B had a row of zeros: then C would be all that tells some outputs from others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.light import node_reads
from onnx_relief.graph.nodes import STANDARD, subgraphs
from onnx_relief.graph.sites import Site
from onnx_relief.graph.walk import Model, Place, Scope, Use

_SIZES = ("Shape", "Size")
"""Operators that look at no value."""
_JOINS = ("Add", "Sub", "Sum")
_STRETCHING = (*_JOINS, "Mul", "Div", "Pow", "Max", "Min", "Mean", "Where", "Expand", "Tile")
"""Operators that may give one entry of what they read several times."""


def giving_outputs(survey: Survey) -> frozenset[str]:
    """Return the names of the layers whose units are outputs of the model.

    Of layers that are added up, the first one gives: the others may lose units then, unless some
    units of the first one are zero already.
    """
    layers = {(site.scope.path, site.node.output[0]): site for site in survey.sites}
    silent, widths = _silent(survey.model), _Widths.of(survey)
    giving: set[str] = set()
    full: set[Place] = set()
    solid = _solid(survey.model, layers, full, silent, widths)
    for place, site in layers.items():
        if _gives(site, layers, solid, widths):
            giving.add(site.layer.name)
            if _is_full(survey, site):
                full.add(place)
                solid = _solid(survey.model, layers, full, silent, widths)
    return frozenset(giving)


@dataclass(frozen=True, eq=False)
class _Widths:
    """Whether one tensor tells all entries of another apart to which it is added.

    Attributes:
        shapes: Of tensors, as far as they are known.
        free: Names of sizes that the data decides, along which no units lie.
    """

    shapes: Mapping[Place, tuple[int | str, ...]]
    free: frozenset[int | str]

    @classmethod
    def of(cls, survey: Survey) -> _Widths:
        """Return what is known of a model."""
        main = survey.model.scopes[0]
        fed = [survey.model.shapes.get((main.path, name), ()) for name in main.inputs]
        names = {size for shape in fed for size in shape if isinstance(size, str) and size}
        return cls(survey.model.shapes, frozenset(names))

    def fills(self, part: Place, whole: Place) -> bool:
        """Whether a tensor is as wide as another one that is made of it; not if that is unknown.

        Files may say of a tensor that it has fewer axes than what it is made of.
        """
        wide, narrow = self.shapes.get(whole), self.shapes.get(part)
        if wide is None or narrow is None or len(narrow) > len(wide):
            return False
        own = (*[1] * (len(wide) - len(narrow)), *narrow)
        return all(
            size == goal or goal in self.free or (isinstance(goal, str) and size != 1)
            for size, goal in zip(own, wide, strict=True)
        )

    def holds(self, place: Place, units: int) -> bool:
        """Whether a tensor has at least one entry for every unit."""
        return prod(size for size in self.shapes[place] if isinstance(size, int)) % units == 0


def _is_full(survey: Survey, site: Site) -> bool:
    """Whether no unit of a layer is zero already."""
    rows = [survey.rows(part) for part in site.parts]
    return all(bool((row.reshape(len(row), -1) != 0).any(axis=1).all()) for row in rows)


def _gives(site: Site, layers: dict[Place, Site], solid: set[Place], widths: _Widths) -> bool:
    """Whether what becomes of a layer's units up to the next layers is an output.

    Args:
        site: The layer.
        layers: By what their nodes give.
        solid: Tensors of which no entry can be cut off.
        widths: Of all tensors.
    """
    made = [(site.scope, name) for name in dict.fromkeys((*site.node.output, site.output)) if name]
    own = set(_places(made))
    for scope, name in made:  # the list grows while it is walked
        for use in scope.uses.get(name, []):
            if use.node is None and use.scope.owner is None:
                return True
            if _ends(use, layers) or _is_joined(use, own, solid, widths, site.layer.units):
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


def _is_joined(use: Use, own: set[Place], solid: set[Place], widths: _Widths, units: int) -> bool:
    """Whether a use adds to each of the units what comes another way and stays.

    A join of two of their own ways is met again by the second one.
    """
    node = use.node
    if node is None or node.op_type not in _JOINS or node.domain not in STANDARD:
        return False
    whole = (use.scope.path, node.output[0])
    others = {_place(use.scope, name) for name in node.input} - own
    return any(
        widths.fills(place, whole) and widths.holds(place, units) for place in others & solid
    )


def _place(scope: Scope, name: str) -> Place:
    """Return where a tensor is defined that is seen from a graph."""
    definer = scope.definer(name)
    return (scope if definer is None else definer).path, name


def _solid(
    model: Model,
    layers: dict[Place, Site],
    full: set[Place],
    silent: set[Place],
    widths: _Widths,
) -> set[Place]:
    """Return the tensors that change with the data and of which no entry can be cut off.

    What comes into or out of a body counts as what can be, and so does an entry that is one of
    several copies.

    Args:
        model: All graphs.
        layers: By what their nodes give.
        full: Layers that give outputs with all of their units.
        silent: Tensors that do not change with the values of the data.
        widths: Of all tensors.
    """
    main = model.scopes[0]
    solid = {(main.path, name) for name in main.inputs if _changes(main, name, silent)}
    for scope in model.scopes:
        for node in scope.graph.node:
            place = (scope.path, node.output[0])
            reads = [_place(scope, name) for name in node.input if _changes(scope, name, silent)]
            stay = [read for read in reads if read in solid]
            is_standard = node.domain in STANDARD
            if place in layers:
                found = place in full
            elif is_standard and node.op_type in _STRETCHING:
                whole = stay == reads or node.op_type in _JOINS
                found = whole and any(widths.fills(read, place) for read in stay)
            else:
                found = bool(stay) and stay == reads
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
