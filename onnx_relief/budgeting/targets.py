"""From a budget in the user's unit to a pruned model: what can be counted is spent, else sought.

Weights and multiply-accumulates are counted beforehand. The size of a zip and the drop of a metric
are only known of a finished model, so they are looked for between keeping all and nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from onnx_relief.budget import Budget
from onnx_relief.budgeting.fields import Choice, Field
from onnx_relief.budgeting.spending import Fields, Priced, choose, cover, plan_of, priced, written
from onnx_relief.data import Dataset
from onnx_relief.graph.cost import count_parameters, zipped_bytes
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.origin import note_dense
from onnx_relief.graph.walk import TensorHome
from onnx_relief.measuring.positions import positions_on_data
from onnx_relief.plan import PrunePlan
from onnx_relief.progress import ticker
from onnx_relief.report.text import two_shares
from onnx_relief.results import Progress
from onnx_relief.settings import Settings

_TRIES = 8
_REPAIRED = 6
"""Finished models after which no nearer one is sought."""
_CORRECTED = 3
"""How often more is asked for where a budget is not spent."""
_CLOSE = 0.01
"""How near to a size a repaired model has to come where another try may come nearer."""
_NEAR = 0.005
"""How near to a size the search stops, relative to it."""
_LEAST = 0.002
"""Share of the weights that is always kept while searching."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Chosen:
    """A model pruned to a budget.

    Attributes:
        document: The model.
        plan: What it keeps.
        missed: What was asked and not reached, in words; None where all is well.
    """

    document: Document
    plan: PrunePlan
    missed: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged:
    """How a finished model is judged for ``--max-drop``.

    Attributes:
        finish: Repairs a model, given its plan.
        drop: Points of the metric that a model loses.
    """

    finish: Callable[[Document, PrunePlan], Document]
    drop: Callable[[Document], float]


AS_IT_IS: Final = Judged(finish=lambda document, _plan: document, drop=lambda _document: 0.0)


def prune_to(
    fields: Fields,
    calibration: Dataset,
    settings: Settings,
    *,
    judged: Judged,
    prices: Priced | None = None,
    progress: Progress | None = None,
) -> Chosen:
    """Return the model that the settings' budget allows, repaired.

    Args:
        fields: The layers and what is known of them.
        calibration: Sample data.
        settings: The budget, and how it is spread.
        judged: How a finished model is repaired and judged.
        prices: What the layers' losses are worth, where that is known already.
        progress: Told how far the work has come.

    Raises:
        DataError, ModelError: The model cannot be run on the data.
    """
    budget = settings.budget
    if budget.name is None and not settings.has_exact_share:
        return _finished(fields, cover(fields, settings), judged)
    prices = prices or priced(fields, calibration, settings, progress=progress)

    def at(share: float) -> dict[Field, Choice]:
        return choose(prices, share * prices.whole, settings, progress=progress)

    if budget.target_bytes is not None:
        return _to_bytes(fields, budget.target_bytes, at, judged)
    if budget.max_drop is not None:
        return _to_drop(fields, budget.max_drop, at, judged, progress)
    if budget.target_macs is not None:
        positions = _all_positions(fields, calibration, settings.provider)
        return _to_macs(prices, budget.target_macs, positions, settings, judged, progress)
    wanted = _weights_left(prices, budget)
    found = _to_weights(prices, wanted, settings, judged, progress)
    if budget.target_params is None or found.missed is not None:
        return found
    allowed = budget.target_params * count_parameters(fields.survey)[0]
    added = count_parameters(find_layers(found.document))[1] - allowed
    if added <= _CLOSE * allowed:
        return found
    # Biases that a repair gives to layers without one are many beside the weights of a small model.
    return _to_weights(prices, wanted - added, settings, judged, progress)


def _to_weights(
    prices: Priced, wanted: float, settings: Settings, judged: Judged, progress: Progress | None
) -> Chosen:
    """Return the finished model with so many weights left of those that may go."""
    choices, kept = _spent(prices, wanted, settings, lambda _: 1.0, progress)
    missed = None
    if kept > wanted * 1.01 + 1 and not settings.has_exact_share:
        missed = f"{settings.budget} is not reached: {_what_stays(prices, kept, settings.budget)}"
    return _finished(prices.fields, choices, judged, missed)


