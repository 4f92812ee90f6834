"""In which order layers are refitted, and what they are refitted with: sums over the data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.gram import Gram, gram_of
from onnx_relief.agreement import equal_say
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.light import node_reads
from onnx_relief.graph.nodes import subgraphs
from onnx_relief.measuring.evidence import Reading, answers_of, as_floats
from onnx_relief.repair.pairs import Pair
from onnx_relief.repair.stays import part_left

Array = NDArray[Any]
Tensors = Mapping[str, Array]
FEWEST = 256
"""So many samples are looked at, where there are as many."""
PER_ENTRY = 40
"""And more, until there are about so many positions for every weight of a unit: neighbours see
nearly the same. With ten, refitting EfficientNet-lite0 at 50 % zeros raised the error on other
pictures from .193 to .196; with forty it falls to .191."""


def stages(
    survey: Survey, names: Collection[str], depth: Mapping[str, int] | None = None
) -> list[list[str]]:
    """Return layers of the main graph in its order; those that do not read each other together."""
    depth = _depths(survey, {}) if depth is None else depth
    wanted = [site for site in survey.sites if site.layer.name in names]
    found = [(depth[site.node.output[0]], site.layer.name) for site in wanted]
    found.sort(key=lambda pair: pair[0])
    return [[name for _, name in some] for _, some in groupby(found, lambda pair: pair[0])]


def depths(survey: Survey, pairs: Iterable[Pair]) -> tuple[dict[str, int], list[Pair]]:
    """Return for every tensor of the main graph how many layers come before it in a row.

    Layers that are refitted together count as deep as the deepest of them.

    Returns:
        The depths, and the pairs whose layers read each other, which cannot be refitted together.
    """
    together: list[tuple[str, ...]] = []
    apart = []
    depth = _depths(survey, {})
    for pair in pairs:
        if not pair.others:
            continue
        # Groups only make each other deeper, so what earlier ones have settled on is a start.
        least = {name: depth[name] for group in together for name in group}
        found = _even_depths(survey, [*together, pair.made], least)
        if found is None:
            apart.append(pair)
        else:
            depth = found
            together.append(pair.made)
    return depth, apart


def _even_depths(
    survey: Survey, together: Collection[Collection[str]], least: Mapping[str, int]
) -> dict[str, int] | None:
    """Return the depths where all tensors of a group have one; None where they never have.

    A pass settles at least one more group, the first of those that wait for no other one, and
    another pass shows it. None may be less deep than in `least`.
    """
    for _ in range(len(together) + 1):
        depth = _depths(survey, least)
        deepest = [max(depth[name] for name in group) for group in together]
        wanted = {
            name: level for group, level in zip(together, deepest, strict=True) for name in group
        }
        if all(depth[name] == level for name, level in wanted.items()):
            return depth
        least = wanted
    return None


def _depths(survey: Survey, least: Mapping[str, int]) -> dict[str, int]:
    """Return the depths, of some tensors at least what is given."""
    made = {site.node.output[0] for site in survey.sites if site.scope.parent is None}
    main = survey.model.scopes[0]
    depth = dict.fromkeys((*main.inputs, *main.initializers), 0)
    for node in main.graph.node:
        read = node_reads(node)
        level = max((depth.get(name, 0) for name in read), default=0)
        level = max(level + (node.output[0] in made), least.get(node.output[0], 0))
        depth.update(dict.fromkeys(node.output, level))
    return depth


def ends(survey: Survey) -> set[str]:
    """Return the layers of the main graph that no layer comes after, but something else does.

    What they lack counts before a sigmoid, say, of which the model's outputs are made: there -20
    instead of -30 is a great error, and comes to nothing after it.
    """
    main = survey.model.scopes[0]
    sites = [site for site in survey.sites if site.scope is main]
    made = {site.node.output[0] for site in sites}
    before: set[str] = set()
    for node in reversed(main.graph.node):
        is_layer = node.output[0] in made or any(subgraphs(node))  # bodies may have layers
        if is_layer or not before.isdisjoint(node.output):
            before.update(node_reads(node))
    return {
        site.layer.name
        for site in sites
        if before.isdisjoint((site.output, site.node.output[0]))
        and any(use.node is not None for use in main.uses.get(site.output, ()))
    }


@dataclass(frozen=True, eq=False)
class Sums:
    """What is known of one layer.

    Attributes:
        gram: Sums of x x', and of r x' and r, r what its outputs lack.
        lacking: Sum of r**2.
        wanted: Sum of the squares of the dense layer's outputs.
    """

    gram: Gram
    lacking: float
    wanted: float

    def scaled(self, factor: float) -> Sums:
        """Return the sums with everything counted `factor` times."""
        return Sums(self.gram.scaled(factor), self.lacking * factor, self.wanted * factor)


def tensors_of(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    """Return what has to be known of the pruned model and of the dense one, by name."""
    joins = [pair.join.tensor for pair in pairs if pair.join is not None]
    every = [one.site for pair in pairs for one in pair.all]
    made = list(dict.fromkeys([*(site.output for site in every), *joins]))
    return list(dict.fromkeys([*(site.data for site in every), *made])), made


def at_once(
    groups: Iterable[Sequence[Pair]], ours: Tensors, samples: int, most: int, budget: int
) -> int:
    """Return how many samples can be run together, at any stage.

    Args:
        groups: The layers of every stage.
        ours: What the pruned model gives for some samples.
        samples: How many these are.
        most: Samples per run, at most.
        budget: Bytes that the tensors of one run may take.
    """
    sizes = [sum(ours[name].nbytes for name in tensors_of(pairs)[0]) for pairs in groups]
    each = 3 * max(sizes, default=0) / max(samples, 1)
    return int(max(1, min(most, budget // max(each, 1))))


def enough(pairs: Sequence[Pair], ours: Tensors, samples: int) -> int:
    """Return how many samples are enough to refit some layers.

    Args:
        pairs: The layers.
        ours: What the pruned model gives for some samples.
        samples: How many these are.
    """
    wanted = float(FEWEST)
    for pair in pairs:
        columns = pair.reading.columns(as_floats(ours[pair.reading.tensor]))
        positions = columns.shape[0] * columns.shape[3] / max(samples, 1)
        wanted = max(wanted, PER_ENTRY * pair.reading.entries / max(positions, 1))
    return ceil(wanted)


def weighed(pairs: Sequence[Pair], walk: Iterable[Sequence[Tensors]]) -> dict[str, float]:
    """Return how often layers that share a weight count, by name, as `equal_say`.

    Raises:
        ModelError, DataError: A model cannot be run on the data.
    """
    together = [pair.all for pair in pairs if pair.others]
    energy = {one.site.layer.name: 0.0 for some in together for one in some}
    for _, dense in walk if together else ():
        for one in (one for some in together for one in some):
            target = part_left(one.stays, one.site.output, dense[one.site.output])
            energy[one.site.layer.name] += float(np.square(target, dtype=np.float64).sum())
    found: dict[str, float] = {}
    for some in together:
        names = [one.site.layer.name for one in some]
        says = equal_say([energy[name] for name in names])
        found |= dict(zip(names, says.tolist(), strict=True))
    return found


def sums(
    pairs: Sequence[Pair],
    walk: Iterable[Sequence[Tensors]],
    weights: Mapping[str, float] | None = None,
) -> list[Sums]:
    """Return the sums of every layer over batches of what the pruned and the dense model give.

    Args:
        pairs: The layers.
        walk: What both models give, batch by batch.
        weights: How often a layer counts that shares its weight; once where it is missing.

    Raises:
        ModelError, DataError: A model cannot be run on the data.
    """
    total: list[Sums] | None = None
    for ours, dense in walk:
        part = _batch_sums(pairs, ours, dense, weights or {})
        total = part if total is None else [_merged(*two) for two in zip(total, part, strict=True)]
    assert total is not None  # a dataset that yields nothing raises
    return total


def _batch_sums(
    pairs: Sequence[Pair], ours: Tensors, dense: Tensors, weights: Mapping[str, float]
) -> list[Sums]:
    """Return the sums over one batch; layers that read alike share the products of inputs.

    Those of layers that share a weight are added up one by one: there may be many.
    """
    found: dict[int, Sums] = {}
    alike: dict[Reading, list[tuple[int, Pair]]] = {}
    for place, pair in enumerate(pairs):
        for one in pair.all:
            alike.setdefault(one.reading, []).append((place, one))
    for reading, members in alike.items():
        read = as_floats(ours[reading.tensor])
        lacks, wanted = [], []
        for _, pair in members:
            name = pair.site.output
            target, made = (
                as_floats(answers_of(pair.site, reading, read, tensor))
                for tensor in (part_left(pair.stays, name, dense[name]), ours[name])
            )
            lacks.append(_with_join(pair, reading, read, target - made, ours, dense))
            wanted.append(float(np.square(target, dtype=np.float64).sum()))
        gram = gram_of(reading.columns(read), np.concatenate(lacks, axis=2))
        ends = np.cumsum([lack.shape[2] for lack in lacks])
        for (place, pair), lack, end, size in zip(members, lacks, ends, wanted, strict=True):
            some = slice(end - lack.shape[2], end)
            lacking = float(np.square(lack, dtype=np.float64).sum())
            part = Sums(gram.of_units(some), lacking, size)
            if pair.site.layer.name in weights:
                part = part.scaled(weights[pair.site.layer.name])
            found[place] = _merged(found[place], part) if place in found else part
    return [found[place] for place in range(len(pairs))]


def _with_join(
    pair: Pair, reading: Reading, read: Array, lack: Array, ours: Tensors, dense: Tensors
) -> Array:
    """Return what a layer's outputs lack, or where they are added to others, what the sum lacks."""
    if pair.join is None:
        return lack
    name = pair.join.tensor
    wanted, found = part_left(pair.stays, name, dense[name]), ours[name]
    if wanted.shape != found.shape or found.shape != ours[pair.site.output].shape:
        return lack
    apart = answers_of(pair.site, reading, read, as_floats(wanted) - as_floats(found))
    gain = pair.join.gain.astype(lack.dtype).reshape(1, lack.shape[1], lack.shape[2], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gain != 0, apart / gain, lack)


def _merged(one: Sums, other: Sums) -> Sums:
    return Sums(one.gram.merge(other.gram), one.lacking + other.lacking, one.wanted + other.wanted)
