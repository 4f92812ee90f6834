"""How many channels go, and in which multiples: what a budget in weights, work or time comes to.

A budget is a share of the channels, or a target that the smallest such share is searched for.
Widths that a runtime does not like can make a smaller model slower, so multiples are decided by
measuring: the coarsest that no finer one beats, since units whose loss brings no time had better
stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channel_settings import DEFAULT_RATIO, ChannelSettings
from onnx_relief.channel_worth import Worth, group_prices
from onnx_relief.data.batch import Batch
from onnx_relief.graph.channels import Groups, Trace, cut, leave_one
from onnx_relief.graph.cost import layer_costs
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.orphans import drop_orphans
from onnx_relief.latency import measure_latency
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.selection.groups import drop_by_layer, drop_globally
from onnx_relief.selection.rounding import Rounding, roundings

MOST = 0.999
"""The largest ratio: of every kind only what has to stay does."""
_FINE = 1e-3
"""How finely a ratio is searched for a target in weights or work."""
_NOISE = 1.03
"""Latencies that differ by less are taken for equal."""
_CLOSE = 0.01
"""How finely a ratio is searched for a target in time."""
_STEPS = 6
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
        scores = {kind: self.worth.scores[roots] for kind, roots in self.kinds.items()}
        steps, least = self._steps(rounding), self.settings.least
        if self.settings.scope == "layer":
            dropped = drop_by_layer(scores, ratio, steps=steps, least=least)
        else:
            prices, losses = self._prices, self.worth.losses
            dropped = drop_globally(scores, losses, prices, ratio, steps=steps, least=least)
        found = np.zeros(self.trace.pool.size, dtype=bool)
        for kind, roots in self.kinds.items():
            found[roots[dropped[kind]]] = True
        return leave_one(self.trace, self.groups, found)

    def model(self, gone: NDArray[np.bool_]) -> Document:
        """Return the model without the groups that go, as fast as it will be."""
        document = self.survey.document
        return drop_orphans(cut(document, self.trace, self.groups, gone), document)

    def size(self, gone: NDArray[np.bool_], positions: Mapping[str, float] | None) -> float:
        """Return how many weights of layers are left, or how many multiply-accumulates."""
        smaller = cut(self.survey.document, self.trace, self.groups, gone)
        costs = layer_costs(find_layers(smaller), positions or {})
        return sum((cost.macs or 0.0) if positions else cost.weights for cost in costs)

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
        tried: The ways to round that were measured.
        latency: What is left of the latency, where that was the target.
        missed: What was not reached, in a sentence; None if there is nothing to complain.
    """

    gone: NDArray[np.bool_]
    ratio: float
    multiple: int
    tried: tuple[Tried, ...] = ()
    latency: float | None = None
    missed: str | None = None


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


def decide(choice: Choice, watch: Stopwatch) -> Decision:
    """Return which groups go.

    Args:
        choice: What there is to choose from, and the budget.
        watch: How latency is measured.
    """
    settings = choice.settings
    options = [_fitted(choice, one) for one in roundings(settings.round_to)]
    chosen = options[0]
    if len(options) > 1:
        chosen = _fastest(choice, options, watch)
    if settings.target_latency is not None:
        return _for_latency(choice, chosen, settings.target_latency, watch)
    return chosen


def _fitted(choice: Choice, rounding: Rounding) -> Decision:
    """Return what goes with one way to round; a target in time is first taken for one in work."""
    settings = choice.settings
    work = settings.target_macs or settings.target_latency
    share = settings.target_params or work
    if share is None:
        ratio = DEFAULT_RATIO if settings.ratio is None else settings.ratio
        return _decision(choice, ratio, rounding)
    where = choice.positions if work is not None else None
    whole = choice.size(np.zeros(choice.trace.pool.size, dtype=bool), where)

    def left(ratio: float) -> float:
        return choice.size(choice.gone(ratio, rounding), where) / whole

    least = left(MOST)
    if least > share:
        missed = None
        if settings.target_latency is None:
            missed = (
                f"{choice.survey.document.name} can be cut to {least:.1%} at most, not to "
                f"{share:.1%}; ask for more, or for a lower --min-units or --round-to"
            )
        return replace(_decision(choice, MOST, rounding), missed=missed)
    return _decision(choice, _smallest(lambda ratio: left(ratio) <= share), rounding)


