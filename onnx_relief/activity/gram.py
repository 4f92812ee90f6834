"""Second moments of what a layer reads, and of what it answers: sums that can be added and merged.

`columns` are the inputs as every position sees them: (samples, groups, entries, positions), where
the entries of a position are a layer's inputs times its kernel's taps, in the order of the rows of
its weight. Products are taken in the precision of the data, but about the means of a batch, and
added up in float64: those of 101325 +- 50 themselves, in float32, would not show the 50.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.mean import FloatArray
from onnx_relief.activity.patches import patches
from onnx_relief.geometry import ConvGeometry

PLACES = 400
"""About so many positions of a sample are looked at; those of one picture repeat each other."""
_ROUNDING = 2**16 * float(np.finfo(np.float64).eps)
"""Variance, relative to the mean square, that sums in float64 cannot tell from none: each term of
the same size may add a rounding error of the same sign. Tensors in float32 are no more exact."""
_PIECE = 1 << 23
"""Entries of columns about which products are taken at a time, so that no copy is large."""
_SMALLEST = float(np.finfo(np.float32).tiny)
"""Below it, products in float32 lose their digits one by one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Gram:
    """Sums over positions of x x', y x', x and y; `add` and `merge` return anew.

    Attributes:
        second: Sum of x x', (groups, entries, entries), or of x**2, (groups, entries).
        first: Sum of x, (groups, entries).
        cross: Sum of y x', (groups, units per group, entries); None without outputs.
        answers: Sum of y, (groups, units per group); None without outputs.
        count: Positions so far, each as often as it counts.
    """

    second: FloatArray
    first: FloatArray
    cross: FloatArray | None = None
    answers: FloatArray | None = None
    count: float = 0

    def merge(self, other: Gram) -> Gram:
        """Return the sums over the positions of both."""
        return Gram(
            second=self.second + other.second,
            first=self.first + other.first,
            cross=_sum(self.cross, other.cross),
            answers=_sum(self.answers, other.answers),
            count=self.count + other.count,
        )

    def scaled(self, factor: float) -> Gram:
        """Return the sums with every position counted `factor` times."""
        return Gram(
            second=self.second * factor,
            first=self.first * factor,
            cross=None if self.cross is None else self.cross * factor,
            answers=None if self.answers is None else self.answers * factor,
            count=self.count * factor,
        )

    def of_units(self, some: slice) -> Gram:
        """Return the sums with the answers of some units of every group only."""
        assert self.cross is not None
        assert self.answers is not None
        return replace(self, cross=self.cross[:, some], answers=self.answers[:, some])

    @property
    def mean(self) -> FloatArray:
        """Mean of x, (groups, entries)."""
        return self.first / max(self.count, 1)

    @property
    def mean_answer(self) -> FloatArray:
        """Mean of y, (groups, units per group)."""
        assert self.answers is not None
        return self.answers / max(self.count, 1)

    @property
    def mean_square(self) -> FloatArray:
        """Mean of x**2, (groups, entries)."""
        full = self.second.ndim == 3
        squares = np.einsum("gii->gi", self.second) if full else self.second
        return squares / max(self.count, 1)

    def covariance(self, *, centred: bool = True) -> FloatArray:
        """Return the mean of x x', less that of the means if `centred`, (groups, d, d).

        An input that never changes has no covariance with anything, rather than rounding errors.
        """
        moment = self.second / max(self.count, 1)
        if centred:
            moment = moment - self.mean[:, :, None] * self.mean[:, None, :]
            group, entry = np.nonzero(self._still)
            moment[group, entry, :] = moment[group, :, entry] = 0.0
        return np.asarray(moment)

    def cross_covariance(self, *, centred: bool = True) -> FloatArray:
        """Return the mean of y x', less that of the means if `centred`, (groups, units, d).

        As in `covariance`, an input that never changes has none.
        """
        assert self.cross is not None
        moment = self.cross / max(self.count, 1)
        if centred:
            moment = moment - self.mean_answer[:, :, None] * self.mean[:, None, :]
            if self.second.ndim == 3:
                moment = np.where(self._still[:, None, :], 0.0, moment)
        return np.asarray(moment)

    @property
    def _still(self) -> NDArray[np.bool_]:
        """Which inputs never change, as far as can be told from rounding, (groups, d)."""
        variance = self.mean_square - np.square(self.mean)
        return np.asarray(variance <= np.maximum(_ROUNDING * self.mean_square, _SMALLEST))


def gram_of(
    columns: NDArray[Any], answers: NDArray[Any] | None = None, *, diagonal: bool = False
) -> Gram:
    """Return the sums over some samples.

    Args:
        columns: (samples, groups, entries, positions).
        answers: What the layer makes of them, (samples, groups, units per group, positions).
        diagonal: Whether only squares are wanted.
    """
    samples, groups, entries, positions = columns.shape
    count = samples * positions
    # All positions of all samples side by side: one large product instead of many small ones.
    wide = columns.transpose(1, 2, 0, 3).reshape(groups, entries, count)
    first = wide.sum(axis=2, dtype=np.float64)
    beside, total = None, None
    if answers is not None:
        beside = answers.transpose(1, 2, 0, 3).reshape(groups, answers.shape[2], count)
        total = beside.sum(axis=2, dtype=np.float64)
    if diagonal:
        second = np.einsum("gdp,gdp->gd", wide, wide, dtype=np.float64)
    else:
        second = _products(wide, first, wide, first)
    cross = None
    if beside is not None and total is not None:
        cross = _products(beside, total, wide, first)
    return Gram(second=second, first=first, cross=cross, answers=total, count=count)


