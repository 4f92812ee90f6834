"""What goes or stays as one: single weights, kernels, units, blocks, or N of every M inputs.

Scores are those of single weights, (units, inputs, taps) as in a plan. The score of a block is the
sum of its weights' scores, so scores should be squares or shares, which add up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import SettingsError

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


class Pattern(Enum):
    """The kinds of structure."""

    WEIGHT = "weight"
    KERNEL = "kernel"
    ROW = "row"
    BLOCK = "block"
    N_OF_M = "N:M"


@dataclass(frozen=True, kw_only=True)
class Structure:
    """One kind of structure and its sizes.

    Attributes:
        pattern: The kind.
        units: BLOCK: units of a block; N_OF_M: how many inputs stay.
        inputs: BLOCK: inputs of a block; N_OF_M: of how many.
    """

    pattern: Pattern
    units: int = 1
    inputs: int = 1

    def __str__(self) -> str:
        if self.pattern is Pattern.BLOCK:
            return f"{self.units}x{self.inputs}"
        if self.pattern is Pattern.N_OF_M:
            return f"{self.units}:{self.inputs}"
        return str(self.pattern.value)

    @property
    def exact_share(self) -> float | None:
        """The share that goes where the structure itself says it, or None."""
        return 1 - self.units / self.inputs if self.pattern is Pattern.N_OF_M else None

    def why_not(self, shape: tuple[int, int, int]) -> str | None:
        """Return why a weight of `shape` (units, inputs, taps) does not divide, or None."""
        units, inputs, _ = shape
        if self.pattern is Pattern.BLOCK and (units % self.units or inputs % self.inputs):
            return f"its {units} units of {inputs} inputs do not divide into blocks of {self}"
        if self.pattern is Pattern.N_OF_M and inputs % self.inputs:
            return f"the inputs of a unit, {inputs}, do not divide by {self.inputs}"
        return None

    def blocks(self, shape: tuple[int, int, int]) -> int:
        """Return how many blocks a weight of `shape` has."""
        units, inputs, taps = shape
        return {
            Pattern.WEIGHT: units * inputs * taps,
            Pattern.KERNEL: units * inputs,
            Pattern.ROW: units,
            Pattern.BLOCK: (units // self.units) * (inputs // self.inputs) * taps,
            Pattern.N_OF_M: units * inputs * taps,
        }[self.pattern]

    def pooled(self, scores: Floats) -> Floats:
        """Return the scores of blocks, (bands of units, blocks of a band)."""
        units, inputs, taps = scores.shape
        if self.pattern is Pattern.KERNEL:
            return np.asarray(scores.sum(axis=2))
        if self.pattern is Pattern.ROW:
            return np.asarray(scores.sum(axis=(1, 2)))[:, None]
        if self.pattern is Pattern.BLOCK:
            split = (units // self.units, self.units, inputs // self.inputs, self.inputs, taps)
            return np.asarray(scores.reshape(split).sum(axis=(1, 3))).reshape(split[0], -1)
        return scores.reshape(units, -1)

    def spread(self, kept: Bools, shape: tuple[int, int, int]) -> Bools:
        """Return what is kept of single weights, from what is kept of blocks as `pooled`."""
        units, inputs, taps = shape
        if self.pattern in (Pattern.KERNEL, Pattern.ROW):
            return np.broadcast_to(kept[:, :, None], shape)
        if self.pattern is Pattern.BLOCK:
            blocks = kept.reshape(units // self.units, 1, inputs // self.inputs, 1, taps)
            split = (units // self.units, self.units, inputs // self.inputs, self.inputs, taps)
            return np.broadcast_to(blocks, split).reshape(shape)
        return kept.reshape(shape)

    def keep(self, scores: Floats, count: int) -> Bools:
        """Return the best `count` blocks as single weights, (units, inputs, taps).

        Every band of units that has any score keeps its best block, so that no unit is cut off;
        units themselves (ROW) keep at least the best one. N of M keeps that, whatever the count.
        Equal scores keep their order.
        """
        if self.pattern is Pattern.N_OF_M:
            return self._keep_n_of_m(scores)
        pooled = self.pooled(scores)
        wanted = pooled.copy()
        if self.pattern is not Pattern.ROW:
            best = pooled.argmax(axis=1)
            bands = np.flatnonzero(np.take_along_axis(pooled, best[:, None], axis=1) > 0)
            wanted[bands, best[bands]] = np.inf
            count = max(count, bands.size)
        chosen = largest(wanted.reshape(-1), max(count, 1)).reshape(pooled.shape)
        return self.spread(chosen, (scores.shape[0], scores.shape[1], scores.shape[2]))

    def _keep_n_of_m(self, scores: Floats) -> Bools:
        units, inputs, taps = scores.shape
        groups = scores.transpose(0, 2, 1).reshape(-1, self.inputs)
        order = np.argsort(-groups, axis=1, kind="stable")[:, : self.units]
        kept = np.zeros(groups.shape, dtype=bool)
        np.put_along_axis(kept, order, True, axis=1)
        return kept.reshape(units, taps, inputs).transpose(0, 2, 1)


WEIGHT: Final = Structure(pattern=Pattern.WEIGHT)
KERNEL: Final = Structure(pattern=Pattern.KERNEL)
ROW: Final = Structure(pattern=Pattern.ROW)


def parse_structure(text: str) -> Structure:
    """Return the structure that a user named.

    >>> str(parse_structure("2:4")), str(parse_structure("16x1")), str(parse_structure("kernel"))
    ('2:4', '16x1', 'kernel')

    Raises:
        SettingsError: There is none of that name.
    """
    names = {str(one): one for one in (KERNEL, WEIGHT, ROW)}
    if text in names:
        return names[text]
    sizes = re.fullmatch(r"(\d{1,4})([x:])(\d{1,4})", text)
    if sizes:
        first, second = int(sizes[1]), int(sizes[3])
        if sizes[2] == ":" and 0 < first < second:
            return Structure(pattern=Pattern.N_OF_M, units=first, inputs=second)
        if sizes[2] == "x" and first > 0 and second > 0:
            return Structure(pattern=Pattern.BLOCK, units=first, inputs=second)
    raise SettingsError(
        f"--granularity {text!r} does not exist; choose one of kernel, weight, row, channel, "
        "a block of units x inputs like 4x1, or N of M inputs like 2:4"
    )


def largest(scores: Floats, count: int) -> Bools:
    """Return which `count` scores are largest; of equal ones at the edge, the first.

    >>> largest(np.array([1.0, 3.0, 1.0, 2.0]), 3)
    array([ True,  True, False,  True])
    """
    if count >= scores.size:
        return np.ones(scores.size, dtype=bool)
    edge = np.partition(scores, scores.size - count)[scores.size - count]
    kept: Bools = scores > edge
    tied = np.flatnonzero(scores == edge)
    kept[tied[: count - int(kept.sum())]] = True
    return kept