def _smallest(reaches: Callable[[float], bool]) -> float:
    """Return the smallest ratio that reaches something, to a thousandth; `MOST` does."""
    low, high = 0.0, MOST
    while high - low > _FINE:
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _decision(choice: Choice, ratio: float, rounding: Rounding) -> Decision:
    return Decision(gone=choice.gone(ratio, rounding), ratio=ratio, multiple=rounding.multiple)


def _fastest(choice: Choice, options: Sequence[Decision], watch: Stopwatch) -> Decision:
    """Return the coarsest way to round that no other beats by more than the noise."""
    different = [
        one
        for place, one in enumerate(options)
        if not any(np.array_equal(one.gone, coarser.gone) for coarser in options[:place])
    ]
    reaching = [one for one in different if one.missed is None] or different
    if len(reaching) == 1:
        return reaching[0]
    models = [choice.model(one.gone) for one in reaching]
    times = watch.milliseconds(models, "trying multiples of channels")
    tried = tuple(
        Tried(multiple=one.multiple, ratio=one.ratio, milliseconds=time)
        for one, time in zip(reaching, times, strict=True)
    )
    best = min(times)
    chosen = next(place for place, time in enumerate(times) if time <= _NOISE * best)
    return replace(reaching[chosen], tried=tried)


def _for_latency(choice: Choice, start: Decision, target: float, watch: Stopwatch) -> Decision:
    """Return the least that has to go for a share of the latency, as far as it can be measured."""
    rounding = next(
        one for one in roundings(choice.settings.round_to) if one.multiple == start.multiple
    )

    def at(ratio: float) -> Decision:
        found = replace(_decision(choice, ratio, rounding), tried=start.tried)
        dense, smaller = watch.milliseconds(
            [choice.survey.document, choice.model(found.gone)], "measuring latency"
        )
        return replace(found, latency=smaller / dense)

    most = at(MOST)
    if _share(most) > target:
        return replace(most, missed=_missed(choice, most, target))
    low, high, best = (0.0, 1.0), (MOST, _share(most)), most
    ratio = start.ratio
    for _ in range(_STEPS):
        found = at(min(max(ratio, low[0] + _CLOSE), high[0] - _CLOSE))
        if _share(found) <= target:
            high, best = (found.ratio, _share(found)), found
        else:
            low = (found.ratio, _share(found))
        if high[0] - low[0] <= 2 * _CLOSE:
            break
        ratio = _between(low, high, target)
    return _confirmed(at, best, target, choice)


def _between(low: tuple[float, float], high: tuple[float, float], target: float) -> float:
    """Return where a straight line meets the target, but never too close to what is known."""
    (left, slow), (right, fast) = low, high
    part = (slow - target) / (slow - fast) if slow > fast else 0.5
    return left + (right - left) * min(max(part, 0.15), 0.85)


def _confirmed(
    at: Callable[[float], Decision], best: Decision, target: float, choice: Choice
) -> Decision:
    """Return what reaches the target when it is measured again, with more cut where needed."""
    for _ in range(_STEPS):
        again = at(best.ratio)
        if _share(again) <= target:
            return again
        if best.ratio >= MOST:
            break
        best = replace(again, ratio=min(MOST, best.ratio + 2 * _CLOSE))
    return replace(again, missed=_missed(choice, again, target))


def _share(found: Decision) -> float:
    return 1.0 if found.latency is None else found.latency


def _missed(choice: Choice, found: Decision, target: float) -> str:
    return (
        f"{choice.survey.document.name} takes {_share(found):.1%} of its latency with all that "
        f"could go, not {target:.1%}; ask for less speed, or for a lower --min-units or --round-to"
    )
