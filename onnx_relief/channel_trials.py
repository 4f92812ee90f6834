"""Models that lack some of one kind of channels, to see what the model loses by that kind alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channel_pruning import Ranked, rank_channels
from onnx_relief.data import Dataset
from onnx_relief.graph.channels import leave_one
from onnx_relief.graph.document import Document
from onnx_relief.results import Progress
from onnx_relief.selection.groups import drop_by_layer
from onnx_relief.settings import Settings


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelTrials:
    """A model's kinds of channels, ready to be cut one by one.

    Attributes:
        ranked: Its channels, and what they are worth.
        kinds: By name, roots of the groups that live in the same axes.
    """

    ranked: Ranked
    kinds: Mapping[str, NDArray[np.int64]]

    def without(self, name: str, share: float) -> tuple[Document, float]:
        """Return the model without a share of one kind, and the share of it that really stays.

        The lowest scores go; biases make up for the mean signal that goes with them.
        """
        ranked, roots = self.ranked, self.kinds[name]
        dropped = drop_by_layer({name: ranked.worth.scores[roots]}, share)[name]
        gone = np.zeros(ranked.trace.pool.size, dtype=bool)
        gone[roots[dropped]] = True
        gone = leave_one(ranked.trace, ranked.groups, gone)
        if not gone.any():
            return ranked.survey.document, 1.0
        smaller, _ = ranked.without(gone, mean=True)
        return smaller, float(1 - gone[roots].mean())


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
    ranked = rank_channels(document, calibration, settings, progress=progress)
    sizes = {
        part.view.home.name: part.view.size for site in ranked.survey.sites for part in site.parts
    }
    names = _named(ranked.kinds, sizes)
    return ChannelTrials(ranked=ranked, kinds=dict(zip(names, ranked.kinds.values(), strict=True)))


def _named(kinds: Iterable[object], sizes: Mapping[str, int]) -> list[str]:
    """Return a name for every kind: the largest weight that the channels run through."""
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
