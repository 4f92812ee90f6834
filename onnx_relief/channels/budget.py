"""What decides which channels go: the choice there is, how it is timed, and what comes of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.channels.worth import FREE, Worth, group_prices
from onnx_relief.comparing.latency import measure_latency
from onnx_relief.data.batch import Batch
from onnx_relief.graph.channels import Groups, Trace, cut, leave_one
from onnx_relief.graph.cost import layer_costs
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.orphans import drop_orphans
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.selection.groups import drop_by_layer, drop_globally
from onnx_relief.selection.rounding import Rounding

_SECONDS = 1.0
"""How long one model is timed, about."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice:
    """Everything that decides which groups go but the ratio and the multiples.

    Attributes:
        survey: The dense model.
        trace: Its channels.
        groups: Which live or die together.
        kinds: Roots of the groups that live in the same axes.
        worth: What they are worth.
        positions: How often each layer's weights are applied per sample.
        settings: What the user chose.
    """

    survey: Survey
    trace: Trace
    groups: Groups
    kinds: Mapping[object, NDArray[np.int64]]
    worth: Worth
    positions: Mapping[str, float]
    settings: ChannelSettings

    def gone(self, ratio: float, rounding: Rounding) -> NDArray[np.bool_]:
        """Return which groups go, by root."""
        scores = {kind: self.worth.scores[roots] for kind, roots in self._counting.items()}
        steps, least = self._steps(rounding), self.settings.least
        if self.settings.scope == "layer":
            dropped = drop_by_layer(scores, ratio, steps=steps, least=least)
        else:
            prices, losses = self._prices, self.worth.losses
            dropped = drop_globally(scores, losses, prices, ratio, steps=steps, least=least)
        found = np.zeros(self.trace.pool.size, dtype=bool)
        for kind, roots in self._counting.items():
            found[roots[dropped[kind]]] = True
        return leave_one(self.trace, self.groups, found)

    def barer(self, gone: NDArray[np.bool_], rounding: Rounding) -> list[NDArray[np.bool_]]:
        """Return what goes when one kind gives as little more as it can.

        What loses least for what it brings comes first.
        """
        steps, options = self._steps(rounding), []
        for place, (kind, roots) in enumerate(self._counting.items()):
            here = roots[~gone[roots]]
            taken = len(here) % steps[kind] or steps[kind]
            if len(here) - taken < max(self.settings.least, 1):
                continue
            before, losses = len(roots) - len(here), self.worth.losses[kind]
            rate = (losses[before + taken] - losses[before]) / (taken * self._prices[kind])
            more = gone.copy()
            more[here[np.argsort(-self.worth.scores[here], kind="stable")[-taken:]]] = True
            options.append((rate, place, leave_one(self.trace, self.groups, more)))
        return [more for *_, more in sorted(options, key=lambda one: one[:2])]

    def model(self, gone: NDArray[np.bool_]) -> Document:
        """Return the model without the groups that go, as fast as it will be."""
        document = self.survey.document
        return drop_orphans(cut(document, self.trace, self.groups, gone), document)

    def size(self, gone: NDArray[np.bool_], positions: Mapping[str, float] | None) -> float:
        """Return how many weights of layers are left, or how many multiply-accumulates."""
        smaller = cut(self.survey.document, self.trace, self.groups, gone)
        costs = layer_costs(find_layers(smaller), positions or {})
        return sum((cost.macs or 0.0) if positions else cost.weights for cost in costs)

    def lost(self, gone: NDArray[np.bool_]) -> float:
        """Return what the model is expected to lose without some groups, as `Worth.losses`."""
        return float(
            sum(self.worth.losses[kind][gone[roots].sum()] for kind, roots in self.kinds.items())
        )

    @cached_property
    def _counting(self) -> Mapping[object, NDArray[np.int64]]:
        """Return the kinds that a target counts: without others it is not missed by less.

        Weights of an Einsum are no layer's. Time that is measured may hang on them all the same.
        """
        if self.settings.target_params is None and self.settings.target_macs is None:
            return self.kinds
        return {kind: roots for kind, roots in self.kinds.items() if self._prices[kind] > FREE}

    @cached_property
    def _prices(self) -> dict[object, float]:
        """Return what one group of each kind costs of the budget: weights, work, or 1."""
        settings = self.settings
        if settings.target_params is not None:
            return group_prices(self.survey, self.trace, self.groups, self.kinds, None)
        if settings.target_macs is not None or settings.target_latency is not None:
            return group_prices(self.survey, self.trace, self.groups, self.kinds, self.positions)
        return dict.fromkeys(self.kinds, 1.0)

    def _steps(self, rounding: Rounding) -> dict[object, int]:
        grouped = _grouped(self.survey)
        entries: dict[int, set[int]] = defaultdict(set)
        for member in self.trace.members:
            roots, counts = np.unique(self.groups.of(member.ids), return_counts=True)
            parts = grouped.get((member.constant, member.axis), 1)
            for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
                entries[root].add(max(1, count // parts))
        steps = {}
        for kind, roots in self.kinds.items():
            taken = set().union(*(entries[root] for root in roots.tolist()))
            steps[kind] = rounding.step(len(roots), sorted(taken))
        return steps


def _grouped(survey: Survey) -> dict[tuple[str, int], int]:
    """Return where the units of several groups lie on one axis, and how many groups."""
    return {
        (part.view.home.name, axis): weight.groups
        for site in survey.sites
        for part, weight in zip(site.parts, site.layer.weights, strict=True)
        for axis in (0, 1)
        if weight.groups > 1 and weight.inputs > 1  # else depthwise
    }


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One way to round, and how long the model takes that it leaves.

    Attributes:
        multiple: The multiple.
        ratio: The share of groups that goes with it.
        milliseconds: Latency; None where nothing had to be compared.
    """

    multiple: int
    ratio: float
    milliseconds: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Decision:
    """Which groups go, and how that was found.

    Attributes:
        gone: Whether a group goes, by root.
        ratio: The share that was asked for or found.
        multiple: Of how many channels a multiple stays.
        left: The share of weights or work that is left, where that was the target.
        tried: The ways to round that were measured.
        latency: What is left of the latency, where that was the target.
        batch: Samples per run wherever latency was measured.
        missed: What was not reached, in a sentence; None if there is nothing to complain.
        overdone: What coarser multiples would have left, too much less than was asked for.
    """

    gone: NDArray[np.bool_]
    ratio: float
    multiple: int
    left: float | None = None
    tried: tuple[Tried, ...] = ()
    latency: float | None = None
    batch: int | None = None
    missed: str | None = None
    overdone: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Stopwatch:
    """Times models in turns, on this machine.

    Attributes:
        batch: What every run gets.
        provider: As `open_session` takes it.
        threads: Threads; 0 for ONNX Runtime's own choice.
        progress: Told how far the work has come.
    """

    batch: Batch
    provider: str = "auto"
    threads: int = 1
    progress: Progress | None = None

    def milliseconds(self, documents: Sequence[Document], stage: str) -> list[float]:
        """Return how long a run of each model takes; they take turns in fresh sessions."""
        found = measure_latency(
            documents,
            self.batch.feed,
            samples=self.batch.count,
            provider=self.provider,
            threads=self.threads,
            seconds=_SECONDS * len(documents),
            tick=ticker(self.progress, stage, None),
        )
        return [timing.median for timing in found.timings]
