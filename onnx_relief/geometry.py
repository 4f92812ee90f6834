"""The shape arithmetic of convolutions: which input positions meet which kernel taps.

One value serves Conv and ConvTranspose in any number of spatial dimensions. Sources: ONNX operator
specifications of Conv and ConvTranspose (output sizes, `auto_pad`, `output_padding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

AutoPad = Literal["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """Kernel, stride, dilation and padding of one convolution; all tuples have one entry per axis.

    Attributes:
        kernel: Kernel size per spatial axis.
        strides: Step per spatial axis.
        dilations: Distance between taps per spatial axis.
        pads: Begin of every axis, then end of every axis, as ONNX stores them.
        auto_pad: ONNX's `auto_pad`; anything but NOTSET overrides `pads`.
        transposed: Whether this is a ConvTranspose.
        output_padding: ConvTranspose only: extra size at the end of every axis.
        output_shape: ConvTranspose only: the spatial output shape, where the node fixes it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: AutoPad = "NOTSET"
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()

    @property
    def taps(self) -> int:
        """Number of weights in one kernel."""
        return prod(self.kernel)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial output size for the spatial input `size`."""
        if self.transposed and self.output_shape:
            return self.output_shape
        pads = self.resolved_pads(size)
        return tuple(
            self._transposed_extent(axis, size[axis]) - begin - end
            if self.transposed
            else (size[axis] + begin + end - self._span(axis)) // self.strides[axis] + 1
            for axis, (begin, end) in enumerate(pads)
        )

    def resolved_pads(self, size: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return (begin, end) padding per axis for the input `size`; crops if transposed."""
        return tuple(self._pad(axis, size[axis]) for axis in range(self.rank))

    def _span(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def _transposed_extent(self, axis: int, size: int) -> int:
        extra = self.output_padding[axis] if self.output_padding else 0
        return (size - 1) * self.strides[axis] + self._span(axis) + extra

    def _pad(self, axis: int, size: int) -> tuple[int, int]:
        if self.transposed and self.output_shape:
            total = self._transposed_extent(axis, size) - self.output_shape[axis]
        elif self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            if self.transposed:
                total = self._transposed_extent(axis, size) - size * self.strides[axis]
            else:
                steps = -(-size // self.strides[axis]) - 1
                total = steps * self.strides[axis] + self._span(axis) - size
        elif self.auto_pad == "VALID":
            return 0, 0
        else:
            return self.pads[axis], self.pads[self.rank + axis]
        # Where the kernel does not reach as far as the output asked for, ONNX Runtime pads nothing.
        return self._halves(max(0, total))

    def _halves(self, total: int) -> tuple[int, int]:
        # The odd element goes to the end for SAME_UPPER. ConvTranspose's `output_shape` rule in the
        # specification says the same, and everything that is not SAME_UPPER puts it at the begin.
        small, large = total // 2, total - total // 2
        return (small, large) if self.auto_pad == "SAME_UPPER" else (large, small)
