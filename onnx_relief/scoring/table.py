"""The criteria by name: what each needs to know of a layer, and what it makes of that.

A criterion is one function from `Clues` to scores of single weights, (units, inputs, taps or 1),
that add up over blocks; only their proportions within a unit count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import SettingsError
from onnx_relief.scoring.chance import random_scores
from onnx_relief.scoring.magnitude import magnitude_scores
from onnx_relief.scoring.obs import obs_scores
from onnx_relief.scoring.taylor import taylor_scores
from onnx_relief.scoring.wanda import wanda_scores

Floats = NDArray[np.float64]


class Need(Enum):
    """What has to be measured for a criterion, besides what is always measured."""

    NOTHING = "nothing more"
    SQUARES = "mean square of every input"
    MATRIX = "Gram matrix of the inputs"
    GRADIENT = "gradients"


@dataclass(frozen=True, eq=False, kw_only=True)
class Clues:
    """What is known of one weight of a layer.

    Attributes:
        layer: Name of the layer and number of the weight.
        weights: (units, inputs, taps).
        signals: Gives the signals of the connections, as `relief` measures them.
        mean_square: Mean x**2, (groups, inputs, taps or 1).
        moment: Damped Hessian of the output, (blocks, entries, entries); None where it cannot be
            taken.
        split: Brings weights (units, entries) into the form of `moment`.
        join: Undoes `split`.
        gradient: Mean square of the gradient, (units, inputs, taps); None where there is none.
        seed: For what is drawn.
    """

    layer: str
    weights: Floats
    signals: Callable[[], Floats]
    mean_square: Floats
    moment: Floats | None
    split: Callable[[NDArray[Any]], NDArray[Any]] | None
    join: Callable[[NDArray[Any]], NDArray[Any]] | None
    gradient: Floats | None
    seed: int


@dataclass(frozen=True)
class Criterion:
    """One criterion.

    Attributes:
        name: What the user calls it.
        need: What is measured for it.
        scores: From clues to scores.
        updates: Whether surviving weights make up for those that go.
        signals: Whether it looks at signals, be it of layers of which nothing else can be measured.
    """

    name: str
    need: Need
    scores: Callable[[Clues], Floats]
    updates: bool = False
    signals: bool = False

    def __reduce__(self) -> tuple[Callable[[str], Criterion], tuple[str]]:
        """Be looked up by name in another process, since not every function can be sent there."""
        return criterion_named, (self.name,)


def _relief(clues: Clues) -> Floats:
    return clues.signals()


def _wanda(clues: Clues) -> Floats:
    return wanda_scores(clues.weights, clues.mean_square)


def _obs(clues: Clues) -> Floats:
    if clues.moment is None or clues.split is None or clues.join is None:
        return _wanda(clues)  # a Hessian of which only the diagonal is known
    split = clues.split(clues.weights.reshape(len(clues.weights), -1))
    return np.asarray(clues.join(obs_scores(split, clues.moment)).reshape(clues.weights.shape))


def _taylor(clues: Clues) -> Floats:
    if clues.gradient is None:
        return _wanda(clues)  # the bridge does not reach this layer
    return taylor_scores(clues.weights, clues.gradient)


CRITERIA = {
    one.name: one
    for one in (
        Criterion("relief", Need.NOTHING, _relief, signals=True),
        Criterion("magnitude", Need.NOTHING, lambda clues: magnitude_scores(clues.weights)),
        Criterion(
            "magnitude-l1", Need.NOTHING, lambda clues: magnitude_scores(clues.weights, power=1)
        ),
        Criterion("wanda", Need.SQUARES, _wanda),
        Criterion("obs", Need.MATRIX, _obs, updates=True),
        Criterion("taylor", Need.GRADIENT, _taylor, signals=True),
        Criterion(
            "random",
            Need.NOTHING,
            lambda clues: random_scores(clues.weights.shape, seed=clues.seed, layer=clues.layer),
        ),
    )
}


def criterion_named(name: str) -> Criterion:
    """Return a criterion.

    Raises:
        SettingsError: There is none of that name.
    """
    if name not in CRITERIA:
        raise SettingsError(
            f"--criterion {name!r} does not exist; choose one of {', '.join(CRITERIA)}"
        )
    return CRITERIA[name]