def _products(
    one: NDArray[Any], one_sum: FloatArray, other: NDArray[Any], other_sum: FloatArray
) -> FloatArray:
    """Return the sum over positions of y x', (groups, units, entries).

    With means m and n, that is the sum of (y - m) (x - n)', where differences are as exact as the
    data, and what the means bring, in float64.

    Args:
        one: y, (groups, units, positions).
        one_sum: Sum of y, (groups, units).
        other: x, (groups, entries, positions).
        other_sum: Sum of x, (groups, entries).
    """
    count = one.shape[2]
    with np.errstate(invalid="ignore"):  # infinities are refused by whoever reads the sums
        means = [(part / max(count, 1)).astype(one.dtype) for part in (one_sum, other_sum)]
        # Means are rounded to the type of the data, so what they leave does not add up to zero.
        left = one_sum - count * means[0].astype(np.float64)
        total: FloatArray = np.matmul(
            np.stack([left, means[0]], axis=2), np.stack([means[1], other_sum], axis=1)
        )
        step = max(1, _PIECE // max(1, one.shape[0] * max(one.shape[1], other.shape[1])))
        for start in range(0, count, step):
            some = slice(start, start + step)
            apart = one[:, :, some] - means[0][:, :, None]
            beside = apart if other is one else other[:, :, some] - means[1][:, :, None]
            total += np.matmul(apart, beside.transpose(0, 2, 1))
    return total


def patch_columns(
    maps: NDArray[Any], geometry: ConvGeometry, groups: int, *, most: int | None = None
) -> NDArray[Any]:
    """Return what a convolution sees, (samples, groups, channels per group * taps, positions).

    Args:
        maps: (samples, channels, *spatial).
        geometry: The convolution.
        groups: Its groups.
        most: Take a regular grid of about so many output positions per sample, where there are
            more: neighbours see nearly the same. Convolutions only, not transposed ones.
    """
    samples, _, *size = maps.shape
    coarse = coarsened(geometry, tuple(size), most)
    seen = patches(maps.swapaxes(0, 1), coarse)
    # In memory samples are beside positions, as `gram_of` wants them.
    apart = seen.reshape(groups, -1, samples, seen.shape[-1])
    return apart.transpose(2, 0, 1, 3)


def coarse_answers(
    maps: NDArray[Any],
    geometry: ConvGeometry,
    size: tuple[int, ...],
    groups: int,
    *,
    most: int | None = None,
) -> NDArray[Any]:
    """Return a convolution's output at the positions of `patch_columns`.

    Args:
        maps: (samples, units, *spatial).
        geometry: The convolution.
        size: Spatial size of its input.
        groups: Its groups.
        most: As for `patch_columns`.

    Returns:
        (samples, groups, units per group, positions).
    """
    grid = _grid(geometry, size, most)
    picked = maps[(slice(None), slice(None), *(slice(start, None, step) for start, step in grid))]
    samples, units = maps.shape[:2]
    return picked.reshape(samples, groups, units // groups, -1)


def coarsened(geometry: ConvGeometry, size: tuple[int, ...], most: int | None) -> ConvGeometry:
    """Return the geometry with larger strides, so that about `most` output positions are left."""
    grid = _grid(geometry, size, most)
    if all(step == 1 for _, step in grid):
        return geometry
    # Automatic padding depends on the stride: say what it is before the stride changes.
    pads = geometry.resolved_pads(size)
    starts = [start * stride for (start, _), stride in zip(grid, geometry.strides, strict=True)]
    return replace(
        geometry,
        strides=tuple(
            stride * step for (_, step), stride in zip(grid, geometry.strides, strict=True)
        ),
        pads=(
            *(begin - start for (begin, _), start in zip(pads, starts, strict=True)),
            *(end for _, end in pads),
        ),
        auto_pad="NOTSET",
    )


def _grid(geometry: ConvGeometry, size: tuple[int, ...], most: int | None) -> list[tuple[int, int]]:
    """Return the first output position and the step along every axis.

    A position stands for those around it, so that a border, which padding makes different, does not
    count for more than it is.
    """
    if most is None or geometry.transposed:
        return [(0, 1)] * geometry.rank
    output = geometry.output_size(size)
    step = max(1, ceil((prod(output) / most) ** (1 / geometry.rank)))
    return [(min(step // 2, (length - 1) // 2), step) for length in output]


def _sum(one: FloatArray | None, other: FloatArray | None) -> FloatArray | None:
    return None if one is None or other is None else one + other
