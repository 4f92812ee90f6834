"""Which metric judges which output, where nobody said so, or whether what was said suits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnx_relief.comparing.metrics import (
    METRICS,
    are_directions,
    beside_dense,
    choices,
    classes_told,
    decisions,
    is_number,
    is_share,
    is_text,
    metric_named,
)
from onnx_relief.comparing.tally import Choice, Outputs, is_array
from onnx_relief.data import Batch
from onnx_relief.data.labels import output_of_labels
from onnx_relief.errors import ReliefError, SettingsError
from onnx_relief.tensors import is_float

_FEWEST = 2
_SHARES = 1e-3
"""How far from 1 the sum of what a softmax gives may lie, in sixteen bits, too."""


def choose(
    results: Outputs,
    batch: Batch,
    metric: str | None,
    output: str | None,
    *,
    steps: frozenset[str] = frozenset(),
    classes: int | None = None,
) -> Choice:
    """Return metric and output for what a model gives on a first batch.

    `steps` names the outputs of three axes that hold classes on the last one; `classes` is how many
    of them the labels name, as far as that is known.

    Raises:
        SettingsError: As `compare_models`.
    """
    if output is not None and output not in results:
        names = ", ".join(map(repr, results))
        raise SettingsError(f"--output {output!r} does not exist; the model gives {names}")
    name = metric or ("accuracy" if batch.labels is not None else "agreement")
    chosen = metric_named(name)
    if chosen.hits is not None and batch.labels is None:
        raise SettingsError(
            f"--metric {name} needs labels, and the data has none; add 'labels' or class folders, "
            "or use --metric agreement"
        )
    suiting, reasons = dict[str, Choice](), dict[str, str]()
    nobody_asked = name == "agreement" and metric is None
    keys = list(results) if output is None else [output]
    if nobody_asked:  # integers may well be ids and lengths that no weight has to do with
        keys.sort(key=lambda key: not _is_real(results[key]))
    for key in keys:
        # Who asks for decisions knows that there are some.
        stepwise = key in steps or metric == "agreement"
        reason = _unfit(results[key], name, batch, steps=stepwise)
        if reason is None and nobody_asked and are_directions(results[key]):
            reason = "has rows of length 1, whose largest number decides nothing"
        if reason is None:
            suiting[key] = Choice(name, key, steps=stepwise)
        else:
            reasons[key] = reason
    asked = [results[key] for key in reasons if is_array(results[key])]
    if nobody_asked and asked and all(not _is_real(results[key]) for key in suiting):
        suiting = {}  # where there are real numbers, these are what weights make
    if suiting and chosen.hits is None:
        return next(iter(suiting.values()))
    if suiting:
        told = {key: classes_told(results[key]) for key in suiting}
        return suiting[output_of_labels(told, classes)]
    if nobody_asked and asked:
        return choose(results, batch, beside_dense(asked[0], batch.count), output, steps=steps)
    listed = "; ".join(f"{key!r} {reason}" for key, reason in list(reasons.items())[:3])
    others = [other for other in METRICS if other != name]
    raise SettingsError(
        f"--metric {name} suits no output of the model ({listed}); choose another one with "
        f"--output, or another metric with --metric ({', '.join(others)})"
    )


def about_decisions(value: object, choice: Choice) -> Iterator[str]:
    """Say what is taken for a decision, where nothing tells it from a measurement."""
    if not isinstance(value, np.ndarray) or not _is_real(value):
        return
    decided = decisions(value, steps=choice.steps)
    several = value.size // max(decided.size, 1) if decided is not None else 0
    if several < _FEWEST:  # every number is a decision of its own
        return
    rows = value.astype(np.float64).reshape(-1, several)
    if not np.allclose(rows.sum(axis=1), 1, atol=_SHARES):
        yield (
            f"the highest of the {several} numbers of {choice.output!r} is taken for a "
            "decision; where these are measurements, give --metric error"
        )


def _unfit(value: object, metric: str, batch: Batch, *, steps: bool) -> str | None:
    """Return why an output cannot be judged by a metric, or None if it can."""
    if is_text(value) and metric == "agreement":
        return None
    if not is_array(value):
        return "is no array of numbers"
    assert isinstance(value, np.ndarray)
    shape = f"has shape {value.shape}"
    if metric == "agreement":
        decides = decisions(value, steps=steps) is not None
        return None if decides else f"{shape} and decides nothing"
    if metric in ("cosine", "error") and value.dtype.kind in "bi":
        return f"{shape}: class numbers have no angle and no norm"
    if metric == "cosine" and is_number(value, batch.count):
        return f"{shape}: the angle between single numbers is only their sign"
    hits = METRICS[metric].hits
    if hits is None:
        return None
    try:
        if metric == "accuracy" and not is_share(value):
            return f"{shape}: one number per sample is a choice only between 0 and 1"
        if metric == "accuracy" and len(choices(value)) != batch.count:
            return f"{shape}, not one row for each of {batch.count} samples"
        hits(value, np.zeros(len(value), dtype=np.int64))
    except (ValueError, TypeError, ReliefError) as reason:
        return f"{shape}: {reason}" if isinstance(reason, ValueError) else shape
    return None


def _is_real(value: object) -> bool:
    """Whether an output is an array of real numbers, not of integers or text."""
    return isinstance(value, np.ndarray) and is_float(value.dtype)
