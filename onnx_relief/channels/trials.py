"""Models that lack some of one kind of channels, to see what the model loses by that kind alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channels.pruning import Ranked, rank_channels
from onnx_relief.data import Dataset
from onnx_relief.graph.channels import leave_one
from onnx_relief.graph.channels.ids import Ids
from onnx_relief.graph.channels.recurrent import GATES
from onnx_relief.graph.document import Document
from onnx_relief.graph.sites import Site
from onnx_relief.report.text import plural
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
    names = _named(ranked)
    return ChannelTrials(ranked=ranked, kinds=dict(zip(names, ranked.kinds.values(), strict=True)))


def _made_by(ranked: Ranked, site: Site) -> Ids | None:
    """Return the channels that a layer makes; a recurrent one has a unit for every gate of each."""
    made = (ranked.trace.ids.get(name) for name in site.node.output if name)
    ids = next((found for found in made if found is not None), None)
    recurrent = site.layer.op in GATES
    return ids if ids is not None and (recurrent or ids.size == site.layer.units) else None


def _named(ranked: Ranked) -> list[str]:
    """Return a name for every kind: the layers whose units they are, or else a constant."""
    makers = {
        site.layer.name: ranked.groups.of(ids)
        for site in ranked.survey.sites
        if (ids := _made_by(ranked, site)) is not None
    }
    names: list[str] = []
    for places, roots in ranked.kinds.items():
        assert isinstance(places, tuple)
        made = [name for name, units in makers.items() if np.isin(units, roots).any()]
        constant, axis = places[0]
        name = f"units of {made[0]}" if made else f"{constant} axis {axis}"
        if len(made) > 1:
            name += f" and {plural(len(made) - 1, 'layer')} more"
        number = 1
        while (unique := name if number == 1 else f"{name} #{number}") in names:
            number += 1
        names.append(unique)
    return names
