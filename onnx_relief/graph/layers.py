"""Find the layers of a model, and say of every other node that multiplies by constants why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_relief.errors import ReliefError, UnsupportedError
from onnx_relief.graph.builders import BUILDERS
from onnx_relief.graph.document import Document
from onnx_relief.graph.nodes import STANDARD, node_key
from onnx_relief.graph.refusals import reason_against
from onnx_relief.graph.sharing import without_foreign_readers
from onnx_relief.graph.sites import Part, Refusal, Site
from onnx_relief.graph.unique_names import Names, with_unique_names
from onnx_relief.graph.views import FLOATS as FLOATS
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import Model, Place, Scope, understand
from onnx_relief.plan import Layer


@dataclass(frozen=True, eq=False)
class Survey:
    """All that was found in a document."""

    document: Document
    model: Model
    constants: Constants
    sites: tuple[Site, ...]
    refusals: tuple[Refusal, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in the order of the nodes."""
        return tuple(site.layer for site in self.sites)

    @property
    def runnable(self) -> Document:
        """The document with local functions written out, whose tensors have the sites' names."""
        return replace(self.document, proto=self.model.proto)

    @cached_property
    def by_name(self) -> Mapping[str, Site]:
        """The sites of the layers, by the layers' names."""
        return {site.layer.name: site for site in self.sites}

    @cached_property
    def ranks(self) -> Mapping[Place, int]:
        """Number of axes of the main graph's tensors, as far as shape inference tells."""
        shapes = self.model.shapes
        return {place: len(shape) for place, shape in shapes.items() if not place[0]}

    def rows(self, part: Part) -> NDArray[Any]:
        """Return the values of a weight or bias in canonical layout."""
        return part.layout.to_rows(self.constants.values(part.view))


def require_layers(survey: Survey) -> None:
    """Refuse a model that has no layer.

    Raises:
        UnsupportedError: With the reasons, of each the first node.
    """
    if survey.sites:
        return
    first: dict[tuple[str, str], str] = {}
    for refusal in survey.refusals:
        first.setdefault((refusal.op, refusal.reason), refusal.node)
    reasons = "; ".join(f"{op} {node!r}: {reason}" for (op, reason), node in first.items())
    raise UnsupportedError(
        f"{survey.document.name} has no layer that can be pruned"
        + (f" ({reasons})" if reasons else "")
    )


def find_layers(document: Document) -> Survey:
    """Return every layer of `document`, and every node that might be one and why it is not."""
    model = understand(document.proto)
    constants = Constants(document)
    sites: list[Site] = []
    refusals: list[Refusal] = []
    for scope in model.scopes:
        for node in scope.graph.node:
            found = _look_at(node, scope, constants)
            if isinstance(found, Site) and found.layer.op == "Einsum":
                found = _why_repeated(found, model) or found
            if isinstance(found, Site):
                sites.append(found)
            elif found is not None:
                refusals.append(Refusal(node_key(node), node.op_type, found))
    named = _with_unique_names(sites)
    kept, shared = without_foreign_readers(named, model, constants.overlaps())
    return Survey(document, model, constants, tuple(kept), (*refusals, *shared))


def uniquely_named(survey: Survey) -> tuple[Survey, Names]:
    """Return the survey of the same model with unique names of tensors, and the old ones by new.

    Layers are called what they were called.
    """
    document, names = with_unique_names(survey.document)
    if not names:
        return survey, names
    found = find_layers(document)
    sites = [
        replace(site, layer=replace(site.layer, name=old.layer.name))
        for site, old in zip(found.sites, survey.sites, strict=True)
    ]
    return replace(found, sites=tuple(sites)), names


def _look_at(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str | None:
    build = BUILDERS.get(node.op_type) if node.domain in STANDARD else None
    if build is None:
        return reason_against(node, scope, constants)
    try:
        return build(node, scope, constants)
    except (ReliefError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        return f"its attributes and the shape of its weight do not fit together ({error})"


def lengths_read(site: Site, model: Model) -> tuple[tuple[int, int | str], ...]:
    """Return how long the axes that a layer sums over are in its weight, and in what it reads.

    The latter is a name, or an empty one, where shape inference does not tell.
    """
    shape = model.shapes.get((site.scope.path, site.data), ())
    asked = site.input_axes
    known = ("",) * (len(asked) - len(shape)) + shape[-len(asked) :]
    return tuple(zip(asked, known, strict=True))


def _why_repeated(site: Site, model: Model) -> str | None:
    """Return why inputs of a layer are more or fewer than its weight says, or None.

    ONNX Runtime repeats an axis of length 1 of an Einsum, as NumPy does; the specification does not
    say what to do. Where lengths are not known, `check_lengths` looks at the data.
    """
    for wide, size in lengths_read(site, model):
        if isinstance(size, int) and size != wide:
            return f"its weight has length {wide} along an axis of which the data has {size}"
    return None


def _with_unique_names(sites: list[Site]) -> list[Site]:
    """Return the sites with their layers' names made unique by their graph's path and a number."""
    wanted = [
        f"{site.scope.path}/{site.layer.name}" if site.scope.path else site.layer.name
        for site in sites
    ]
    own, taken = set(wanted), set[str]()
    named = []
    for site, name in zip(sites, wanted, strict=True):
        unique, number = name, 1
        while unique in taken or (number > 1 and unique in own):
            number += 1
            unique = f"{name}#{number}"
        taken.add(unique)
        named.append(replace(site, layer=replace(site.layer, name=unique)))
    return named