def _spent(
    prices: Priced,
    wanted: float,
    settings: Settings,
    weigh: Callable[[Field], float],
    progress: Progress | None,
) -> tuple[dict[Field, Choice], float]:
    """Return choices that keep about as much as is wanted, and how much they keep.

    Blocks cost their whole size, but zeros that are in them already are free. How many these are is
    seen of a choice alone, and then more is asked for.
    """

    def tried(budget: float) -> tuple[dict[Field, Choice], float, float]:
        choices = choose(prices, budget, settings, weigh=weigh, progress=progress)
        kept = sum(_kept(choice, field) * weigh(field) for field, choice in choices.items())
        paid = sum(_paid(choice, field) * weigh(field) for field, choice in choices.items())
        return choices, kept, paid - kept

    choices, kept, free = tried(wanted)
    low, high = wanted, 0.0
    for _ in range(_CORRECTED):
        if kept <= 0 or kept >= wanted * (1 - _CLOSE) or free <= _CLOSE * wanted:
            break
        # What is kept grows with what is asked for, but where blocks are large it does so in steps.
        asked = (low + high) / 2 if high else low / kept * wanted * (1 - _NEAR)
        more, size, left = tried(asked)
        if size > wanted:
            high = asked
        elif size > kept or high:
            choices, kept, free, low = more, size, left, asked
        else:
            break  # there is no more to keep
    return choices, kept


def _what_stays(prices: Priced, kept: float, budget: Budget) -> str:
    """Return in words what keeps a target from being reached."""
    if budget.target_params is None:
        return f"{kept:,.0f} of the {prices.whole:,.0f} weights that may go have to stay"
    total, _ = count_parameters(prices.fields.survey)
    left, _ = two_shares((_left_alone(prices.fields) + kept) / total, budget.target_params)
    return (
        f"{left} of the parameters have to stay, since of {total:,} only {prices.whole:,.0f} are "
        f"weights that may go, and {kept:,.0f} of these keep units or outputs from being cut off"
    )


def _weights_left(prices: Priced, budget: Budget) -> float:
    """Return how many weights may be left of those that may go."""
    if budget.sparsity is not None:
        return round((1 - budget.sparsity) * prices.whole)
    if budget.target_params is not None:
        total, _ = count_parameters(prices.fields.survey)
        return budget.target_params * total - _left_alone(prices.fields)
    return prices.whole


def _left_alone(fields: Fields) -> int:
    """Return how many parameters are left alone and are not zero."""
    _, nonzero = count_parameters(fields.survey)
    return nonzero - sum(int(np.count_nonzero(field.rows())) for field in fields.fields)


def _all_positions(fields: Fields, calibration: Dataset, provider: str) -> Mapping[str, float]:
    """Return how often layers are applied, those that are left alone with what one sample shows."""
    if all(layer.name in fields.positions for layer in fields.survey.layers):
        return fields.positions
    others = positions_on_data(fields.survey, calibration, provider).by_layer
    return {**others, **fields.positions}


def _to_macs(
    prices: Priced,
    share: float,
    positions: Mapping[str, float],
    settings: Settings,
    judged: Judged,
    progress: Progress | None,
) -> Chosen:
    fields = prices.fields
    may_go = {field.site.parts[field.part].view.home for field in fields.fields}
    applied: defaultdict[TensorHome, float] = defaultdict(float)
    total = stays = 0.0
    for site in fields.survey.sites:
        times = positions.get(site.layer.name, 0.0)
        total += site.layer.connections * site.layer.taps * times
        for part in site.parts:
            applied[part.view.home] += times  # a weight that several layers share costs in each
            if part.view.home not in may_go:
                stays += np.count_nonzero(fields.survey.rows(part)) * times

    def weigh(field: Field) -> float:
        return max(applied[field.site.parts[field.part].view.home], 1e-9)

    wanted = share * total - stays
    choices, kept = _spent(prices, wanted, settings, weigh, progress)
    missed = None
    if kept > wanted * 1.01:
        left, _ = two_shares((kept + stays) / total, share)
        missed = f"--target-macs {share} is not reached: {left} of them have to stay"
    return _finished(fields, choices, judged, missed)


