"""Which layers read channels, and of which channels the data shows anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.channels import Groups, Trace
from onnx_relief.graph.channels.records import Read
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.measure import Measurement

Kinds = Mapping[object, NDArray[np.int64]]
"""Roots of the groups of each kind."""


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer that reads channels.

    Attributes:
        site: The layer.
        part: Which of its weights reads them.
        node: Index of its node in the trace.
        roots: Group of every input.
    """

    site: Site
    part: int
    node: int
    roots: NDArray[np.int64]


def consumers_of(survey: Survey, trace: Trace, groups: Groups) -> list[Consumer]:
    """Return the layers that read channels, those of depthwise convolutions left out."""
    by_output = {site.node.output[0]: site for site in survey.sites}
    found = []
    for read in trace.reads:
        node = trace.whole.nodes[read.node]
        site = by_output.get(node.output[0])
        if site is None:
            continue
        # What a recurrent layer reads of itself it reads through its second weight.
        part = 1 if read.tensor in node.output else 0
        weight = site.layer.weights[part]
        depthwise = weight.inputs == 1 and weight.groups > 1
        roots = groups.of(_of_inputs(trace, read, site))
        if not depthwise and roots.size == weight.inputs * weight.groups:
            found.append(Consumer(site, part, read.node, roots))
    return found


def _of_inputs(trace: Trace, read: Read, site: Site) -> NDArray[np.int64]:
    """Return the ids of a layer's inputs, (inputs,); of axes that it joins one has them."""
    if site.reads.joined == 1:
        return read.ids.reshape(-1)
    ids, sizes = trace.of(read.tensor), site.input_axes
    return np.broadcast_to(ids.reshape(ids.shape[-len(sizes) :]), sizes).reshape(-1)


def sites_of(consumers: Sequence[Consumer]) -> list[Site]:
    """Return their layers, each once."""
    return list({one.site.layer.name: one.site for one in consumers}.values())


def with_evidence(
    kinds: Kinds,
    consumers: Sequence[Consumer],
    survey: Survey,
    trace: Trace,
    groups: Groups,
    measured: Measurement,
) -> tuple[dict[object, NDArray[np.int64]], dict[str, int]]:
    """Return the kinds that the data shows something of, and why and how many others stay.

    In a branch that the data never takes all channels look free, and are not.
    """
    seen = measured.activities.keys()
    makers = {  # by constant, the layers that it belongs to
        part.view.home.name: site.layer.name for site in survey.sites for part in site.parts
    }
    found, unseen = dict[object, NDArray[np.int64]](), Counter[str]()
    for kind, roots in kinds.items():
        names = [one.site.layer.name for one in consumers if np.isin(one.roots, roots).any()]
        if not names:  # nothing reads them, as queries and keys: then those that make them
            names = [
                makers[member.constant]
                for member in trace.members
                if member.constant in makers and np.isin(groups.of(member.ids), roots).any()
            ]
        if not names or seen & set(names):
            found[kind] = roots
        else:
            why = measured.unobserved.get(names[0], "it was not seen on this data")
            unseen[f"nothing is known of what {names[0]} makes of them: {why}"] += roots.size
    return found, dict(unseen)
