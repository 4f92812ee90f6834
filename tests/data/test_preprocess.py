from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.data import PRESETS, Preprocess, open_data
from onnx_relief.errors import SettingsError
from onnx_relief.tensors import TensorSpec


def test_flags_are_read() -> None:
    assert Preprocess.from_flags(
        resize="256",
        crop="48x320",
        scale="1/255",
        mean="0.485,0.456,0.406",
        std="1/2",
        layout="nhwc",
        color="bgr",
    ) == Preprocess(
        resize=256,
        crop=(48, 320),
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.5,),
        layout="nhwc",
        color="bgr",
    )


def test_no_flags_say_nothing() -> None:
    assert Preprocess.from_flags() == Preprocess()


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("preset", "imagnet"),
        ("resize", "big"),
        ("resize", "0"),
        ("resize", "3x"),
        ("resize", "-3"),
        ("crop", "3x0"),
        ("scale", "0"),
        ("scale", "1/0"),
        ("scale", "nan"),
        ("scale", ""),
        ("mean", "1,,2"),
        ("mean", "inf"),
        ("std", "1,0"),
        ("layout", "chw"),
        ("color", "cmyk"),
    ],
)
def test_a_flag_that_makes_no_sense_is_named(flag: Any, text: Any) -> None:
    with pytest.raises(SettingsError, match=f"--{flag} "):
        Preprocess.from_flags(**{flag: text})


def test_an_unknown_preset_lists_all() -> None:
    with pytest.raises(SettingsError, match=", ".join(PRESETS)):
        Preprocess(preset="caffe")


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [
        ("imagenet", -0.485 / 0.229, (1 - 0.406) / 0.225),
        ("tf", -1, 1),
        ("efficientnet-lite", -127 / 128, 1),
        ("unit", 0, 1),
        ("mnist", 0, 1),
    ],
)
def test_presets_map_black_and_white(
    spec: Any, walk: Any, preset: Any, low: Any, high: Any
) -> None:
    pixels = np.zeros((1, 3, 1, 2), np.uint8)
    pixels[..., 1] = 255
    fed, _ = walk(open_data(pixels, [spec("N", 3, 1, 2)], preprocess=PRESETS[preset]))
    assert fed["x"][0, 0, 0, 0] == pytest.approx(low, abs=1e-6)
    assert fed["x"][0, 2, 0, 1] == pytest.approx(high, abs=1e-6)


def test_a_flag_overrides_its_part_of_the_preset(spec: Any, walk: Any) -> None:
    said = Preprocess.from_flags(preset="imagenet", mean="0", std="1")
    fed, _ = walk(open_data(np.full((1, 2), 51, np.uint8), [spec("N", 2)], preprocess=said))
    assert fed["x"] == pytest.approx(0.2)


def test_floats_are_left_alone_by_presets_but_not_by_flags(spec: Any, walk: Any) -> None:
    floats = np.full((2, 3), 0.5, np.float32)
    preset, _ = walk(open_data(floats, [spec("N", 3)], preprocess=Preprocess(preset="unit")))
    flag, _ = walk(open_data(floats, [spec("N", 3)], preprocess=Preprocess(scale=4)))
    assert np.all(preset["x"] == 0.5)
    assert np.all(flag["x"] == 2)


@given(
    st.floats(0.01, 10),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 5), min_size=3, max_size=3),
    st.sampled_from(["nchw", "nhwc"]),
)
def test_pixels_are_scaled_then_shifted_then_divided(
    scale: Any, mean: Any, std: Any, layout: Any
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    said = Preprocess(scale=scale, mean=tuple(mean), std=tuple(std), layout=layout)
    shape = (None, 3, 4, 5) if layout == "nchw" else (None, 4, 5, 3)
    spec = TensorSpec(name="x", dtype=np.dtype(np.float64), shape=shape)
    (batch,) = open_data(pixels, [spec], preprocess=said).batches(2)
    wanted = (pixels * scale - np.array(mean)) / np.array(std)
    wanted = np.moveaxis(wanted, -1, 1) if layout == "nchw" else wanted
    np.testing.assert_allclose(batch.feed["x"], wanted, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((2, 4, 4), None, "no channel axis.*give one value with --mean"),
        ((3, 4, 3), None, "two axes.*--layout"),
        ((48,), "flat", "no channel axis"),
    ],
)
def test_channel_means_need_a_channel_axis(
    spec: Any, shape: Any, layout: Any, message: Any
) -> None:
    said = Preprocess(mean=(1, 2, 3), layout=layout)
    with pytest.raises(SettingsError, match=message):
        open_data(np.zeros((2, *shape), np.uint8), [spec("N", *shape)], preprocess=said)


def test_of_several_inputs_the_pictures_are_preprocessed(spec: Any, walk: Any) -> None:
    inputs = [
        spec("N", 3, 4, 4, name="image"),
        spec("N", 2, name="state"),
        spec("N", name="token", dtype="int64"),
    ]
    arrays = {
        "image": np.full((2, 4, 4, 3), 255, np.uint8),
        "state": np.full((2, 2), 9.0),
        "token": np.array([5, 6]),
    }
    said = Preprocess(scale=1 / 255, layout="nchw")
    fed, _ = walk(open_data(arrays, inputs, preprocess=said))
    assert np.all(fed["image"] == 1)
    assert np.all(fed["state"] == 9)
    assert fed["token"].tolist() == [5, 6]


def test_of_several_inputs_without_pictures_the_floats_are_preprocessed(
    spec: Any, walk: Any
) -> None:
    inputs = [spec("N", name="a"), spec("N", name="b", dtype="int64")]
    arrays = {"a": np.array([1, 2]), "b": np.array([1, 2])}
    fed, _ = walk(open_data(arrays, inputs, preprocess=Preprocess(scale=2)))
    assert fed["a"].tolist() == [2, 4]
    assert fed["b"].tolist() == [1, 2]
