"""One picture -> the pixels that the model takes: resized, cropped at the centre, in its colours.

Sizes and the place of the crop follow torchvision's Resize (bilinear, antialiased) and CenterCrop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from onnx_relief.data.arrange import channel_axis, model_layout, picture_axes
from onnx_relief.data.batch import Array
from onnx_relief.data.decode import BrokenPictureError, check_pixels
from onnx_relief.data.flags import Size
from onnx_relief.data.preprocess import Color, Layout, Preprocess
from onnx_relief.errors import DataError, SettingsError
from onnx_relief.tensors import TensorSpec


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What becomes of every picture.

    Attributes:
        resize: Shorter side, or (height, width), or None.
        crop: Side, or (height, width), or None.
        color: Channels that come out.
    """

    resize: int | Size | None
    crop: int | Size | None
    color: Color

    def pixels(self, image: Image.Image, name: str) -> Array:
        """Return uint8 of shape (height, width, channels).

        Args:
            image: Mode L or RGB.
            name: What to call the picture in an error.

        Raises:
            DataError: It is smaller than the crop.
            BrokenPictureError: Resizing would make it enormous (a picture one pixel wide).
        """
        image = image.convert("L" if self.color == "gray" else "RGB")
        if self.resize is not None:
            height, width = resized(image.height, image.width, self.resize)
            check_pixels(width, height)
            if (width, height) != image.size:
                image = image.resize((width, height), Image.Resampling.BILINEAR)
        if self.crop is not None:
            image = _cropped(image, self.crop, name)
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        return pixels[:, :, ::-1] if self.color == "bgr" else pixels


def resized(height: int, width: int, wanted: int | Size) -> Size:
    """Return height and width of a picture once it is resized."""
    if isinstance(wanted, tuple):
        return wanted
    if height <= width:
        return wanted, max(1, wanted * width // height)
    return max(1, wanted * height // width), wanted


def _cropped(image: Image.Image, wanted: int | Size, name: str) -> Image.Image:
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    if image.height < height or image.width < width:
        raise DataError(
            f"{name} is {image.height} x {image.width} pixels, smaller than the crop of "
            f"{height} x {width}; give --resize {max(height, width)} or more, or a smaller --crop"
        )
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def layout_for_pictures(spec: TensorSpec, preprocess: Preprocess) -> Layout:
    """Return the layout of an input that is fed with pictures.

    Raises:
        SettingsError: It is not said and the input's shape leaves it open.
    """
    layout = preprocess.layout or model_layout(spec)
    if layout is None:
        raise SettingsError(
            f"the model's input {spec.name!r}, {spec.describe()}, does not show where the channels "
            "of a picture are; give --layout nchw, --layout nhwc or --layout flat"
        )
    return layout


def rendering(spec: TensorSpec, preprocess: Preprocess, layout: Layout) -> Rendering:
    """Return how pictures are made to fit `spec`; its presets must be filled in already.

    Raises:
        SettingsError: The colour asked for has another number of channels than the model.
    """
    channels, _ = picture_axes(spec, layout)
    color: Color | None = preprocess.color
    if color is None:
        # A row of numbers says nothing about channels: gray pictures are what is fed that way.
        color = "gray" if channels == 1 or layout == "flat" else "rgb"
    made = 1 if color == "gray" else 3
    if channels not in (None, made):
        raise SettingsError(
            f"pictures in {color} have {made} channel{'s' if made > 1 else ''}, but the model's "
            f"input {spec.name!r} takes {channels}; give --color "
            f"{'gray' if channels == 1 else 'rgb'} or another --layout"
        )
    return Rendering(resize=preprocess.resize, crop=preprocess.crop, color=color)


def render_block(block: Array, plan: Rendering, origin: str) -> Array | None:
    """Return 8-bit arrays treated as pictures: (samples, height, width, channels).

    None where they do not look like pictures.

    Raises:
        DataError: Resizing would make them enormous, or they are smaller than the crop.
    """
    if block.dtype != np.uint8 or block.ndim not in (3, 4) or 0 in block.shape:
        return None
    if block.ndim == 4:
        axis = channel_axis(block.shape)
        if axis is None:
            return None
        block = np.moveaxis(block, axis, -1)
        block = block[..., 0] if block.shape[-1] == 1 else block
    images = (Image.fromarray(np.ascontiguousarray(row)) for row in block)
    try:
        return np.stack([plan.pixels(image, origin) for image in images])
    except BrokenPictureError as error:
        raise DataError(f"{origin} cannot be resized: {error}; give a smaller --resize") from error
