"""Whether samples were too few for the second moments that criteria and repairs are made of."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_relief.activity.gram import PLACES
from onnx_relief.data.held_out import fitted_to
from onnx_relief.report.text import plain, plural
from onnx_relief.results import LayerCost, ModelCost
from onnx_relief.scoring.table import Need, criterion_named

_OF_REPAIR = ("least-squares", "reconstruct")


def about_few_samples(
    dense: ModelCost, samples: int, *, criterion: str, repair: str
) -> Iterator[str]:
    """Yield a sentence if layers have more inputs than they were seen to read at positions.

    Second moments of such inputs are singular: some mixtures of inputs were never seen, and what
    weights do to them is not known. They are shrunk (`onnx_relief.solving.support`), and more
    samples are better.

    Args:
        dense: The dense model, with how often every weight is applied per sample.
        samples: How many there were, those that are held out included; 0 if nothing was measured.
        criterion: What scored connections.
        repair: How the model was repaired.
    """
    users = []
    if criterion_named(criterion).need is Need.MATRIX:
        users.append(f"--criterion {criterion}")
    if repair in _OF_REPAIR:
        users.append(f"--repair {repair}")
    if not samples:  # a plan was replayed
        return
    count = fitted_to(samples)
    short = [layer for layer in dense.layers if _seen(layer, count) < _inputs(layer)]
    if not users or not short:
        return
    worst = max(short, key=lambda layer: _inputs(layer) / max(_seen(layer, count), 1))
    yield (
        f"{plural(samples, 'sample')} {'is' if samples == 1 else 'are'} few for "
        f"{' and '.join(users)}: {plural(len(short), 'layer')} of {len(dense.layers):,} "
        f"{'has' if len(short) == 1 else 'have'} more inputs than were seen together (most of all "
        f"{plain(worst.layer)}: {_inputs(worst):,} inputs, {_seen(worst, count):,.0f} times), "
        "where a strong ridge has to do; more samples are better"
    )


def _inputs(layer: LayerCost) -> int:
    """Return the weights of one unit."""
    return layer.weights // max(layer.units, 1)


def _seen(layer: LayerCost, samples: int) -> float:
    """Return how often the inputs of a unit were seen; endless where that is not known."""
    if layer.positions is None:
        return float("inf")
    convolves = layer.weights > layer.connections
    return (min(layer.positions, PLACES) if convolves else layer.positions) * samples
