"""How many channels go, and in which multiples: what a budget in weights, work or time comes to.

A budget is a share of the channels, or a target that the smallest such share is searched for.
Widths that a runtime does not like can make a smaller model slower, so multiples are decided by
measuring: the coarsest that no finer one beats, since units whose loss brings no time had better
stay. A multiple gives way to a finer one if it loses far more, as where kinds have few channels, or
if it cuts far more than a target asks for, or far less than a share of the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channels.budget import Choice, Decision, Stopwatch, Tried
from onnx_relief.channels.settings import DEFAULT_RATIO
from onnx_relief.report.text import two_shares
from onnx_relief.selection.rounding import Rounding, roundings

MOST = 0.999
"""The largest ratio: of every kind only what has to stay does."""
_FINE = 1e-3
"""How finely a ratio is searched for a target in weights or work."""
_OFF = 0.01
"""By how much a target in weights or work may be overdone without a second look."""
_TRIES = 64
"""Models that are looked at to come closer to such a target: each is cut to be counted."""
_NOISE = 1.03
"""Latencies that differ by less are taken for equal."""
_DEAR = 1.5
"""Other runtimes may like coarse widths where this one does not: worth so many times the loss."""
_NEAR = 0.9
"""A multiple that leaves less than this part of what another leaves is too coarse."""
_HALF = 0.5
"""Of a share of the channels: one that cuts less than this part of what the finest cuts is."""
_CLOSE = 0.01
"""How finely a ratio is searched for a target in time."""
_STEPS = 6


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
        chosen = _for_latency(choice, chosen, settings.target_latency, watch)
    return replace(chosen, batch=watch.batch.count)


def _for_latency(choice: Choice, start: Decision, target: float, watch: Stopwatch) -> Decision:
    """Return what keeps most and still reaches a share of the latency.

    Finer multiples than the one to start with are tried as long as the coarser cut too much.
    """
    best: Decision | None = None
    for rounding in roundings(choice.settings.round_to):
        if rounding.multiple > start.multiple:
            continue
        found = _searched(choice, start, rounding, target, watch)
        if (
            best is None
            or (found.missed is None and _share(found) > _share(best))
            or (best.missed is not None and _share(found) < _share(best))
        ):
            best = found
        if best.missed is None and _share(best) >= _NEAR * target:
            break
    assert best is not None, "the multiple to start with is one of them"
    return best


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

    def left(gone: NDArray[np.bool_]) -> float:
        return choice.size(gone, where) / whole

    def at(ratio: float) -> Decision:
        found = _decision(choice, ratio, rounding)
        return replace(found, left=left(found.gone))

    least = at(MOST)
    if _left(least) > share:
        missed = None
        if settings.target_latency is None:
            reached, asked = two_shares(_left(least), share)
            missed = (
                f"{choice.survey.document.name} can be cut to {reached} at most, not to {asked}; "
                "let more stay, or take a lower --min-units or --round-to"
            )
        return replace(least, missed=missed)
    too_large, found = _around(at, share, least)
    exact = settings.target_latency is None and settings.scope == "global"
    if exact and _left(found) < share * (1 - _OFF):
        return _closer(choice, too_large, found, rounding, share, left)
    return found


def _around(
    at: Callable[[float], Decision], share: float, most: Decision
) -> tuple[Decision | None, Decision]:
    """Return what the smallest ratio leaves that reaches a share, to a thousandth; `most` does.

    Before it, what the next smaller ratio leaves, None for nothing tried.
    """
    low, high = None, most
    while high.ratio - (low.ratio if low else 0.0) > _FINE:
        middle = at((high.ratio + (low.ratio if low else 0.0)) / 2)
        low, high = (low, middle) if _left(middle) <= share else (middle, high)
    return low, high


def _closer(
    choice: Choice,
    too_large: Decision | None,
    found: Decision,
    rounding: Rounding,
    share: float,
    left: Callable[[NDArray[np.bool_]], float],
) -> Decision:
    """Return what comes closer to a target than any ratio does, if channels add up to it.

    Where one channel is a large part of a model, the next ratio cuts far more than is asked for:
    then a few channels elsewhere go instead of it.
    """
    gone = too_large.gone if too_large else np.zeros_like(found.gone)
    tries = _TRIES
    while tries:
        for more in choice.barer(gone, rounding):
            size = left(more)
            tries -= 1
            if _left(found) < size <= share:
                found = replace(found, gone=more, left=size)
            if _left(found) >= share * (1 - _OFF):
                return found
            if size > share or not tries:
                gone = more
                break
        else:
            break
    return found


def _decision(choice: Choice, ratio: float, rounding: Rounding) -> Decision:
    return Decision(gone=choice.gone(ratio, rounding), ratio=ratio, multiple=rounding.multiple)


def _fastest(choice: Choice, options: Sequence[Decision], watch: Stopwatch) -> Decision:
    """Return the coarsest way to round that no other beats in time, nor by far in what is lost."""
    different = [
        one
        for place, one in enumerate(options)
        if not any(np.array_equal(one.gone, coarser.gone) for coarser in options[:place])
    ]
    reached = [one for one in different if one.missed is None]
    if not reached and choice.settings.target_latency is None:
        return min(different, key=_left)
    near = _near(reached or different)
    overdone = tuple(
        one.left
        for one in reached
        if one.left is not None and all(one is not other for other in near)
    )
    near = [replace(one, overdone=overdone) for one in near]
    if len(near) == 1:
        return near[0]
    models = [choice.model(one.gone) for one in near]
    times = watch.milliseconds(models, "trying multiples of channels")
    tried = tuple(
        Tried(multiple=one.multiple, ratio=one.ratio, milliseconds=time)
        for one, time in zip(near, times, strict=True)
    )
    fast = [place for place, time in enumerate(times) if time <= _NOISE * min(times)]
    losses = [choice.lost(near[place].gone) for place in fast]
    even = (place for place, loss in zip(fast, losses, strict=True) if loss <= _DEAR * min(losses))
    chosen = next(even)
    return replace(near[chosen], tried=tried)


def _near(options: Sequence[Decision]) -> list[Decision]:
    """Return what comes close to a target; of a share of the channels, to what the finest cuts."""
    most = max((one.left for one in options if one.left is not None), default=0.0)
    cut = max(int(one.gone.sum()) for one in options)
    return [
        one
        for one in options
        if (one.gone.sum() >= _HALF * cut if one.left is None else one.left >= _NEAR * most)
    ]


def _searched(
    choice: Choice, start: Decision, rounding: Rounding, target: float, watch: Stopwatch
) -> Decision:
    """Return the least that has to go for a share of the latency, as far as it can be measured."""

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


def _left(found: Decision) -> float:
    return 1.0 if found.left is None else found.left


def _share(found: Decision) -> float:
    return 1.0 if found.latency is None else found.latency


def _missed(choice: Choice, found: Decision, target: float) -> str:
    share, asked = two_shares(_share(found), target)
    return (
        f"{choice.survey.document.name} was measured at {share} of its latency at "
        f"best, not at {asked}; ask for less speed, or for a lower --min-units or --round-to"
    )
