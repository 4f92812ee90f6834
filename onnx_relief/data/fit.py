"""Make samples fit one input of the model, or say in one sentence why not and which flag mends it.

The flag is found by trying: what the sentence names has been seen to lead to the wanted shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_relief.data.arrange import arrange, arrange_pictures, fits, model_layout, picture_axes
from onnx_relief.data.batch import Array, Rows
from onnx_relief.data.cast import cast_values, normalised
from onnx_relief.data.flags import Size
from onnx_relief.data.preprocess import Color, Layout, Preprocess
from onnx_relief.data.rendering import layout_for_pictures, render_block, rendering
from onnx_relief.errors import DataError, SettingsError
from onnx_relief.tensors import TensorSpec


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the samples of one input become what the model takes.

    Attributes:
        spec: The model's input.
        preprocess: What the user said.
        origin: What to call the data in an error.
        pictures: Whether blocks are pictures, uint8 (samples, height, width, channels), already
            of the right size and colour; else they are arrays as they were stored.
    """

    spec: TensorSpec
    preprocess: Preprocess
    origin: str
    pictures: bool = False

    def __call__(self, block: Array, rows: Rows) -> Array:
        """Return the block as the model takes it.

        Args:
            block: Samples along the first axis, at least one.
            rows: Number of each sample in the data.

        Raises:
            DataError: Shape, type or values do not suit the model.
            SettingsError: The preprocessing does not suit it.
        """
        shaped, wanted, layout = self._shaped(block)
        if shaped is None:
            raise DataError(self._misfit(block, crop=self.pictures and wanted.crop is not None))
        values = normalised(shaped, wanted, self.spec, layout, origin=self.origin)
        remedy = _scale_remedy(block.dtype)
        cast = cast_values(values, self.spec, origin=self.origin, rows=rows, remedy=remedy)
        return np.ascontiguousarray(cast)

    def _shaped(self, block: Array) -> tuple[Array | None, Preprocess, Layout | None]:
        """Return the block in the model's shape, None if misfit; what holds for it; its layout."""
        if self.pictures:
            layout = layout_for_pictures(self.spec, self.preprocess)
            wanted = self.preprocess.for_pictures(picture_axes(self.spec, layout)[1])
            return shape_pictures(block, layout, self.spec), wanted, layout
        wanted = self.preprocess.for_arrays(block.dtype)
        shaped = shape_arrays(block, wanted, self.spec, self.origin)
        return shaped, wanted, wanted.layout or model_layout(self.spec)

    def _misfit(self, block: Array, *, crop: bool) -> str:
        text = (
            f"{self.origin} has {block.dtype.name} samples of shape {block.shape[1:]}, but "
            f"the model's input {self.spec.name!r} takes {self.spec.describe()}"
        )
        if self.spec.shape is not None and fits(block.shape[1:], self.spec, first_axis=True):
            return f"{text} and has no axis for samples; give {COMPLETE_FEEDS}"
        if not self.pictures and fits(block.shape, self.spec):
            return f"{text}; leave out {self.preprocess.flags()}, without which it fits"
        flag = mending_flag(block[:1], self.preprocess, self.spec, crop=crop)
        if flag is None:
            return f"{text}; give data of that shape"
        floats = self.spec.dtype is not None and self.spec.dtype.kind == "f"
        scaled = self.preprocess.for_pictures(None).changes_values
        if block.dtype == np.uint8 and floats and not scaled:
            return f"{text}; {flag} makes it fit, with --scale 1/255 or --preset NAME for pixels"
        return f"{text}; {flag} makes it fit"


COMPLETE_FEEDS = "a folder of .npz files that each hold one complete feed"


def shape_pictures(block: Array, layout: Layout, spec: TensorSpec) -> Array | None:
    """Return pictures (samples, height, width, channels) in the model's layout, None if misfit."""
    shaped = arrange_pictures(block, layout)
    return shaped if fits(shaped.shape, spec) else None


def shape_arrays(
    block: Array, preprocess: Preprocess, spec: TensorSpec, origin: str
) -> Array | None:
    """Return arrays resized where that was asked, in the model's layout, None if they do not fit.

    Raises:
        DataError: Resizing was asked for what is not an 8-bit picture.
        SettingsError: As `layout_for_pictures` and `rendering`.
    """
    if not preprocess.changes_pictures:
        return arrange(block, preprocess.layout, spec)
    layout = layout_for_pictures(spec, preprocess)
    pictures = render_block(block, rendering(spec, preprocess, layout), origin)
    if pictures is None:
        raise DataError(
            f"{origin} holds {block.dtype.name} of shape {block.shape[1:]} for each sample, and "
            "--resize, --crop and --color work on pictures and uint8 arrays of gray or RGB pixels "
            "only; leave them out or store such an array"
        )
    return shape_pictures(pictures, layout, spec)


def mending_flag(
    sample: Array, preprocess: Preprocess, spec: TensorSpec, *, crop: bool
) -> str | None:
    """Return the fewest flags that make one sample fit, for example ``--layout nchw``, or None."""
    for layout, size, color in sorted(_trials(spec), key=_effort):
        tried = Preprocess(layout=layout or preprocess.layout, resize=size, color=color)
        try:
            shaped = shape_arrays(sample, tried, spec, "")
        except (DataError, SettingsError):
            continue
        if shaped is not None:
            return _flag_text(layout, size, color, crop=crop)
    return None


def _trials(spec: TensorSpec) -> Iterator[tuple[Layout | None, Size | None, Color | None]]:
    """Yield every combination of a layout, a size and a colour that is worth trying."""
    layouts: tuple[Layout | None, ...] = (None, "nchw", "nhwc", "flat")
    colors: tuple[Color | None, ...] = (None, "gray", "rgb")
    sizes = [None, picture_axes(spec, "nchw")[1], picture_axes(spec, "nhwc")[1]]
    if spec.shape is not None and len(spec.shape) == 2 and isinstance(spec.shape[1], int):
        side = math.isqrt(spec.shape[1])
        sizes.append((side, side) if side * side == spec.shape[1] else None)
    for layout, size, color in itertools.product(layouts, dict.fromkeys(sizes), colors):
        if (layout, size, color) != (None, None, None):
            yield layout, size, color


def _effort(trial: tuple[Layout | None, Size | None, Color | None]) -> tuple[int, bool, bool]:
    """Order trials: few flags first; moving axes before changing colours before resizing."""
    _, size, color = trial
    return sum(part is not None for part in trial), size is not None, color is not None


def _flag_text(layout: Layout | None, size: Size | None, color: Color | None, *, crop: bool) -> str:
    flags = []
    if layout is not None:
        flags.append(f"--layout {layout}")
    if size is not None:
        flags.append(f"--resize {size[0]}x{size[1]}")
        if crop:
            flags.append(f"--crop {size[0]}x{size[1]}")
    if color is not None:
        flags.append(f"--color {color}")
    return " ".join(flags)


def _scale_remedy(dtype: np.dtype[Any]) -> str:
    if dtype == np.uint8:
        return (
            "say how pixels become floats with --scale 1/255 or --preset NAME "
            "(--scale 1 takes them as they are)"
        )
    return "say how whole numbers become floats with --scale (--scale 1 takes them as they are)"
