"""Gram matrices of what layers read, over data: the second moments that criteria and repair need.

Layers that read the same tensor in the same way share one. Where all of them together take more
than the memory that was given, the data is read several times, for some layers at a time; a layer
that is too wide by itself gets the diagonal blocks of its matrix.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.gram import PLACES, Gram, coarse_answers, gram_of, patch_columns
from onnx_relief.data import Dataset, first_sample
from onnx_relief.errors import DataError
from onnx_relief.geometry import ConvGeometry
from onnx_relief.graph.document import Document
from onnx_relief.graph.reach import comes_from_layers
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.measure import full_batches
from onnx_relief.plan import LayerKind
from onnx_relief.runtime import open_at

Array = NDArray[Any]
Tick = Callable[[int], None]
_PER_ENTRY, _FEWEST = 4, 64
"""Units of few inputs, as depthwise ones, need fewer: so many for each input, so many in all."""
_WIDEST = 5000
"""Entries of the largest matrix: inverting one takes the cube of that."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a layer reads a tensor; layers with equal readings share a Gram matrix.

    Attributes:
        tensor: What is read.
        groups: Groups of the layer.
        entries: Inputs of a unit times taps.
        geometry: For convolutions.
        axis: For the others: which axis holds the features.
        blocks: Diagonal blocks that each group's matrix is cut into.
        own_units: Whether every input may come in a unit of its own: features of the data do, until
            a layer mixes them.
    """

    tensor: str
    groups: int
    entries: int
    geometry: ConvGeometry | None = None
    axis: int = -1
    blocks: int = 1
    own_units: bool = False

    @property
    def bytes(self) -> int:
        """Memory of the Gram matrix."""
        return 8 * self.groups * self.entries**2 // self.blocks

    @property
    def places(self) -> int:
        """Positions of a sample's maps that are looked at, about; of other inputs it is all."""
        return min(PLACES, max(_FEWEST, _PER_ENTRY * self.entries))

    def columns(self, tensor: Array) -> Array:
        """Return what positions read, (samples, groups * blocks, entries, about `places`)."""
        if self.geometry is None:
            rows = _with_last(tensor, self.axis).reshape(-1, self.entries)
            columns = rows.T[None, None]
        else:
            columns = patch_columns(tensor, self.geometry, self.groups, most=self.places)
        samples, groups, entries, positions = columns.shape
        return columns.reshape(samples, groups * self.blocks, entries // self.blocks, positions)

    def split(self, rows: Array) -> Array:
        """Return weights (units, entries) as (groups * blocks, units per group, entries)."""
        apart = rows.reshape(self.groups, -1, self.blocks, self.entries // self.blocks)
        return apart.transpose(0, 2, 1, 3).reshape(self.groups * self.blocks, apart.shape[1], -1)

    def join(self, split: Array) -> Array:
        """Undo `split`."""
        apart = split.reshape(self.groups, self.blocks, split.shape[1], split.shape[2])
        return apart.transpose(0, 2, 1, 3).reshape(-1, self.entries)


def reading_of(site: Site, *, memory: int) -> Reading | str:
    """Return how a layer reads its input, or why that cannot be seen, in words.

    Its Gram matrix is cut into as many blocks as half of `memory`, in bytes, asks for.
    """
    layer = site.layer
    if site.scope.parent is not None:
        return "its inputs are inside a body, where Gram matrices are not taken"
    if layer.kind is LayerKind.RECURRENT:
        return "its inputs are inside a recurrent node, where Gram matrices are not taken"
    weight = layer.weights[0]
    if layer.geometry is None and weight.groups > 1:
        return "its weight is batched, for which Gram matrices are not taken"
    entries = weight.inputs * layer.taps
    reading = Reading(
        tensor=site.data,
        groups=weight.groups,
        entries=entries,
        geometry=layer.geometry,
        axis=site.reads.place,
        own_units=not comes_from_layers(site.scope, site.data),
    )
    # Blocks hold whole channels, so that a channel's columns lie together.
    for number in (n for n in range(1, weight.inputs + 1) if weight.inputs % n == 0):
        cut = replace(reading, blocks=number)
        if entries // number <= _WIDEST and 2 * cut.bytes <= memory:
            return cut
    return replace(reading, blocks=weight.inputs)


def _with_last(tensor: Array, axis: int) -> Array:
    """Return a tensor with an axis moved to the end; a vector has no other one."""
    return np.moveaxis(tensor, max(axis, -tensor.ndim), -1)


def answers_of(site: Site, reading: Reading, read: Array, made: Array) -> Array:
    """Return a layer's outputs at the positions of `reading.columns(read)`.

    Args:
        site: The layer.
        reading: How it reads.
        read: Its input.
        made: The output of its node.

    Returns:
        (samples, groups, units per group, positions).
    """
    if reading.geometry is None and len(site.parts[0].view.shape) == 1:
        return made.reshape(1, 1, 1, -1)  # a product with a vector has no axis of units
    if reading.geometry is None:
        rows = _with_last(made, site.makes.place)
        return rows.reshape(-1, site.layer.units).T[None, None]
    size = read.shape[2:]
    return coarse_answers(made, reading.geometry, size, reading.groups, most=reading.places)


def gram_matrices(
    document: Document,
    readings: Sequence[Reading],
    data: Dataset,
    *,
    batch_size: int,
    provider: str,
    memory: int,
    diagonal: bool = False,
    tick: Tick | None = None,
) -> dict[Reading, Gram]:
    """Return the Gram matrix of every reading over the data.

    Args:
        document: The model.
        readings: What is read, of the main graph.
        data: Samples.
        batch_size: Samples per run, at most.
        provider: Execution provider of ONNX Runtime.
        memory: Bytes that Gram matrices and the tensors they are made of may take, about.
        diagonal: Whether only the squares are wanted.
        tick: Told of every sample of the first pass.

    Raises:
        DataError: There is no data, or a layer reads NaN or infinity.
        ModelError: The model cannot be run.
    """
    found: dict[Reading, Gram] = {}
    for some in passes(readings, memory // 2, diagonal=diagonal):
        names = list(dict.fromkeys(reading.tensor for reading in some))
        session = open_at(document, names, provider=provider)
        tensors = session.run(first_sample(data).feed, names)
        grams = Grams(some, diagonal=diagonal)
        for batch in full_batches(data, samples_at_once(tensors, batch_size, memory // 4)):
            grams.add(session.run(batch.feed, names))
            if tick is not None:
                tick(batch.count)
        tick = None
        found |= grams.found
        if sum(found[reading].second.nbytes for reading in found) > memory // 2:
            found |= {reading: parked(found[reading]) for reading in some}
    return found


class Grams:
    """The Gram matrices of some readings, while tensors come in."""

    def __init__(self, readings: Sequence[Reading], *, diagonal: bool) -> None:
        self._readings, self._diagonal = readings, diagonal
        self.found: dict[Reading, Gram] = {}

    def add(self, tensors: Mapping[str, Array]) -> None:
        """Add what a batch shows, from its tensors by name.

        Raises:
            DataError: A tensor is NaN or infinite.
        """
        for reading in self._readings:
            columns = reading.columns(as_floats(tensors[reading.tensor]))
            part = gram_of(columns, diagonal=self._diagonal)
            if not np.isfinite(part.mean_square).all():
                raise DataError(
                    f"tensor {reading.tensor!r} is NaN or infinite on this data; "
                    "look for them in the data and in the weights before it"
                )
            known = self.found.get(reading)
            self.found[reading] = part if known is None else known.merge(part)


def as_floats(tensor: Array) -> Array:
    """Return a tensor in float32, or float64 if it is that."""
    return tensor if tensor.dtype == np.float64 else tensor.astype(np.float32, copy=False)


def parked(gram: Gram) -> Gram:
    """Return the same sums, kept in a file that goes with them, and read where they are used."""
    with tempfile.TemporaryFile() as file:
        gram.second.tofile(file)
        file.flush()
        kept = np.memmap(file, np.float64, mode="r", shape=gram.second.shape)
    return replace(gram, second=kept)


def passes(readings: Sequence[Reading], budget: int, *, diagonal: bool) -> list[list[Reading]]:
    """Return which readings are taken in each walk through the data, for `budget` bytes."""
    found: list[list[Reading]] = []
    size = 0
    for reading in dict.fromkeys(readings):
        more = 0 if diagonal else reading.bytes
        if not found or size + more > budget:
            found.append([])
            size = 0
        found[-1].append(reading)
        size += more
    return found


def samples_at_once(tensors: Mapping[str, Array], most: int, budget: int) -> int:
    """Return how many samples' tensors fit into `budget` bytes, 1 to `most`.

    Args:
        tensors: Those of one sample.
        most: Samples that are enough.
        budget: In bytes.
    """
    size = sum(tensor.nbytes for tensor in tensors.values())
    return int(max(1, min(most, budget // max(size, 1))))