def _to_bytes(
    fields: Fields, target: int, at: Callable[[float], dict[Field, Choice]], judged: Judged
) -> Chosen:
    """Return the finished model of the size: a repair makes the masked one larger, or smaller."""
    best: Chosen | None = None
    fits, wanted, above = (0.0, 0.0), target, (0.0, 0.0)
    for _ in range(_REPAIRED):
        choices, masked = _of_size(fields, wanted, at)
        found = _finished(fields, choices, judged)
        size = _size(found.document, found.plan, fields.survey.document)
        if size <= target:
            best, fits = found, (wanted, size)
        else:
            above = (wanted, size)
        is_least = size > target and masked > wanted
        is_all = not any(above) and masked * (1 - _CLOSE) <= size
        if is_least or is_all or fits[1] >= target * (1 - _CLOSE):
            break
        # The size of a repaired model grows with what is asked of the masked one.
        slope = (above[0] - fits[0]) / (above[1] - fits[1])
        wanted = int(fits[0] + slope * (target * (1 - _NEAR) - fits[1]))
    if best is not None:
        return best
    said = "have to stay" if is_least else "are left once it is repaired; try --repair none"
    missed = f"--target-bytes {target} is not reached: {size} bytes, zipped, {said}"
    return replace(found, missed=missed)


def _of_size(
    fields: Fields, target: int, at: Callable[[float], dict[Field, Choice]]
) -> tuple[dict[Field, Choice], int]:
    """Seek the share whose zipped file has the size, which grows nearly in a straight line.

    Returns:
        The choices and their size, which is larger where these are the least that can be kept.
    """

    def size(share: float) -> tuple[int, dict[Field, Choice]]:
        choices = at(share)
        made, plan = written(fields, choices), plan_of(fields, choices)
        return _size(made, plan, fields.survey.document), choices

    whole = zipped_bytes(fields.survey.document)
    if whole <= target:
        return at(1.0), whole
    low, high = _LEAST, 1.0
    small, choices = size(low)
    if small > target:
        return choices, small
    below, above, best = small, whole, choices
    for _ in range(_TRIES):
        if below >= target * (1 - _NEAR):
            break
        share = low + (high - low) * (target - below) / max(above - below, 1)
        share = min(max(share, low + 0.02 * (high - low)), high - 0.02 * (high - low))
        found, choices = size(share)
        if found <= target:
            low, below, best = share, found, choices
        else:
            high, above = share, found
    return best, below


def _size(document: Document, plan: PrunePlan, dense: Document) -> int:
    """Return the size, zipped, of the files of a pruned model, with the note of the dense one."""
    return zipped_bytes(document if plan.drops_nothing else note_dense(document, dense))


def _to_drop(
    fields: Fields,
    most: float,
    at: Callable[[float], dict[Field, Choice]],
    judged: Judged,
    progress: Progress | None,
) -> Chosen:
    """Seek the smallest share whose finished model loses no more than `most` points."""
    tick = ticker(progress, "looking for the smallest model", _TRIES)
    low, high = _LEAST, 1.0
    best = _finished(fields, at(1.0), judged)
    lost = judged.drop(best.document)
    if lost > most:
        missed = f"--max-drop {most} is not reached: the model loses {lost:.2f} points unpruned"
        return replace(best, missed=missed)
    for _ in range(_TRIES):
        share = (low + high) / 2
        found = _finished(fields, at(share), judged)
        if judged.drop(found.document) <= most:
            high, best = share, found
        else:
            low = share
        tick(1)
    return best


def _finished(
    fields: Fields, choices: dict[Field, Choice], judged: Judged, missed: str | None = None
) -> Chosen:
    plan = plan_of(fields, choices)
    return Chosen(document=judged.finish(written(fields, choices), plan), plan=plan, missed=missed)


def _paid(choice: Choice, field: Field) -> float:
    """Return how many weights the blocks hold of which a choice keeps something."""
    keep = np.broadcast_to(choice.keep, field.shape).astype(np.float32)
    return float((field.structure.pooled(keep) > 0).sum() * field.weights_per_block)


def _kept(choice: Choice, field: Field) -> float:
    """Return how many weights a choice keeps that are not zero."""
    rows = field.rows() if choice.weights is None else choice.weights
    return float(((rows != 0) & choice.keep).sum())
