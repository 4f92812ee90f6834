"""What a layer loses when channels go: their mean, which its bias can give back.

A unit that read a channel of mean m with weight w loses w m on average; for a convolution the sum
of the kernel times m, exact away from zero padding. So b_j grows by sum_i w_ij m_i over the
channels that go, and the mean of every unit before its activation stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.bias import add_bias
from onnx_relief.graph.channels.ids import Groups
from onnx_relief.graph.channels.trace import Member, Trace
from onnx_relief.graph.channels.whole import every_node
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.sites import Site
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import TensorHome

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
) -> list[Correction]:
    """Return what each layer that loses inputs has to get back.

    Args:
        trace: The ids.
        groups: Which belong together.
        gone: Whether a group goes, by root.
        survey: The model's layers.
        means: Mean of each channel of the tensors that layers read.
    """
    by_output = {site.node.output[0]: site for site in survey.sites}
    found = []
    for read in trace.reads:
        site = by_output.get(trace.whole.nodes[read.node].output[0])
        lost = gone[groups.of(read.ids)]
        mean = means.get(read.tensor)
        if site is None or mean is None or mean.size != lost.size or not lost.any():
            continue
        weight = site.layer.weights[0]
        if len(site.layer.weights) != 1 or not _has_room(site):
            continue
        rows = survey.rows(site.parts[0]).astype(np.float64).sum(axis=2) * weight.scale
        by_group = (mean * lost).reshape(weight.groups, 1, weight.inputs)
        added = (rows.reshape(weight.groups, -1, weight.inputs) * by_group).sum(axis=2).reshape(-1)
        if added.any():
            found.append(Correction(site, read.node, added))
    return found


def give_back(document: Document, trace: Trace, changes: Sequence[Correction]) -> Document:
    """Return a copy of the document whose biases are corrected; units keep their places.

    A layer without a bias gets one, whose entries belong to its units: `trace` is told.
    """
    document = document.copy()
    constants = Constants(document)
    values: dict[TensorHome, NDArray[np.generic]] = {}
    for change in changes:
        bias, layer_bias = change.site.bias, change.site.layer.bias
        if bias is None or layer_bias is None:
            _add_bias(document.proto.graph, trace, change)
        elif bias.view.home not in values:  # a shared bias is corrected once
            old = np.asarray(constants.stored(bias.view.home), np.float64)
            added = (change.added / layer_bias.scale).reshape(bias.layout.rows)
            spread = bias.layout.from_rows(added, bias.view.shape)
            values[bias.view.home] = old + spread.reshape(old.shape)
    return write_constants(document, values)


def _has_room(site: Site) -> bool:
    """Whether the layer has a bias of its own that can be changed, or can be given one."""
    if site.bias is not None:
        return not site.bias.view.steps and site.bias.view.dtype.kind == "f"
    can_have = site.layer.op in ("Conv", "ConvTranspose", "Gemm")
    return can_have and (len(site.node.input) < 3 or not site.node.input[2])


def _add_bias(graph: onnx.GraphProto, trace: Trace, change: Correction) -> None:
    node = every_node(graph)[change.node]
    dtype = change.site.parts[0].view.dtype
    name = add_bias(graph, node, change.added.astype(dtype))
    units = trace.of(node.output[0]).reshape(-1)
    if units.size == change.added.size:
        trace.members.append(Member(name, 0, units))
        trace.taken.append((name, change.node, {0: units}))
