"""The order of axes: which one the model takes, and how samples get there.

Samples come first everywhere; "shape" below means the shape behind that axis.
"""

from __future__ import annotations

import math

import numpy as np

from onnx_relief.data.batch import Array
from onnx_relief.data.flags import Size
from onnx_relief.data.preprocess import Layout
from onnx_relief.tensors import TensorSpec


def fits(shape: tuple[int, ...], spec: TensorSpec, *, first_axis: bool = False) -> bool:
    """Return whether an array of `shape` has the rank and the fixed sizes of `spec`.

    Args:
        shape: The array's shape, samples included.
        spec: The model's input.
        first_axis: Whether the first axis has to agree as well.
    """
    if spec.shape is None:
        return True
    if len(shape) != len(spec.shape):
        return False
    pairs = list(zip(shape, spec.shape, strict=True))
    return all(have == want for have, want in pairs[not first_axis :] if isinstance(want, int))


def model_layout(spec: TensorSpec) -> Layout | None:
    """Return the layout of a picture input if its shape leaves no doubt.

    >>> model_layout(TensorSpec(name="x", dtype=None, shape=(None, 3, 224, 224)))
    'nchw'
    """
    if spec.shape is None or len(spec.shape) != 4:
        return None
    first, last = spec.shape[1] in (1, 3), spec.shape[3] in (1, 3)
    if first == last:
        return None
    return "nchw" if first else "nhwc"


def picture_axes(spec: TensorSpec, layout: Layout | None) -> tuple[int | None, Size | None]:
    """Return channels, and (height, width), as far as the model fixes them."""
    if spec.shape is None or len(spec.shape) != 4 or layout not in ("nchw", "nhwc"):
        return None, None
    order = (1, 2, 3) if layout == "nchw" else (3, 1, 2)
    channels, height, width = (spec.shape[axis] for axis in order)
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return channels if isinstance(channels, int) else None, size


def arrange_pictures(block: Array, layout: Layout) -> Array:
    """Return pictures of shape (samples, height, width, channels) in `layout`."""
    if layout == "nchw":
        return np.moveaxis(block, -1, 1)
    if layout == "nhwc":
        return block
    return block.reshape(len(block), math.prod(block.shape[1:]))


def arrange(block: Array, layout: Layout | None, spec: TensorSpec) -> Array | None:
    """Return `block` with the axes that `spec` takes, or None where `layout` does not lead there.

    Without a layout nothing is moved. With one, channels move, the missing channel axis of gray
    pictures is added, rows of numbers become gray pictures, and `flat` makes every sample a row.
    """
    for candidate in _candidates(block, layout, spec):
        if fits(candidate.shape, spec):
            return candidate
    return None


def _candidates(block: Array, layout: Layout | None, spec: TensorSpec) -> list[Array]:
    if layout is None:
        return [block]
    if layout == "flat":
        return [block.reshape(len(block), math.prod(block.shape[1:]))]
    axis = 1 if layout == "nchw" else -1
    if block.ndim == 2:
        # The order of flattened colours is not known; a single channel has only one.
        channels, size = picture_axes(spec, layout)
        if channels != 1 or size is None or block.shape[1] != math.prod(size):
            return []
        return [np.expand_dims(block.reshape(len(block), *size), axis)]
    if block.ndim == 3:
        return [np.expand_dims(block, axis)]
    if block.ndim != 4:
        return []
    moved = np.moveaxis(block, -axis, axis)
    return [moved, block] if channel_axis(block.shape) not in (None, axis) else [block, moved]


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return 1 or -1 where the channels of colour or gray pictures must be, None in doubt."""
    first, last = shape[1] in (1, 3), shape[-1] in (1, 3)
    if first == last:
        return None
    return 1 if first else -1
