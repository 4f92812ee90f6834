"""What every tap of a convolution sees of its input, and the Gram matrices of that, per channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.mean import FloatArray
from onnx_relief.geometry import ConvGeometry


def patch_gram(maps: FloatArray, geometry: ConvGeometry) -> FloatArray:
    """Return the Gram matrices of the patches of each channel, shape (channels, taps, taps).

    Args:
        maps: One map per channel, shape (channels, *spatial).
        geometry: The convolution that reads them; ConvTranspose counts the taps that each input
            value is spread to, at the output positions that survive cropping.
    """
    return np.stack([channel @ channel.T for channel in patches(maps, geometry)])


def patches(maps: NDArray[Any], geometry: ConvGeometry) -> NDArray[Any]:
    """Return every tap's view of the input, shape (channels, taps, ..., output positions).

    Args:
        maps: Shape (channels, ..., *spatial): one map per channel, or several.
        geometry: The convolution that reads them.
    """
    channels, *several = maps.shape[: -geometry.rank]
    size = maps.shape[-geometry.rank :]
    output = geometry.output_size(size)
    margins = geometry.resolved_pads(size)
    steps = geometry.strides
    kernel = geometry.kernel
    if geometry.transposed:
        # A ConvTranspose is a convolution with flipped taps over the input with zeros between its
        # values, padded by what the kernel reaches over and cropped by its pads.
        reach = [(k - 1) * d for k, d in zip(kernel, geometry.dilations, strict=True)]
        maps = _spread(maps, steps)
        spread = maps.shape[-geometry.rank :]
        margins = tuple(
            (over - begin, out + begin - wide)
            for over, (begin, _), out, wide in zip(reach, margins, output, spread, strict=True)
        )
        steps = (1,) * geometry.rank
    maps = _crop_or_pad(maps, margins)
    taps = np.empty((channels, geometry.taps, *several, int(np.prod(output))), maps.dtype)
    for index, tap in enumerate(np.ndindex(*kernel)):
        start = [
            ((k - 1 - t) if geometry.transposed else t) * d
            for t, k, d in zip(tap, kernel, geometry.dilations, strict=True)
        ]
        window = [
            slice(first, first + (count - 1) * step + 1, step)
            for first, count, step in zip(start, output, steps, strict=True)
        ]
        taps[:, index].reshape(channels, *several, *output)[...] = maps[_all_of(maps, window)]
    return taps


def _all_of(maps: NDArray[Any], window: list[slice]) -> tuple[slice, ...]:
    """Return the index of a window of the last axes in all of the others."""
    return (*[slice(None)] * (maps.ndim - len(window)), *window)


def _spread(maps: NDArray[Any], strides: tuple[int, ...]) -> NDArray[Any]:
    several, size = maps.shape[: -len(strides)], maps.shape[-len(strides) :]
    wide = [(s - 1) * step + 1 for s, step in zip(size, strides, strict=True)]
    spread = np.zeros((*several, *wide), maps.dtype)
    spread[_all_of(spread, [slice(None, None, step) for step in strides])] = maps
    return spread


def _crop_or_pad(maps: NDArray[Any], margins: tuple[tuple[int, int], ...]) -> NDArray[Any]:
    cropped = maps[_all_of(maps, [slice(max(0, -begin), None) for begin, _ in margins])]
    padding = [(max(0, begin), max(0, end)) for begin, end in margins]
    if not any(begin or end for begin, end in padding):
        return cropped  # np.pad copies all the same
    return np.pad(cropped, [(0, 0)] * (maps.ndim - len(margins)) + padding)
