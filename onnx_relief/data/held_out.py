"""Which samples statistics are made of, and which are kept apart to judge what came of them.

Second moments of a thousand inputs from a few hundred samples fit these samples better than others:
weights that seem to be free cost a lot on new data. So whatever compares layers by what they lose,
or a repair with none, looks at samples that took no part; and all of it at the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnx_relief.data.batch import Dataset, spread

FEWEST = 8
"""Samples from which on some are held out."""
_SHARE, _MOST = 0.2, 100
"""So many are held out; a mean over more would not be much surer."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples to work with, and samples to judge by; the same ones where there are too few."""

    work: Dataset
    judge: Dataset

    @property
    def same(self) -> bool:
        """Whether nothing is held out."""
        return self.work is self.judge


def held_out(data: Dataset, share: float = _SHARE) -> Split:
    """Return the data in two parts, `share` of it (2 samples at least) to judge by.

    The parts depend on nothing but how many samples there are.
    """
    if data.size < FEWEST:
        return Split(data, data)
    chosen = np.zeros(data.size, dtype=bool)
    chosen[spread(data.size, min(max(2, round(share * data.size)), _MOST))] = True
    return Split(
        replace(data, rows=data.rows[~chosen]),
        replace(data, rows=data.rows[chosen]),
    )
