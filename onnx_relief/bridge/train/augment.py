"""Random flips, crops and enlargements of pictures, other colours, and parts of other pictures.

All but the last are the same for a sample in an epoch whatever batch it is in.

The random numbers are a hash of seed, epoch and row (SplitMix64, Steele et al., OOPSLA 2014), so
neither batch size, number of processes nor resuming changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onnx_relief.data import Dataset
from onnx_relief.data.arrange import model_layout
from onnx_relief.data.batch import Array, Rows
from onnx_relief.data.flags import Size
from onnx_relief.data.margin import with_margin
from onnx_relief.data.samples import SampleSource
from onnx_relief.errors import SettingsError

PictureLayout = Literal["nchw", "nhwc"]
_FLIP, _DOWN, _RIGHT, _AREA, _SHAPE, _TOP, _LEFT = range(7)
_LIGHT, _CONTRAST, _COLOUR = range(7, 10)
_MIXED, _PARTNER, _PART, _PART_TOP, _PART_LEFT = range(10, 15)
_LONGEST = 4 / 3
"""Sides of an enlarged part, at most, as in Szegedy et al., arXiv 1409.4842."""
_PARTS = (0.05, 0.65)
"""Share of the area that a part of another picture covers, at least and at most."""
_LOOKED_AT = 16
"""Samples that say what black and white are."""
_COLOURS = 3
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to the pictures of a batch.

    Attributes:
        layouts: Layout of every picture input by name.
        sizes: Height and width that the model is fed with, by name.
        flip: Whether to mirror half of them left to right.
        padding: Pixels of zeros on each side before the crop; 0 for no crop.
        scale: Least share of the area that the model sees, a random part of which is enlarged to
            the whole; 1 for none.
        jitter: By how much of themselves brightness, contrast and saturation change at most.
        mixed: Share of pictures that get a part of another one of the batch (CutMix, Yun et al.,
            arXiv 1905.04899); nothing is done to labels.
        levels: Black and white by input, where colours change.
        seed: Of the training.
    """

    layouts: Mapping[str, PictureLayout]
    sizes: Mapping[str, Size]
    flip: bool
    padding: int
    scale: float = 1.0
    jitter: float = 0.0
    mixed: float = 0.0
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seed: int

    def drawn_from(self, data: Dataset) -> Dataset:
        """Return the data whose pictures are to be changed: with what a centre crop leaves out.

        That is so where parts are enlarged, which then lie anywhere in it.
        """
        return with_margin(data) if self.scale < 1 else data

    def __call__(self, feed: Mapping[str, Array], rows: Rows, epoch: int) -> dict[str, Array]:
        """Return the feed with its pictures changed; the first `rows` samples of each are.

        Args:
            feed: Arrays by input name, of data that `drawn_from` gave.
            rows: Row of every real sample.
            epoch: From 0.
        """
        changed = dict(feed)
        for name, layout in self.layouts.items():
            pictures = feed[name].copy() if layout == "nchw" else np.moveaxis(feed[name], 3, 1)
            if len(pictures) > len(rows):  # filled up for a model with a fixed batch
                rows = np.concatenate([rows, np.repeat(rows[-1:], len(pictures) - len(rows))])
            if self.padding:
                pictures = self._cropped(pictures, rows, epoch)
            if self.scale < 1:
                pictures = self._enlarged(pictures, self.sizes[name], rows, epoch)
            if self.flip:
                chosen = uniform(self.seed, epoch, rows, _FLIP) < 0.5
                pictures = np.where(chosen[:, None, None, None], pictures[..., ::-1], pictures)
            if self.jitter:
                pictures = self._recoloured(pictures, self.levels[name], rows, epoch)
            if self.mixed:
                pictures = self._with_parts(pictures, rows, epoch)
            ordered = pictures if layout == "nchw" else np.moveaxis(pictures, 1, 3)
            changed[name] = np.ascontiguousarray(ordered)
        return changed

    def _cropped(self, pictures: Array, rows: Rows, epoch: int) -> Array:
        """Return (samples, channels, height, width) moved by up to `padding` each way."""
        size = self.padding
        padded = np.pad(pictures, ((0, 0), (0, 0), (size, size), (size, size)))
        windows = sliding_window_view(padded, pictures.shape[2:], axis=(2, 3))
        down, right = (
            (uniform(self.seed, epoch, rows, draw) * (2 * size + 1)).astype(np.int64)
            for draw in (_DOWN, _RIGHT)
        )
        cropped: Array = windows[np.arange(len(pictures)), :, down, right]
        return cropped

    def _enlarged(self, pictures: Array, wanted: Size, rows: Rows, epoch: int) -> Array:
        """Return (samples, channels, *wanted) of a part of each, stretched to the whole."""
        area, shape, top, left = (
            uniform(self.seed, epoch, rows, draw) for draw in (_AREA, _SHAPE, _TOP, _LEFT)
        )
        size, room = np.array(wanted), np.array(pictures.shape[2:])
        ratio = np.sqrt(_LONGEST ** (2 * shape - 1))
        sides = np.sqrt(self.scale + (1 - self.scale) * area)[:, None] * size
        sides *= np.stack([1 / ratio, ratio], axis=1)
        sides = np.clip(np.rint(sides), 1, size).astype(np.int64)
        starts = (np.stack([top, left], axis=1) * (room - sides + 1)).astype(np.int64)
        enlarged = np.empty((*pictures.shape[:2], *wanted), dtype=pictures.dtype)
        for place, ((height, width), (down, right)) in enumerate(zip(sides, starts, strict=True)):
            part = pictures[place : place + 1, :, down : down + height, right : right + width]
            wide = torch.from_numpy(part.astype(np.float32))
            stretched = torch.nn.functional.interpolate(
                wide, size=wanted, mode="bilinear", align_corners=False
            )
            found = stretched.numpy()[0]
            enlarged[place] = np.rint(found) if pictures.dtype.kind in "iu" else found
        return enlarged

    def _recoloured(
        self, pictures: Array, levels: tuple[float, float], rows: Rows, epoch: int
    ) -> Array:
        """Return (samples, channels, height, width) of other brightness, contrast, saturation."""
        black, white = levels
        bright, contrast, saturation = (
            (1 + self.jitter * (2 * uniform(self.seed, epoch, rows, draw) - 1))
            .astype(np.float32)
            .reshape(-1, 1, 1, 1)
            for draw in (_LIGHT, _CONTRAST, _COLOUR)
        )
        values = (pictures.astype(np.float32) - black) * bright
        values = _away_from(values, values.mean(axis=(1, 2, 3), keepdims=True), contrast)
        if pictures.shape[1] == _COLOURS:
            values = _away_from(values, values.mean(axis=1, keepdims=True), saturation)
        values = np.clip(values + black, black, white)
        found = np.rint(values) if pictures.dtype.kind in "iu" else values
        return np.asarray(found.astype(pictures.dtype))

    def _with_parts(self, pictures: Array, rows: Rows, epoch: int) -> Array:
        """Return (samples, channels, height, width), some with a part of the next in some order."""
        chosen, order, part, top, left = (
            uniform(self.seed, epoch, rows, draw)
            for draw in (_MIXED, _PARTNER, _PART, _PART_TOP, _PART_LEFT)
        )
        ring = np.argsort(order, kind="stable")
        partner = np.empty_like(ring)
        partner[ring] = np.roll(ring, 1)
        size = np.array(pictures.shape[2:])
        least, most = _PARTS
        sides = np.sqrt(least + (most - least) * part)[:, None] * size
        sides = np.clip(np.rint(sides), 1, size).astype(np.int64)
        starts = (np.stack([top, left], axis=1) * (size - sides + 1)).astype(np.int64)
        mixed: Array = pictures.copy()
        for place in np.flatnonzero(chosen < self.mixed):
            (height, width), (down, right) = sides[place], starts[place]
            window = (slice(None), slice(down, down + height), slice(right, right + width))
            mixed[place][window] = pictures[partner[place]][window]
        return mixed


