"""The criterion `random`: the control that every other one has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_scores(shape: tuple[int, ...], *, seed: int, layer: str) -> NDArray[np.float64]:
    """Return numbers in (0, 1], the same for the same seed and name of a layer.

    >>> bool((random_scores((2, 3, 1), seed=0, layer="a") > 0).all())
    True
    """
    rng = np.random.default_rng([seed, *layer.encode()])
    return 1.0 - rng.random(shape)
