"""What channels say that no layer reads: queries and keys, which meet each other in a product."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channels.tensors import moments_of
from onnx_relief.data import Dataset
from onnx_relief.graph.channels import Groups, Trace
from onnx_relief.graph.layers import Survey
from onnx_relief.settings import Settings

Floats = NDArray[np.float64]


def said_together(
    survey: Survey, trace: Trace, groups: Groups, calibration: Dataset, settings: Settings
) -> Floats:
    """Return by root what products of two tensors would lose without it.

    A product q k of two channels that know nothing of each other has the mean square E[q²] E[k²].
    It is 0 where channels meet in bodies, of which no tensors are seen, and where none meet.

    Raises:
        ModelError, DataError: The model cannot be run on the data.
    """
    found = np.zeros(trace.pool.size)
    meetings = [(read.tensor, read.other[0]) for read in trace.reads if read.other is not None]
    names = {name for pair in meetings for name in pair}
    data = calibration.take(settings.samples)
    measured = moments_of(survey, trace, names, data, settings)
    energies: dict[str, dict[int, float]] = {}
    for name, seen in measured.items():
        by_root = defaultdict[int, list[float]](list)
        roots = groups.of(trace.of(name)).reshape(-1)
        if roots.size == seen.mean.size:
            squares = seen.variance + np.square(seen.mean)
            for root, square in zip(roots.tolist(), squares.tolist(), strict=True):
                by_root[root].append(square)
        energies[name] = {root: float(np.mean(squares)) for root, squares in by_root.items()}
    for first, second in meetings:
        one, other = energies.get(first, {}), energies.get(second, {})
        for root in one.keys() & other.keys():
            found[root] += one[root] * other[root]
    return found
