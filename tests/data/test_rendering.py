from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_relief.data import Preprocess
from onnx_relief.data.rendering import Rendering, layout_for_pictures, rendering
from onnx_relief.errors import DataError


def rendered(
    size: tuple[int, int], resize: Any = None, crop: Any = None, color: Any = "rgb"
) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    plan = Rendering(resize=resize, crop=crop, color=color)
    return pixels, plan.pixels(Image.fromarray(pixels), "a.png")


@pytest.mark.parametrize(
    ("size", "resize", "wanted"),
    [
        ((500, 375), 256, (341, 256)),
        ((375, 500), 256, (256, 341)),
        ((300, 300), 256, (256, 256)),
        ((10, 400), 20, (20, 800)),
        ((100, 50), (48, 320), (48, 320)),
    ],
)
def test_sizes_are_those_of_torchvision(size: Any, resize: Any, wanted: Any) -> None:
    assert rendered(size, resize=resize)[1].shape[:2] == wanted


@pytest.mark.parametrize(
    ("size", "crop", "top", "left"),
    [((8, 10), 4, 2, 3), ((9, 9), 4, 2, 2), ((11, 8), (4, 8), 4, 0)],
)
def test_the_crop_is_at_the_centre(size: Any, crop: Any, top: Any, left: Any) -> None:
    pixels, made = rendered(size, crop=crop)
    height, width = (crop, crop) if isinstance(crop, int) else crop
    assert np.array_equal(made, pixels[top : top + height, left : left + width])


def test_nothing_is_done_without_being_asked() -> None:
    pixels, made = rendered((5, 7))
    assert np.array_equal(pixels, made)


def test_a_crop_larger_than_the_picture_names_picture_and_flag() -> None:
    with pytest.raises(DataError, match=r"a\.png is 5 x 7 .* 6 x 6; give --resize 6 or more"):
        rendered((5, 7), crop=6)


@pytest.mark.parametrize(
    ("preset", "model_size", "resize", "crop"),
    [
        ("imagenet", 299, 256, 224),
        ("tf", 299, (299, 299), None),
        ("efficientnet-lite", 224, 256, (224, 224)),
        ("efficientnet-lite", 300, 332, (300, 300)),
        ("efficientnet-lite", "H", 256, (224, 224)),
        ("tf", "H", None, None),
        ("unit", 299, None, None),
    ],
)
def test_presets_know_the_size_of_the_model(
    spec: Any, preset: Any, model_size: Any, resize: Any, crop: Any
) -> None:
    taken = spec("N", 3, model_size, model_size)
    said = Preprocess(preset=preset)
    layout = layout_for_pictures(taken, said)
    size = (model_size, model_size) if isinstance(model_size, int) else None
    plan = rendering(taken, said.for_pictures(size), layout)
    assert plan == Rendering(resize=resize, crop=crop, color="rgb")
