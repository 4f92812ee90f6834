"""Which samples statistics are made of, and which are kept apart to judge what came of them.

Second moments of a thousand inputs from a few hundred samples fit these samples better than others:
weights that seem to be free cost a lot on new data. So nothing is fitted to a part of the samples.
They say what layers lose, choose how much is done (how far moments are shrunk, which ridge, which
epoch), and tell whether a repair did harm; all of it looks at the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnx_relief.data.batch import Dataset, spread

FEWEST = 8
"""Samples from which on some are held out."""
_SHARE, _MOST = 0.2, 100
"""Such a part is held out, and no more than so many: a mean over them would not be much surer."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples to work with, and samples to judge by; the same ones where there are too few."""

    work: Dataset
    judge: Dataset

    @property
    def same(self) -> bool:
        """Whether nothing is held out."""
        return self.work is self.judge


def held_out(data: Dataset, samples: int | None = None) -> Split:
    """Return at most so many samples in two parts, a fifth (2 to 100) to judge by.

    The parts depend on nothing but how many samples there are, so that every stage that splits the
    same data holds out the same ones. Fewer than `FEWEST` are not divided.
    """
    data = data.take(samples)
    judged = data.size - fitted_to(data.size)
    if not judged:
        return Split(data, data)
    chosen = np.zeros(data.size, dtype=bool)
    chosen[spread(data.size, judged)] = True
    return Split(
        replace(data, rows=data.rows[~chosen]),
        replace(data, rows=data.rows[chosen]),
    )


def fitted_to(total: int) -> int:
    """Return how many of so many samples are not held out.

    >>> fitted_to(7), fitted_to(40), fitted_to(1000)
    (7, 32, 900)
    """
    return total if total < FEWEST else total - min(max(2, round(_SHARE * total)), _MOST)
