"""What a layer loses when channels go: their mean, which its bias can give back.

A unit that read a channel of mean m with weight w loses w m on average; for a convolution the sum
of the kernel times m, exact away from zero padding. So b_j grows by sum_i w_ij m_i over the
channels that go, and the mean of every unit before its activation stays what it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_relief.graph.bias import TAKES_BIAS, add_bias, beta_of, fresh_name
from onnx_relief.graph.channels.ids import Groups
from onnx_relief.graph.channels.records import Member
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.channels.weights import why_not_even
from onnx_relief.graph.document import Document
from onnx_relief.graph.initializers import add_initializer
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.nodes import every_node
from onnx_relief.graph.quantised import in_integers
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.rows import as_stored
from onnx_relief.graph.sites import Part, Site
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import TensorHome
from onnx_relief.plan import LayerKind

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Correction:
    """What is added to a layer.

    Attributes:
        site: The layer.
        node: Index of its node.
        added: One number for each unit, before the layer's own scale of its bias.
    """

    site: Site
    node: int
    added: Floats


def corrections(
    trace: Trace,
    groups: Groups,
    gone: NDArray[np.bool_],
    survey: Survey,
    means: Mapping[str, Floats],
    *,
    may_add: bool = False,
) -> list[Correction]:
    """Return what each layer that loses inputs has to get back.

    Args:
        trace: The ids.
        groups: Which belong together.
        gone: Whether a group goes, by root.
        survey: The model's layers.
        means: Mean of each channel of the tensors that layers read.
        may_add: Whether a product without a bias can be followed by an Add (`add_after`).
    """
    by_output = {site.node.output[0]: site for site in survey.sites}
    nodes = _nodes_by_weight(trace, survey)
    found = []
    for read in trace.reads:
        site = by_output.get(trace.whole.nodes[read.node].output[0])
        lost = gone[groups.of(read.ids)]
        mean = means.get(read.tensor)
        if site is None or mean is None or mean.size != lost.size or not lost.any():
            continue
        weight = site.layer.weights[0]
        if lost.size != weight.inputs * weight.groups:
            continue  # one of the axes that it sums over
        room = has_room(site) and (_is_its_own(trace, site) or _is_shared_whole(trace, site, nodes))
        room = room or (may_add and _can_add(site))
        if len(site.layer.weights) != 1 or not room:
            continue
        rows = survey.rows(site.parts[0]).astype(np.float64).sum(axis=2) * weight.scale
        by_group = (mean * lost).reshape(weight.groups, 1, weight.inputs)
        added = (rows.reshape(weight.groups, -1, weight.inputs) * by_group).sum(axis=2).reshape(-1)
        if added.any():
            found.append(Correction(site, read.node, added))
    return found


def why_not_exact(trace: Trace, survey: Survey) -> dict[int, str]:
    """Return why the bias of what reads channels cannot take over a constant, by node.

    A node that is not there can have its bias corrected exactly, by `corrections` and `give_back`.
    """
    by_output = {site.node.output[0]: site for site in survey.sites}
    found: dict[int, str] = {}
    for read in trace.reads:
        node = trace.whole.nodes[read.node]
        site = by_output.get(node.output[0])
        if site is None or len(site.layer.weights) != 1 or read.other is not None:
            found[read.node] = f"{node.op_type} has no bias of its own for them"
            continue
        scope = trace.whole.homes[node.output[0]]
        uneven = why_not_even(node, partial(survey.constants.array, scope))
        if uneven is not None:
            found[read.node] = uneven
        elif site.reads.joined > 1:
            found[read.node] = f"{node.op_type} reads them along with another axis"
        elif site.bias is not None and site.bias.view.quantised:
            found[read.node] = f"{node.op_type} has a bias of integers"
        elif not _can_add(site) and not (has_room(site) and _is_its_own(trace, site)):
            found[read.node] = f"{node.op_type} has no bias of its own for them"
    return found


def _is_its_own(trace: Trace, site: Site) -> bool:
    """Whether nothing but the layer reads its bias."""
    if site.bias is None or site.layer.bias is None or not _can_write(site):
        return True
    return _read_once(trace, site.bias)


def _nodes_by_weight(trace: Trace, survey: Survey) -> Mapping[TensorHome, set[int]]:
    """Return the nodes that apply each weight, and add the bias to what it gives."""
    found: defaultdict[TensorHome, set[int]] = defaultdict(set)
    for site in survey.sites:
        last = trace.whole.producers.get(site.output, site.node)
        found[site.parts[0].view.home] |= {trace.node_index(node) for node in (site.node, last)}
    return found


def _is_shared_whole(trace: Trace, site: Site, nodes: Mapping[TensorHome, Collection[int]]) -> bool:
    """Whether it is the same layer, applied several times: its bias is read with its weight."""
    weight, bias = site.parts[0], site.bias
    if bias is None or _read_once(trace, weight):
        return False
    readers = {use.node for _, name in bias.view.passing for use in trace.whole.uses[name]}
    return readers <= set(nodes[weight.view.home])


def _read_once(trace: Trace, part: Part) -> bool:
    return all(len(trace.whole.uses.get(name, ())) == 1 for _, name in part.view.passing)


def give_back(document: Document, trace: Trace, changes: Sequence[Correction]) -> Document:
    """Return a copy of the document whose biases are corrected; units keep their places.

    A layer without a bias gets one, whose entries belong to its units: `trace` is told.
    """
    document = document.copy()
    constants = Constants(document)
    values: dict[TensorHome, NDArray[np.generic]] = {}
    for change in changes:
        bias, layer_bias = change.site.bias, change.site.layer.bias
        if bias is None or layer_bias is None or not _can_write(change.site):
            if not _can_add(change.site):
                _add_bias(document.proto.graph, trace, change)
        elif bias.view.home not in values:  # a shared bias is corrected once
            old = bias.layout.to_rows(constants.values(bias.view)).astype(np.float64)
            added = (change.added / layer_bias.scale).reshape(old.shape)
            values[bias.view.home] = as_stored(constants, bias, old + added)
    return write_constants(document, values)


def add_after(
    document: Document,
    trace: Trace,
    groups: Groups,
    gone: NDArray[np.bool_],
    changes: Sequence[Correction],
) -> Document:
    """Return a copy in which an Add gives products that have no bias what they lost.

    Args:
        document: The model after the cut.
        trace: The ids before it.
        groups: Which belong together.
        gone: Whether a group went, by root.
        changes: Corrections, of which those of products without a bias are made here.
    """
    changes = [change for change in changes if _can_add(change.site)]
    if not changes:
        return document
    document = document.copy()
    graph = document.proto.graph
    for change in changes:
        name = change.site.node.output[0]
        at = next(at for at, node in enumerate(graph.node) if name in node.output)
        added = _of_units(change, ~gone[groups.of(trace.of(name))])
        dtype = change.site.parts[0].view.dtype
        product = fresh_name(graph, f"{name}_product")
        bias = fresh_name(graph, f"{name}_bias")
        add_initializer(graph, added.astype(dtype), bias)
        graph.node[at].output[0] = product
        called = f"{graph.node[at].name}_bias" if graph.node[at].name else ""
        graph.node.insert(at + 1, helper.make_node("Add", [product, bias], [name], name=called))
    return document


def _of_units(change: Correction, stays: NDArray[np.bool_]) -> Floats:
    """Return what the units that stay get, in the axes that units have in the output.

    Args:
        change: What all of them get.
        stays: Which stay, as the ids of the output.
    """
    sizes = change.site.unit_axes
    every = range(len(sizes))
    left = np.broadcast_to(stays.reshape(stays.shape[-len(sizes) :]), sizes)
    kept = [left.any(axis=tuple(other for other in every if other != axis)) for axis in every]
    return change.added.reshape(sizes)[np.ix_(*kept)]


def _can_add(site: Site) -> bool:
    """Whether the layer is a product without a bias in the main graph, and not of integers."""
    if in_integers(site):
        return False
    last = site.layer.kind is LayerKind.FULLY_CONNECTED and site.makes.place == -1
    in_node = site.layer.op in TAKES_BIAS
    return last and not in_node and site.bias is None and site.scope.parent is None


def _can_write(site: Site) -> bool:
    """Whether the layer's bias can be changed where it is kept."""
    if site.bias is None:
        return False
    view = site.bias.view
    return view.quantised or (not view.steps and view.dtype.kind == "f")


def has_room(site: Site) -> bool:
    """Whether the layer has a bias of its own that can be changed, or can be given one.

    One that the layer multiplies by zero does not count. A bias that is added after the layer, and
    comes through a Reshape, leaves room in the layer. A layer of integers is given none of floats,
    which would take it out of integer arithmetic.
    """
    if _can_write(site):
        return site.layer.bias is None or site.layer.bias.scale != 0
    if in_integers(site):
        return False
    can_have = site.layer.op in TAKES_BIAS and beta_of(site) != 0
    return can_have and (len(site.node.input) < 3 or not site.node.input[2])


def _add_bias(graph: onnx.GraphProto, trace: Trace, change: Correction) -> None:
    node = every_node(graph)[change.node]
    dtype = change.site.parts[0].view.dtype
    added = change.added / beta_of(change.site)
    name = add_bias(graph, node, added.astype(dtype))
    units = trace.of(node.output[0]).reshape(-1)
    if units.size == added.size:
        trace.members.append(Member(name, 0, units))
        trace.taken.append((name, change.node, {0: units}))
