"""Layers of a pruned model beside those of the dense one: which can be refitted, and how.

Layers that read the same weight in the same way are refitted together. A layer is left alone, with
the reason in words, where others read its weight in another way, where it cannot be set to other
numbers, where the layer sits in a body or is recurrent, and where its dense twin cannot be found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.agreement import read_alike, readers_of
from onnx_relief.graph.bias import TAKES_BIAS, beta_of, with_bias
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.nodes import STANDARD, attributes
from onnx_relief.graph.quantised import in_integers
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.rows import OTHER_FORM, as_read, as_stored, can_be_set
from onnx_relief.graph.sites import Axes, Part, RowLayout, Site
from onnx_relief.graph.walk import TensorHome
from onnx_relief.measuring.evidence import Reading, reading_of
from onnx_relief.repair.joins import Join
from onnx_relief.repair.refit import Change
from onnx_relief.repair.stays import UNKNOWN_UNITS, Stays, units_left

Floats = NDArray[np.float64]

BY_ZERO: Final = "its node multiplies by zero"
NO_TWIN: Final = "the dense model has no layer of its name"
SHARED: Final = "other layers share its weight"
SHARED_OTHERWISE: Final = (
    "layers share its weight that read it otherwise, one after the other, or with other biases"
)


@dataclass(frozen=True, eq=False)
class Pair:
    """A layer that can be refitted.

    Attributes:
        site: In the pruned model.
        stays: What is left of the dense model's tensors.
        reading: How it reads its input.
        bias: What moves its outputs by a constant, and by how much per unit of change; None where
            nothing does, and one can or cannot be added.
        can_add: Whether it can be given a bias.
        join: The sum that its outputs go into, if it is to make up for the other branch, too.
        others: Layers that read the same weight in the same way, and change with it.
    """

    site: Site
    stays: Stays
    reading: Reading
    bias: tuple[Part, float] | None
    can_add: bool
    join: Join | None = None
    others: tuple[Pair, ...] = ()

    @property
    def all(self) -> tuple[Pair, ...]:
        """It and the others."""
        return (self, *self.others)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all these layers."""
        return tuple(one.site.layer.name for one in self.all)

    @property
    def made(self) -> tuple[str, ...]:
        """What their nodes give."""
        return tuple(one.site.node.output[0] for one in self.all)

    @property
    def centred(self) -> bool:
        """Whether its outputs can be moved by a constant."""
        return self.bias is not None or self.can_add


def pairs_of(
    pruned: Survey, dense: Survey, stays: Stays, *, memory: int
) -> tuple[list[Pair], dict[str, str]]:
    """Return the layers that can be refitted, and why the others cannot, by name.

    Args:
        pruned: The model to repair.
        dense: The model it was made from.
        stays: What is left of the dense model's tensors.
        memory: Bytes that its Gram matrices may take.
    """
    readers = readers_of(pruned)
    own = main_outputs(pruned)
    found: dict[TensorHome, list[Pair]] = defaultdict(list)
    left = {}
    for site in pruned.sites:
        name = site.layer.name
        pair = _pair(pruned, site, dense.by_name.get(name), stays, readers, own, memory)
        if isinstance(pair, Pair):
            found[site.parts[0].view.home].append(pair)
        else:
            left[name] = pair
    together = []
    for home, (first, *others) in found.items():
        pair = replace(first, others=tuple(others))
        alike = all(_read_alike(pruned, first, other) for other in others)
        if alike and len(readers[home]) == len(pair.all):
            together.append(pair)
        else:
            left |= dict.fromkeys(pair.names, SHARED_OTHERWISE)
    return together, left


def outputs_of(site: Site) -> set[str]:
    """Return the tensors at which a layer can be compared with its twin in a pruned model.

    Where the dense model adds the bias in a node of its own and what was cut left a bias in the
    layer's node, the twin's output is the dense node's.
    """
    return {site.output, site.node.output[0]}


def main_outputs(survey: Survey) -> set[str]:
    """Return the tensors that nodes of the file's main graph make, not those of its functions."""
    return {name for node in survey.document.proto.graph.node for name in node.output}