def _away_from(values: Array, middle: Array, factor: Array) -> Array:
    """Return the values, so many times as far from the middle, in their place."""
    values -= middle
    values *= factor
    values += middle
    return values


def augmentation(
    data: Dataset,
    sample: Mapping[str, Array],
    *,
    flip: bool,
    crop_padding: int,
    crop_scale: float = 1.0,
    color_jitter: float = 0.0,
    cutmix: float = 0.0,
    seed: int,
) -> Augmentation | None:
    """Return the `Augmentation` that the user wants, or None.

    Args:
        data: The training data.
        sample: One feed of it.
        flip: Whether to mirror half of the pictures left to right.
        crop_padding: Pixels of zeros on each side before the crop; 0 for no crop.
        crop_scale: Least share of the area that the model sees, a random part of which is enlarged
            to the whole; 1 for none.
        color_jitter: By how much of themselves brightness, contrast and saturation change at most.
        cutmix: Share of pictures that get a part of another one of their batch.
        seed: Of the training.

    Raises:
        SettingsError: There are no pictures.
    """
    flags = {
        "--flip": flip,
        "--crop-padding": crop_padding,
        "--crop-scale": crop_scale < 1,
        "--color-jitter": color_jitter,
        "--cutmix": cutmix,
    }
    if not any(flags.values()):
        return None
    layouts = picture_layouts(data, sample)
    if not layouts:
        flag = next(name for name, said in flags.items() if said)
        shapes = ", ".join(f"{name!r} of shape {array.shape}" for name, array in sample.items())
        raise SettingsError(
            f"{flag} needs pictures (samples, channels, height, width), but the model is fed "
            f"{shapes}{' in complete feeds' if data.whole_feeds else ''}; leave {flag} out"
        )
    return Augmentation(
        layouts=layouts,
        sizes={n: _height_and_width(layouts[n], sample[n].shape) for n in layouts},
        flip=flip,
        padding=crop_padding,
        scale=crop_scale,
        jitter=color_jitter,
        mixed=cutmix,
        levels=_levels(data, layouts) if color_jitter else {},
        seed=seed,
    )


