"""Pictures with what lies around their centre crop, for training that moves the crop about."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Final

from onnx_relief.data.arrange import channel_axis, model_layout
from onnx_relief.data.arrays import ArraySamples
from onnx_relief.data.batch import Dataset
from onnx_relief.data.fit import Fit
from onnx_relief.data.flags import Size
from onnx_relief.data.pictures import PictureSamples
from onnx_relief.data.preprocess import Layout
from onnx_relief.data.rendering import resized
from onnx_relief.data.samples import SampleSource
from onnx_relief.tensors import TensorSpec

_AXES: Final = MappingProxyType({"nchw": (2, 3), "nhwc": (1, 2)})
"""Height and width, samples first."""


def with_margin(data: Dataset) -> Dataset:
    """Return the same samples, pictures with as much around their centre crop as all of them have.

    What comes is of the crop's shape and larger than what the model takes. Data without a crop, or
    whose pictures end with it, stays as it is, and so do pictures of a folder that are not resized,
    since how large they are is not known.
    """
    source = data.source
    if not isinstance(source, SampleSource):
        return data
    raw, fits = source.raw, dict(source.fits)
    for name, fit in source.fits.items():
        layout = fit.preprocess.layout or model_layout(fit.spec)
        if layout is None or layout == "flat":
            continue
        if isinstance(raw, PictureSamples):
            crop = _widened(raw.plan.crop, _least(raw.plan.resize))
            if crop is not None:
                raw = replace(raw, plan=replace(raw.plan, crop=crop))
                fits[name] = _fit(fit, layout, crop)
        elif isinstance(raw, ArraySamples):
            crop = _widened(fit.preprocess.crop, _rendered(fit, raw.columns[name].shape))
            if crop is not None:
                fits[name] = _fit(fit, layout, crop)
    return replace(data, source=replace(source, raw=raw, fits=fits))


def _fit(fit: Fit, layout: Layout, crop: Size) -> Fit:
    """Return what makes samples fit but for the height and width that the model takes."""
    preprocess = replace(fit.preprocess, layout=layout, crop=crop)
    return replace(fit, spec=_any_size(fit.spec, layout), preprocess=preprocess)


def _any_size(spec: TensorSpec, layout: Layout) -> TensorSpec:
    if spec.shape is None:
        return spec
    free = _AXES[layout]
    shape = tuple(None if axis in free else size for axis, size in enumerate(spec.shape))
    return replace(spec, shape=shape)


def _least(resize: int | Size | None) -> Size | None:
    """Return the height and width that every picture has at least once it is resized."""
    return (resize, resize) if isinstance(resize, int) else resize


def _rendered(fit: Fit, shape: tuple[int, ...]) -> Size | None:
    """Return height and width of the pictures in an array of such a shape, resized."""
    if len(shape) == 3:
        height, width = shape[1:]
    elif len(shape) == 4 and (axis := channel_axis(shape)) is not None:
        height, width = shape[1:3] if axis == -1 else shape[2:]
    else:
        return None
    resize = fit.preprocess.resize
    return (height, width) if resize is None else resized(height, width, resize)


def _widened(crop: int | Size | None, most: Size | None) -> Size | None:
    """Return the largest crop of the same shape that fits into `most`, None if it is no larger."""
    if crop is None or most is None:
        return None
    height, width = (crop, crop) if isinstance(crop, int) else crop
    # In whole numbers: a float would lose a pixel of 256 here and there.
    if most[0] * width < most[1] * height:
        wide = (most[0], most[0] * width // height)
    else:
        wide = (most[1] * height // width, most[1])
    return wide if wide > (height, width) else None