def _pair(
    survey: Survey,
    site: Site,
    twin: Site | None,
    stays: Stays,
    readers: Mapping[TensorHome, list[str]],
    own: set[str],
    memory: int,
) -> Pair | str:
    reading = reading_of(site, memory=memory)
    if isinstance(reading, str):
        return reading
    if reading.blocks > 1:
        return f"it reads {reading.entries} inputs at a time, too many for one Gram matrix"
    if twin is None or site.output not in outputs_of(twin):
        return NO_TWIN
    weight = site.parts[0]
    if site.layer.weights[0].scale == 0:
        return BY_ZERO
    if not can_be_set(weight):
        return OTHER_FORM
    if units_left(stays, twin).size != site.layer.units:
        return UNKNOWN_UNITS
    together = readers[weight.view.home]
    bias = _movable(survey, site, readers, together)
    alone = len(together) == 1
    return Pair(site, stays, reading, bias, alone and can_be_given_a_bias(site, own))


def _read_alike(survey: Survey, one: Pair, other: Pair) -> bool:
    """Whether two layers read the same weight in the same way, and move by the same bias."""
    return read_alike(survey, one.site, other.site) and _moved_by(one) == _moved_by(other)


def _moved_by(pair: Pair) -> tuple[TensorHome, float] | None:
    return None if pair.bias is None else (pair.bias[0].view.home, pair.bias[1])


def can_be_given_a_bias(site: Site, own: set[str]) -> bool:
    """Whether a layer has room for a bias, in a node of the file's main graph that makes `own`.

    A bias of floats would take a layer out of what runtimes compute in integers.
    """
    if in_integers(site):
        return False
    free = len(site.node.input) < 3 or not site.node.input[2]
    return (
        site.layer.op in TAKES_BIAS and free and site.node.output[0] in own and beta_of(site) != 0
    )


def _movable(
    survey: Survey,
    site: Site,
    readers: Mapping[TensorHome, list[str]],
    together: Sequence[str],
) -> tuple[Part, float] | None:
    """Return the bias of a layer, or the mean that a BatchNormalization takes off its output.

    Other layers may read it only where they read the layer's weight, too.
    """
    if site.bias is not None and site.layer.bias is not None:
        alone = readers[site.bias.view.home] in ([site.layer.name], together)
        fine = alone and can_be_set(site.bias)
        return (site.bias, 1 / site.layer.bias.scale) if fine and site.layer.bias.scale else None
    uses = site.scope.uses.get(site.output, [])
    node = uses[0].node if len(uses) == 1 and uses[0].scope is site.scope else None
    if node is None or node.op_type != "BatchNormalization" or node.domain not in STANDARD:
        return None
    if uses[0].index != 0 or len(node.input) < 5 or attributes(node).get("training_mode"):
        return None
    view = survey.constants.resolve(site.scope, node.input[3])
    if isinstance(view, str) or view.size != site.layer.units or site.makes != Axes():
        return None
    if any(len(site.scope.uses.get(name, [])) != 1 for _, name in view.passing):
        return None
    units = site.layer.units
    part = Part(view, RowLayout((units, 1), (0, 1), (units, 1)))
    fixed = survey.constants.why_not_writable(view)
    return (part, -1.0) if fixed is None and can_be_set(part) else None


def changed(
    survey: Survey, document: Document, pair: Pair, change: Change, mean: Floats
) -> Document:
    """Return the document with something added to a layer's weights, and to its outputs.

    Args:
        survey: Of the pruned model, as the pair was found in it.
        document: That model, in which other layers may have changed since.
        pair: The layer.
        change: What is added, in what the node multiplies with.
        mean: Mean of its inputs, (groups, entries): what integers leave of the weights moves the
            outputs by a constant, which the bias takes back.
    """
    site, constants = pair.site, survey.constants
    part, scale = site.parts[0], site.layer.weights[0].scale
    rows = survey.rows(part).astype(np.float64)
    wanted = rows + pair.reading.join(change.weights).reshape(rows.shape) / scale
    rounding = (as_read(constants, part, wanted) - wanted) * scale
    moved = pair.reading.split(rounding.reshape(len(rows), -1)) * mean[:, None]
    offset = (change.offset - moved.sum(axis=2)).reshape(-1)
    values = {part.view.home: as_stored(constants, part, wanted)}
    if pair.bias is not None:
        bias, factor = pair.bias
        old = survey.rows(bias).astype(np.float64)
        values[bias.view.home] = as_stored(constants, bias, old + factor * offset[:, None])
    document = write_constants(document, values)
    if pair.bias is None and pair.can_add and offset.any():
        return with_bias(document, site, offset / beta_of(site))
    return document
