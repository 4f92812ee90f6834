"""Preprocessing, said once: how pictures and 8-bit arrays become what the model was trained on.

Pixels p become (p * scale - mean) / std. What a flag or a field says holds for every array; what
only a preset says holds for pictures and, as far as scale, mean and std go, for arrays of uint8:
an array that was stored as floats, or at a size of its own, was prepared by somebody already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import numpy as np

from onnx_relief.data.flags import Size, parse_number, parse_numbers, parse_size
from onnx_relief.errors import SettingsError

Layout = Literal["nchw", "nhwc", "flat"]
Color = Literal["rgb", "bgr", "gray"]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What is done to every sample before the model sees it; None where nothing was said.

    Attributes:
        preset: Name in `PRESETS` that fills in what the other fields leave open.
        resize: Shorter side in pixels, or (height, width).
        crop: Side of a centred square, or (height, width); after `resize`.
        scale: Factor for every value.
        mean: Subtracted after scaling: one value, or one for each channel.
        std: Divided by at last: one value, or one for each channel.
        layout: Order of axes that the model takes: samples, channels, height, width (`nchw`),
            channels last (`nhwc`), or every sample as one row of numbers (`flat`).
        color: Channels that the model takes; arrays are understood to be RGB or gray.
    """

    preset: str | None = None
    resize: int | Size | None = None
    crop: int | Size | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: Layout | None = None
    color: Color | None = None

    def __post_init__(self) -> None:
        _check_choice("--preset", self.preset, _FILLED_IN)
        _check_choice("--layout", self.layout, get_args(Layout))
        _check_choice("--color", self.color, get_args(Color))
        _check_size("--resize", self.resize)
        _check_size("--crop", self.crop)
        _check_numbers("--scale", None if self.scale is None else (self.scale,), zero=False)
        _check_numbers("--mean", self.mean, zero=True)
        _check_numbers("--std", self.std, zero=False)

    @classmethod
    def from_flags(
        cls,
        preset: str | None = None,
        resize: str | None = None,
        crop: str | None = None,
        scale: str | None = None,
        mean: str | None = None,
        std: str | None = None,
        layout: str | None = None,
        color: str | None = None,
    ) -> Preprocess:
        """Return what the command line says; a flag overrides the preset.

        Raises:
            SettingsError: A flag cannot be understood; the sentence names it.

        >>> Preprocess.from_flags(resize="48x320", scale="1/2").resize
        (48, 320)
        """
        chosen: dict[str, Any] = {"preset": preset, "layout": layout, "color": color}
        return cls(
            **chosen,
            resize=None if resize is None else parse_size("--resize", resize),
            crop=None if crop is None else parse_size("--crop", crop),
            scale=None if scale is None else parse_number("--scale", scale),
            mean=None if mean is None else parse_numbers("--mean", mean),
            std=None if std is None else parse_numbers("--std", std),
        )

    def for_pictures(self, model_size: Size | None) -> Preprocess:
        """Return this with the preset filled in.

        Args:
            model_size: Height and width that the model fixes, or None.
        """
        filled = {} if self.preset is None else _FILLED_IN[self.preset](model_size)
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{key: value for key, value in filled.items() if said[key] is None})

    def for_arrays(self, dtype: np.dtype[Any]) -> Preprocess:
        """Return what holds for arrays of `dtype`: see the top of this file."""
        if dtype != np.uint8:
            return replace(self, preset=None)
        filled = self.for_pictures(None)
        return replace(self, preset=None, scale=filled.scale, mean=filled.mean, std=filled.std)

    @property
    def changes_pictures(self) -> bool:
        """Whether it changes size or channels, which needs pixels."""
        return not (self.resize is None and self.crop is None and self.color is None)

    @property
    def changes_values(self) -> bool:
        """Whether it turns pixels into other numbers."""
        return not (self.scale is None and self.mean is None and self.std is None)

    def flags(self) -> str:
        """Return the flags that say anything, for an error: ``--preset, --scale``."""
        said = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return ", ".join(f"--{name}" for name in said)


def _imagenet(_model_size: Size | None) -> dict[str, Any]:
    """Torchvision: shorter side 256, centre 224, mean and deviation of ImageNet's training set."""
    return {
        "resize": 256,
        "crop": 224,
        "scale": 1 / 255,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }


def _tensorflow(model_size: Size | None) -> dict[str, Any]:
    """Keras' mode "tf": stretched to the model's size, pixels from -1 to 1."""
    return {"resize": model_size, "scale": 1 / 127.5, "mean": (1.0,)}


def _efficientnet_lite(model_size: Size | None) -> dict[str, Any]:
    """Centre crop with the margin of 32 pixels (256 for 224) that EfficientNet is tested with."""
    height, width = model_size or (224, 224)
    return {
        "resize": min(height, width) + 32,
        "crop": (height, width),
        "mean": (127.0,),
        "std": (128.0,),
    }


def _mnist(_model_size: Size | None) -> dict[str, Any]:
    return {"color": "gray", "scale": 1 / 255}


def _unit(_model_size: Size | None) -> dict[str, Any]:
    return {"scale": 1 / 255}


# What each preset fills in, given the picture size that the model fixes. A new preset is one line.
_FILLED_IN: Final[Mapping[str, Callable[[Size | None], dict[str, Any]]]] = MappingProxyType(
    {
        "imagenet": _imagenet,
        "tf": _tensorflow,
        "efficientnet-lite": _efficientnet_lite,
        "mnist": _mnist,
        "unit": _unit,
    }
)


def _check_choice(flag: str, value: object, choices: Iterable[str]) -> None:
    if value is not None and value not in tuple(choices):
        raise SettingsError(f"{flag} {value!r} does not exist; choose one of {', '.join(choices)}")


def _check_size(flag: str, value: int | Size | None) -> None:
    sides = value if isinstance(value, tuple) else (1 if value is None else value,)
    if min(sides) < 1:
        raise SettingsError(f"{flag} must be at least 1 pixel, got {value!r}")


def _check_numbers(flag: str, values: tuple[float, ...] | None, *, zero: bool) -> None:
    for value in values or ():
        if not math.isfinite(value) or (value == 0 and not zero):
            raise SettingsError(
                f"{flag} must be finite{'' if zero else ' and not 0'}, got {value!r}"
            )


PRESETS: Final[Mapping[str, Preprocess]] = MappingProxyType(
    {name: Preprocess(preset=name) for name in _FILLED_IN}
)
