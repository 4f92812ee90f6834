"""Let one constant channel stand for several: past zero padding, where no bias can take them over.

A convolution reads the channels i of the constants c_i through the kernels K_i. Whatever its
padding, sum_i K_i * c_i = (sum_i K_i c_i / c_r) * c_r, so that one of them, r, is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.channels.ids import Groups, Ids
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.sites import Site
from onnx_relief.graph.walk import TensorHome

Floats = NDArray[np.float64]


def with_merged_constants(
    survey: Survey,
    trace: Trace,
    groups: Groups,
    alike: Sequence[Ids],
    constants: Mapping[str, Floats],
    uneven: Collection[int],
) -> tuple[Document, int]:
    """Return a copy in which one channel of each kind stands for the others, and for how many.

    The kernels that read these others are zero then, so that nothing reads them any more.

    Args:
        survey: The model; it is not changed.
        trace: Its ids.
        groups: Which belong together.
        alike: Constant groups of which only their number is needed; those of the same axes.
        constants: By tensor, the number that each of its channels is; 0 where that is not known.
        uneven: Nodes whose bias cannot take over a constant.
    """
    sites = {site.node.output[0]: site for site in survey.sites}
    reads = [
        _Place(groups.of(read.ids), constants.get(read.tensor), site)
        for read in trace.reads
        if read.node in uneven
        for site in [sites.get(trace.whole.nodes[read.node].output[0])]
    ]
    values: dict[TensorHome, NDArray[Any]] = {}
    count = 0
    for kind in alike:
        places = [place for place in reads if place.brings(kind)]
        if places and all(_can_merge(trace, place, kind) for place in places):
            count += _merge(survey, places, kind, values)
    return (write_constants(survey.document, values), count) if count else (survey.document, 0)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where constants are read: groups and numbers of its channels, and the layer."""

    roots: Ids
    values: Floats | None
    site: Site | None

    def brings(self, kind: Ids) -> bool:
        """Whether one of these groups is another number than 0 here."""
        return self.values is not None and bool(self.values[np.isin(self.roots, kind)].any())


def _can_merge(trace: Trace, place: _Place, kind: Ids) -> bool:
    """Whether each group is one channel here, of a layer whose kernels are its own."""
    site = place.site
    if site is None or place.values is None or site.layer.op not in ("Conv", "ConvTranspose"):
        return False
    view = site.parts[0].view
    plain = not view.steps and view.dtype.kind == "f" and site.layer.weights[0].groups == 1
    alone = len(trace.whole.uses.get(view.home.name, ())) == 1
    once = np.isin(place.roots, kind).sum() == kind.size
    return plain and alone and bool(once) and place.values.size == place.roots.size


def _merge(
    survey: Survey, places: Sequence[_Place], kind: Ids, values: dict[TensorHome, NDArray[Any]]
) -> int:
    numbers = np.array([_in_order(place, kind)[1] for place in places])
    least = np.abs(numbers).min(axis=0)
    one = int(least.argmax())
    if least[one] == 0:
        return 0  # none of them is a constant other than 0 everywhere
    for place, given in zip(places, numbers, strict=True):
        assert place.site is not None
        view = place.site.parts[0].view
        axis = 1 if place.site.layer.op == "Conv" else 0
        old = values.get(view.home)
        wide = np.asarray(survey.constants.values(view) if old is None else old, np.float64)
        kernels = np.moveaxis(wide.copy(), axis, 0)
        at, _ = _in_order(place, kind)
        kernels[at[one]] = np.tensordot(given / given[one], kernels[at], axes=1)
        kernels[np.delete(at, one)] = 0
        values[view.home] = np.moveaxis(kernels, 0, axis)
    return kind.size - 1


def _in_order(place: _Place, kind: Ids) -> tuple[Ids, Floats]:
    """Return where the groups of a kind are read, and the numbers that they are there."""
    at = np.flatnonzero(np.isin(place.roots, kind))
    at = at[np.argsort(place.roots[at])]
    assert place.values is not None
    return at, place.values[at]