def picture_layouts(data: Dataset, sample: Mapping[str, Array]) -> dict[str, PictureLayout]:
    """Return the layout of the inputs that may be pictures, by name; none of complete feeds."""
    if data.whole_feeds:
        return {}
    return {n: _layout(data, n, array.shape) for n, array in sample.items() if array.ndim == 4}


def _height_and_width(layout: PictureLayout, shape: tuple[int, ...]) -> Size:
    return (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])


def _levels(data: Dataset, names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the least and the largest number of some pictures, by input."""
    feeds = [batch.feed for batch in data.take(_LOOKED_AT).batches(1)]
    return {
        name: (
            float(min(feed[name].min() for feed in feeds)),
            float(max(feed[name].max() for feed in feeds)),
        )
        for name in names
    }


def _layout(data: Dataset, name: str, shape: tuple[int, ...]) -> PictureLayout:
    """Return what was said of an input, else what its shape says: few channels, many pixels."""
    fits = data.source.fits.values() if isinstance(data.source, SampleSource) else ()
    for fit in fits:
        said = fit.preprocess.layout or model_layout(fit.spec)
        if fit.spec.name == name and said in ("nchw", "nhwc"):
            return "nchw" if said == "nchw" else "nhwc"
    return "nhwc" if shape[3] < shape[1] else "nchw"


def uniform(seed: int, epoch: int, rows: Rows, draw: int) -> NDArray[np.float64]:
    """Return one number in [0, 1) for each row, (rows,)."""
    start, epochs, draws = (
        np.full(len(rows), part % 2**64, dtype=np.uint64) for part in (seed, epoch, draw)
    )
    state = start
    for part in (epochs, draws, rows.astype(np.uint64)):
        state = _mixed(state + part * _GAMMA)
    return np.asarray((state >> np.uint64(11)) * 2.0**-53)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + _GAMMA  # arrays of whole numbers wrap around
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
