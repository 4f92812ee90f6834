r"""How much signal a kernel passes on, without convolving anything.

With `k` one kernel flattened to its `T` taps and `P` the (positions, T) matrix of the input patches
that it meets, the map it makes is `P k`, so that

    || P k ||_F^2 = k' (P' P) k = k' G k,

where the Gram matrix `G` (T, T) depends on the input alone and serves every filter that reads it.
`G` is symmetric: only its upper triangle is used, the entries off the diagonal twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.mean import FloatArray

_BLOCK_ENTRIES = 250_000  # the products of one block stay in the processor's cache


@dataclass(frozen=True, eq=False, kw_only=True)
class Signal:
    """What was measured of the connections through one weight.

    Attributes:
        measured: The norm (or mean) of every input, as seen by each tap, which the weight scales:
            (groups, inputs, taps or 1). Or, with `is_whole`, the signal of every kernel itself:
            (units, inputs, 1).
        is_whole: Whether `measured` includes the weights.
        reads: (groups * inputs,): 0 where an input was zero on all samples.
    """

    measured: FloatArray
    is_whole: bool
    reads: FloatArray

    def of(self, weights: NDArray[Any], first: int, units: int) -> FloatArray:
        """Return the signals of some units, (n, inputs, taps or 1).

        Args:
            weights: The weights of these units, (n, inputs, taps).
            first: Number of the first of them.
            units: Number of units in all.
        """
        last = first + len(weights)
        if self.is_whole:
            return self.measured[first:last]
        group = np.arange(first, last) // (units // len(self.measured))
        return np.abs(weights.astype(np.float64)) * self.measured[group]


def kernel_norms(kernels: NDArray[Any], gram: NDArray[Any], groups: int) -> FloatArray:
    """Return sum over samples of the norm of each kernel's map, shape (units, channels per group).

    Squares are computed in the precision of `gram`, norms are added up in float64.

    Args:
        kernels: The kernels, shape (units, channels per group, taps); their signs do not matter.
        gram: Patch Gram matrices, shape (samples, groups * channels per group, taps, taps).
        groups: Number of groups; unit j reads the channels of group j // (units / groups).
    """
    units, width, taps = kernels.shape
    per_group = units // groups
    pairs = _upper_triangle(gram)
    norms = np.empty((units, width))
    block = max(1, _BLOCK_ENTRIES // (per_group * max(pairs.shape[1:])))
    for group in range(groups):
        rows = slice(group * per_group, (group + 1) * per_group)
        for start in range(0, width, block):
            part = slice(start, min(start + block, width))
            products = _pair_products(kernels[rows, part], taps, pairs.dtype)
            first = group * width
            squares = products @ pairs[first + part.start : first + part.stop]
            # Rounding may push a square of a norm below zero; the norm itself cannot be.
            np.sqrt(np.maximum(squares, 0.0, out=squares), out=squares)
            norms[rows, part] = squares.sum(axis=2, dtype=np.float64).T
    return norms


def _upper_triangle(gram: NDArray[Any]) -> NDArray[Any]:
    """Return the entries t <= u, shape (channels, pairs, samples), doubled where t < u."""
    samples, channels, taps, _ = gram.shape
    upper, lower = np.triu_indices(taps)
    twice = np.where(upper == lower, 1.0, 2.0).astype(gram.dtype)
    # Samples go last first, so that picking pairs copies whole runs of memory.
    by_channel = np.ascontiguousarray(gram.reshape(samples, channels, taps**2).transpose(1, 2, 0))
    pairs: NDArray[Any] = by_channel[:, upper * taps + lower]
    pairs *= twice[:, None]
    return pairs


def _pair_products(kernels: NDArray[Any], taps: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return |k_t k_u| for all pairs t <= u of taps, shape (channels, units, pairs)."""
    by_channel = np.ascontiguousarray(np.abs(kernels).transpose(1, 2, 0), dtype=dtype)
    channels, _, units = by_channel.shape
    products = np.empty((channels, taps * (taps + 1) // 2, units), dtype=dtype)
    at = 0
    for tap in range(taps):
        out = products[:, at : at + taps - tap]
        np.multiply(by_channel[:, tap:], by_channel[:, tap : tap + 1], out=out)
        at += taps - tap
    return products.transpose(0, 2, 1)
