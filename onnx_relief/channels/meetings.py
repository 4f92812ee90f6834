"""What channels say that no layer reads.

Queries and keys meet each other in a product; others meet weights of which no layer is made, as
where every head has a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channels.tensors import moments_of
from onnx_relief.data import Dataset
from onnx_relief.graph.channels import Groups, Trace
from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.channels.records import Read
from onnx_relief.graph.layers import Survey
from onnx_relief.measuring.evidence import as_floats
from onnx_relief.measuring.measure import full_batches
from onnx_relief.runtime import open_at
from onnx_relief.settings import Settings

Floats = NDArray[np.float64]


def said_together(
    survey: Survey, trace: Trace, groups: Groups, calibration: Dataset, settings: Settings
) -> Floats:
    """Return by root what products of two tensors would lose without it.

    A product q k of two channels that know nothing of each other has the mean square E[q²] E[k²]
    for each sample and head. It is 0 where channels meet in bodies, of which no tensors are seen,
    and where none meet.

    Raises:
        ModelError, DataError: The model cannot be run on the data.
    """
    found = np.zeros(trace.pool.size)
    main = {name for name, home in trace.whole.homes.items() if home.parent is None}
    meetings = {
        (read.tensor, read.other[0]): read
        for read in trace.reads
        if read.other is not None and {read.tensor, read.other[0]} <= main
    }
    names = sorted({name for pair in meetings for name in pair if varying(trace.of(name))})
    meetings = {pair: read for pair, read in meetings.items() if set(pair) <= set(names)}
    if not meetings:
        return found
    session = open_at(survey.document, names, provider=settings.provider)
    count = 0
    for batch in full_batches(calibration.take(settings.samples), settings.batch_size):
        values = session.run(batch.feed, names)
        count += batch.count
        for read in meetings.values():
            _add(found, trace, groups, read, values, batch.count)
    return found / max(count, 1)


def _add(
    found: Floats,
    trace: Trace,
    groups: Groups,
    read: Read,
    values: Mapping[str, NDArray[Any]],
    samples: int,
) -> None:
    """Add to `found` what one product says over some samples."""
    assert read.other is not None
    squares, roots = [], []
    for name, heads, beside in (
        (read.tensor, read.heads[0], [one for one, _ in read.beside]),
        (read.other[0], read.heads[1], [other for _, other in read.beside]),
    ):
        ids = trace.of(name)
        value = np.square(as_floats(values[name]), dtype=np.float64)
        axes = [*beside, varying(ids)[0] - ids.ndim]
        value = np.moveaxis(value, axes, range(-len(axes), 0))
        value = value.mean(axis=tuple(range(value.ndim - len(axes))))
        squares.append(value.reshape(*value.shape[:-1], heads, -1))
        roots.append(groups.of(ids).reshape(heads, -1)[0])
    if any(one.size != square.shape[-1] for one, square in zip(roots, squares, strict=True)):
        return  # ids that do not vary stand for several channels
    product = np.multiply(*_as_wide(squares))
    said = product.reshape(-1, product.shape[-1]).mean(axis=0)
    np.add.at(found, roots[0], samples * said)


def _as_wide(both: list[Floats]) -> list[Floats]:
    """Return two arrays with the entries of the shorter axes as often as neighbours share them."""
    for axis in range(both[0].ndim):
        most = max(one.shape[axis] for one in both)
        both = [np.repeat(one, most // one.shape[axis], axis) for one in both]
    return both


def said_to_weights(
    survey: Survey, trace: Trace, groups: Groups, calibration: Dataset, settings: Settings
) -> Floats:
    """Return by root what nodes that have weights, and are no layers, would lose without it.

    A channel x brings E[x²] sum_j w_j² to the outputs that it reaches through the weights w_j, as
    far as channels know nothing of each other. It is 0 in bodies, and where there are no such
    weights.

    Raises:
        ModelError, DataError: The model cannot be run on the data.
    """
    found = np.zeros(trace.pool.size)
    layers = {site.node.output[0] for site in survey.sites}
    met = [
        (read, _squares_met(survey, trace, read))
        for read in trace.reads
        if read.other is None and trace.whole.nodes[read.node].output[0] not in layers
    ]
    names = {read.tensor for read, squares in met if squares.any()}
    measured = moments_of(survey, trace, names, calibration.take(settings.samples), settings)
    for read, squares in met:
        seen = measured.get(read.tensor)
        if seen is not None and seen.mean.size == squares.size:
            energies = seen.variance + np.square(seen.mean)
            np.add.at(found, groups.of(read.ids), energies * squares)
    return found


def _squares_met(survey: Survey, trace: Trace, read: Read) -> Floats:
    """Return the sum of the squares of the weights that every channel of a read is multiplied by.

    Of constants that the node takes for something else, as biases, no axis has these channels.
    """
    squares = np.zeros(read.ids.size)
    for name, node, axes in (*trace.taken, *trace.apart):
        for axis, ids in axes.items() if node == read.node else ():
            weights = survey.constants.array(trace.whole.homes[name], name)
            if weights is not None and np.array_equal(ids, read.ids):
                by_channel = np.moveaxis(weights, axis, 0).reshape(squares.size, -1)
                squares += np.square(by_channel, dtype=np.float64).sum(axis=1)
    return squares
