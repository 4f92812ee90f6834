"""Of how many groups a multiple has to stay, so that every axis keeps a multiple of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm

CANDIDATES = (16, 8, 1)
"""What `auto` tries, the coarsest first: convolutions work on blocks of 16 or 8 channels, or do
not care."""
_AT_LEAST = 2
"""Fewer multiples than this leave no choice, so `auto` takes a finer one there."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How numbers of channels are rounded.

    Attributes:
        multiple: Keep a multiple of so many channels along every axis.
        fits: Whether short axes take a finer multiple, half as large or less.
    """

    multiple: int
    fits: bool = False

    def step(self, groups: int, entries: Sequence[int]) -> int:
        """Return of how many groups a multiple has to stay.

        Args:
            groups: How many groups there are in the same axes.
            entries: How many channels of an axis one group takes, for each of these axes. In a
                grouped convolution a group takes one channel in each of its groups, and one
                along the axis that holds the channels of a single group: both get a multiple.

        >>> Rounding(multiple=8).step(64, [1]), Rounding(multiple=8).step(12, [32])
        (8, 1)
        >>> Rounding(multiple=16, fits=True).step(24, [1])
        8
        """
        multiple = self.multiple
        while True:
            step = lcm(1, *(multiple // gcd(multiple, one) for one in entries))
            if not self.fits or multiple == 1 or groups >= _AT_LEAST * step:
                return step
            multiple //= 2


def roundings(asked: int | None) -> tuple[Rounding, ...]:
    """Return what is worth trying: what was asked for, or for None the candidates."""
    if asked is not None:
        return (Rounding(multiple=asked),)
    return tuple(Rounding(multiple=one, fits=True) for one in CANDIDATES)
