"""Where a layer's output is added to another branch: there it can make up for that branch, too.

In a residual network nothing refits the way around a block, so what is lost there adds up. The last
layer of a block sees it: its target is then not its own dense output, but what brings the sum to
the dense sum, (s_dense - s) / gain, with the gain of a BatchNormalization on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.nodes import STANDARD, attributes
from onnx_relief.graph.sites import Site

_LEAST = 0.05
"""A unit whose gain is below this share of the layer's typical one keeps its own target."""


@dataclass(frozen=True, eq=False)
class Join:
    """A sum of a layer's outputs and another branch.

    Attributes:
        tensor: The sum.
        gain: By unit, what an output is multiplied with before it is added; 0 where too little.
    """

    tensor: str
    gain: NDArray[np.float64]


def join_after(survey: Survey, site: Site, depth: Mapping[str, int]) -> Join | None:
    """Return the sum that a convolution goes into, if the other branch comes before the layer.

    Args:
        survey: The pruned model.
        site: The layer.
        depth: Layers before each tensor, one after another.
    """
    if site.layer.geometry is None:
        return None
    name, gain = site.output, np.ones(site.layer.units)
    node = _only_reader(site, name)
    if node is not None and node.op_type == "BatchNormalization":
        found = _gain(survey, site, node)
        if found is None:
            return None
        name, gain = node.output[0], found
        node = _only_reader(site, name)
    if node is None or node.op_type != "Add" or len(set(node.input)) != 2:
        return None
    other = node.input[1] if node.input[0] == name else node.input[0]
    if other not in depth or depth[other] >= depth[site.output]:
        return None
    least = _LEAST * float(np.median(np.abs(gain)))
    return Join(node.output[0], np.where(np.abs(gain) > least, gain, 0.0))


def _only_reader(site: Site, name: str) -> onnx.NodeProto | None:
    uses = site.scope.uses.get(name, [])
    if len(uses) != 1 or uses[0].scope is not site.scope or uses[0].node is None:
        return None
    return uses[0].node if uses[0].node.domain in STANDARD else None


def _gain(survey: Survey, site: Site, node: onnx.NodeProto) -> NDArray[np.float64] | None:
    settings = attributes(node)
    if len(node.input) < 5 or node.input[0] != site.output or settings.get("training_mode"):
        return None
    scale, variance = (survey.constants.array(site.scope, node.input[at]) for at in (1, 4))
    if scale is None or variance is None or scale.size != site.layer.units:
        return None
    wide = variance.astype(np.float64) + float(settings.get("epsilon", 1e-5))
    return np.asarray(scale.astype(np.float64) / np.sqrt(wide))
