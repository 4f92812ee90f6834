"""All statistics of a run over data, by key: started empty, merged, read at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from onnx_relief.activity.mean import Mean


@dataclass(frozen=True, eq=False)
class Record:
    """Means and counted sizes by key; two halves of the data merged give what all of it gives.

    Attributes:
        means: A running mean per key.
        sizes: Per key, how many samples had which spatial size.

    >>> import numpy as np
    >>> half = Record({"x": Mean(np.array([2.0]), 1)})
    >>> half.merge(half).means["x"].finish()
    array([2.])
    """

    means: Mapping[Hashable, Mean] = field(default_factory=dict)
    sizes: Mapping[Hashable, Counter[tuple[int, ...]]] = field(default_factory=dict)

    def merge(self, other: Record) -> Record:
        """Return the record of the samples of both."""
        means = dict(self.means)
        for key, mean in other.means.items():
            means[key] = means[key].merge(mean) if key in means else mean
        sizes = dict(self.sizes)
        for key, counts in other.sizes.items():
            sizes[key] = sizes.get(key, Counter()) + counts
        return Record(means, sizes)
