"""Models that lack some of one kind of channels, to see what the model loses by that kind alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channel_pruning import _kinds, _mean_inputs, _measured
from onnx_relief.channel_worth import Worth, worth_of
from onnx_relief.data import Dataset
from onnx_relief.errors import UnsupportedError
from onnx_relief.evaluation import first_sample
from onnx_relief.graph.channels import RULES, Groups, Trace, cut, leave_one, trace_channels
from onnx_relief.graph.channels.mean_signal import corrections, give_back
from onnx_relief.graph.document import Document
from onnx_relief.graph.folded import with_whole_weights
from onnx_relief.graph.inline import inlined
from onnx_relief.graph.layers import Survey, find_layers, uniquely_named
from onnx_relief.graph.orphans import drop_orphans
from onnx_relief.observe import observe
from onnx_relief.results import Progress
from onnx_relief.selection.groups import drop_by_layer
from onnx_relief.settings import Settings

_Place = tuple[str, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelTrials:
    """A model's kinds of channels, ready to be cut one by one.

    Attributes:
        survey: The dense model.
        trace: Its channels.
        groups: Which live or die together.
        kinds: By name, roots of the groups that live in the same axes.
        worth: What they are worth.
        means: The mean of every channel that a layer reads, by tensor.
    """

    survey: Survey
    trace: Trace
    groups: Groups
    kinds: Mapping[str, NDArray[np.int64]]
    worth: Worth
    means: Mapping[str, NDArray[np.float64]]

    def without(self, name: str, share: float) -> tuple[Document, float]:
        """Return the model without a share of one kind, and the share of it that really stays.

        The lowest scores go; biases make up for the mean signal that goes with them.
        """
        roots = self.kinds[name]
        dropped = drop_by_layer({name: self.worth.scores[roots]}, share)[name]
        gone = np.zeros(self.trace.pool.size, dtype=bool)
        gone[roots[dropped]] = True
        gone = leave_one(self.trace, self.groups, gone)
        document = self.survey.document
        if not gone.any():
            return document, 1.0
        changes = corrections(self.trace, self.groups, gone, self.survey, self.means)
        smaller = cut(give_back(document, self.trace, changes), self.trace, self.groups, gone)
        return drop_orphans(smaller, document), float(1 - gone[roots].mean())


def open_channels(
    document: Document,
    calibration: Dataset,
    settings: Settings,
    *,
    progress: Progress | None = None,
) -> ChannelTrials:
    """Return the kinds of channels of a model, and what the data shows of them.

    Raises:
        UnsupportedError: No channel can be followed from where it is made to where it is read.
        DataError, ModelError, SettingsError: As `prune`.
    """
    survey, _ = uniquely_named(find_layers(with_whole_weights(inlined(document))))
    settings.check_patterns(survey.layers)
    observed = observe(survey, first_sample(calibration).feed)
    trace, groups = trace_channels(survey.model, observed, RULES)
    kinds = _kinds(survey, trace, groups, settings)
    if not kinds:
        why = next(iter(groups.reasons.values()), "nothing in it makes channels")
        raise UnsupportedError(f"{document.name} has no channels that could go ({why})")
    measured = _measured(survey, calibration, settings, progress)
    worth = worth_of(
        survey,
        trace,
        groups,
        kinds,
        measured,
        calibration,
        settings,
        compare=False,
        progress=progress,
    )
    sizes = {name: int(np.prod(shape)) for name, shape in observed.shapes.items()}
    return ChannelTrials(
        survey=survey,
        trace=trace,
        groups=groups,
        kinds=dict(zip(_named(kinds, sizes), kinds.values(), strict=True)),
        worth=worth,
        means=_mean_inputs(survey.document, trace, calibration, settings),
    )


def _named(kinds: Iterable[object], sizes: Mapping[str, int]) -> list[str]:
    """Return a name for every kind: the largest constant that the channels run through."""
    names: list[str] = []
    for places in kinds:
        assert isinstance(places, tuple)
        constant, axis = max(places, key=lambda place: sizes.get(place[0], 0))
        others = len({name for name, _ in places}) - 1
        name = f"{constant} axis {axis}" + (f" and {others} more" if others else "")
        number = 1
        while (unique := name if number == 1 else f"{name} #{number}") in names:
            number += 1
        names.append(unique)
    return names
