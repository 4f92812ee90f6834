"""Cut a share of all channels, whatever they are worth, and compare with zeros in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.channels import RULES, Groups, Trace, cut, leave_one, trace_channels
from onnx_relief.graph.channels.coupled import coupled
from onnx_relief.graph.cost import count_parameters
from onnx_relief.graph.document import Document, check
from onnx_relief.graph.layers import find_layers, uniquely_named
from onnx_relief.graph.orphans import drop_orphans
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import TensorHome
from onnx_relief.measuring.observe import observe
from onnx_relief.runtime import open_session

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Cut:
    """A model without some of its channels.

    Attributes:
        document: The model that was cut, its names unique.
        trace: Its channels.
        groups: Which of them belong together.
        gone: Which groups went, by root.
        smaller: The model without them.
        could: Which groups could go.
        alone: Kinds of channels of which there is one group, that has to stay.
    """

    document: Document
    trace: Trace
    groups: Groups
    gone: NDArray[np.bool_]
    smaller: Document
    could: NDArray[np.bool_]
    alone: int

    @property
    def total(self) -> int:
        """How many groups could go."""
        return int(self.could.sum())

    def masked(self) -> Document:
        """Return the model with zeros where it was cut."""
        return masked(self.document, self.trace, self.groups, self.gone)


def cut_share(document: Document, feed: Feed, ratio: float, *, heads: bool = False) -> Cut:
    """Cut a share of the groups that live in the same axes, the first ones.

    Args:
        document: The model.
        feed: Inputs of the right shapes.
        ratio: The share.
        heads: Cut only what Reshape splits off as an outer axis: whole heads.
    """
    survey, _ = uniquely_named(find_layers(document))
    document = survey.document
    trace, groups = trace_channels(survey.model, observe(survey, feed), RULES, outer=heads)
    kinds = coupled(trace, groups)
    gone, could = np.zeros((2, trace.pool.size), dtype=bool)
    split_off = [groups.of(trace.of(n)).reshape(-1) for n, outer in trace.splits.items() if outer]
    allowed = np.unique(np.concatenate([np.zeros(0, np.int64), *split_off]))
    for kind in kinds:
        count = min(int(len(kind.roots) * ratio + 0.5), len(kind.roots) - 1)
        if not heads or np.isin(kind.roots, allowed).all():
            gone[kind.roots[:count]] = True
            could[kind.roots] = True
    gone = leave_one(trace, groups, gone)
    smaller = drop_orphans(cut(document, trace, groups, gone), document)
    check(smaller)
    alone = sum(len(kind.roots) == 1 for kind in kinds)
    return Cut(document, trace, groups, gone, smaller, could, alone)


def half_of_every_axis(whole: Cut) -> float:
    """Return the share of the parameters that is left if half of what could go does, exactly.

    A weight between two layers keeps a quarter then; one that channels run along one axis of, as
    biases, normalisation, depthwise kernels and layers that make outputs, a half.
    """
    constants = Constants(whole.document)
    kept: dict[TensorHome, dict[int, float]] = {}
    for member in whole.trace.members:
        share = whole.could[whole.groups.of(member.ids)].mean()
        home = whole.trace.whole.home(member.constant)
        kept.setdefault(home, {})[member.axis] = 1 - float(share) / 2
    total = count_parameters(find_layers(whole.document))[0]
    lost = sum(
        np.prod(constants.shape_and_type(home)[0]) * (1 - np.prod(list(axes.values())))
        for home, axes in kept.items()
        if constants.shape_and_type(home)[1].kind == "f"
    )
    return 1 - float(lost) / max(1, total)


def masked(document: Document, trace: Trace, groups: Groups, gone: NDArray[np.bool_]) -> Document:
    """Return the document with zeros wherever constants belong to channels that go."""
    constants = Constants(document)
    values: dict[TensorHome, NDArray[np.generic]] = {}
    for member in trace.members:
        lost = gone[groups.of(member.ids)]
        if lost.any():
            home = trace.whole.home(member.constant)
            array = values.setdefault(home, np.array(constants.stored(home)))
            array[(slice(None),) * member.axis + (lost,)] = 0
    return write_constants(document, values)


def difference(first: Document, second: Document, feed: Feed, *, optimised: bool = True) -> float:
    """Return the largest difference of an output in ONNX Runtime, as `largest_gap` has it."""
    one = open_session(first, provider="cpu").run(feed)
    return largest_gap(one, open_session(second, provider="cpu", optimised=optimised).run(feed))


def largest_gap(one: Mapping[str, object], other: Mapping[str, object]) -> float:
    """Return the largest difference of an output relative to its largest element."""
    worst = 0.0
    for name, expected in one.items():
        found = other[name]
        if not isinstance(expected, np.ndarray) or not isinstance(found, np.ndarray):
            continue
        if expected.dtype.kind == "f" and expected.size:
            if expected.shape != found.shape:
                return float("inf")
            gap = np.abs(expected.astype(np.float64) - found).max()
            worst = max(worst, float(gap / max(1e-9, np.abs(expected).max())))
    return worst
