from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from onnx_relief.data import Preprocess, open_data
from onnx_relief.data.arrange import model_layout
from onnx_relief.errors import DataError, SettingsError

COLORFUL = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)  # nhwc
GRAY = COLORFUL[..., :1]


def opened(array: Any, spec: Any, **said: Any) -> Any:
    said.setdefault("scale", 1.0)
    return open_data(array, [spec], preprocess=Preprocess(**said))


@pytest.mark.parametrize("pictures", [COLORFUL, GRAY])
@pytest.mark.parametrize("free", [False, True])
def test_channels_move_to_where_the_model_takes_them(
    spec: Any, walk: Any, pictures: Any, free: Any
) -> None:
    first, last = np.moveaxis(pictures, -1, 1), pictures
    for wanted, layout in ((first, "nchw"), (last, "nhwc")):
        shape = ("C", "H", "W") if free else wanted.shape[1:]
        for given in (first, last):
            fed, _ = walk(opened(given, spec("N", *shape), layout=layout))
            assert np.array_equal(fed["x"], wanted)


def test_gray_pictures_get_their_channel_axis(spec: Any, walk: Any) -> None:
    for layout, shape in (("nchw", (1, 6, 8)), ("nhwc", (6, 8, 1))):
        for given in (GRAY[..., 0], GRAY.reshape(5, 48)):
            fed, _ = walk(opened(given, spec("N", *shape), layout=layout))
            assert fed["x"].shape == (5, *shape)
            assert np.array_equal(fed["x"].ravel(), GRAY.ravel())


def test_flat_makes_every_sample_a_row(spec: Any, walk: Any) -> None:
    fed, _ = walk(opened(COLORFUL, spec("N", 144), layout="flat"))
    assert np.array_equal(fed["x"], COLORFUL.reshape(5, 144))


def test_nothing_moves_without_a_layout(spec: Any) -> None:
    for given, shape in ((COLORFUL, (3, 6, 8)), (GRAY[..., 0], (1, 6, 8)), (GRAY, (48,))):
        with pytest.raises(DataError, match="--layout"):
            opened(given, spec("N", *shape))


SHAPES = [(3, 6, 8), (6, 8, 3), (1, 6, 8), (6, 8, 1), (48,), (144,), (3, 9, 9), (9, 9, 1), (100,)]
ARRAYS = [COLORFUL, np.moveaxis(COLORFUL, -1, 1), GRAY, np.moveaxis(GRAY, -1, 1), GRAY[..., 0]]


@pytest.mark.parametrize(("array", "shape"), list(itertools.product(ARRAYS, SHAPES)))
def test_the_flag_that_an_error_names_mends_it(spec: Any, array: Any, shape: Any) -> None:
    try:
        opened(array, spec("N", *shape))
        return
    except DataError as error:
        message = str(error)
    flags = dict(re.findall(r"--(layout|resize|color) (\w+)", message))
    assert flags, message
    open_data(array, [spec("N", *shape)], preprocess=Preprocess.from_flags(**flags, scale="1"))


def test_an_error_names_both_shapes(spec: Any) -> None:
    message = r"'array' of the data has float32 samples of shape \(7,\), .*float32 \(N, 5\); give"
    with pytest.raises(DataError, match=message):
        open_data(np.zeros((2, 7), np.float32), [spec("N", 5)])


def test_a_layout_that_spoils_the_fit_is_named(spec: Any) -> None:
    with pytest.raises(DataError, match="leave out --layout, without which it fits"):
        open_data(
            np.zeros((2, 7, 9), np.float32),
            [spec("N", 7, 9)],
            preprocess=Preprocess(layout="nchw"),
        )


def test_arrays_of_pixels_can_be_resized_and_cropped(spec: Any, walk: Any) -> None:
    fed, _ = walk(opened(COLORFUL, spec("N", 3, 4, 4), resize=8, crop=4))
    assert fed["x"].shape == (5, 3, 4, 4)
    plain, _ = walk(opened(COLORFUL, spec("N", 3, 4, 4), crop=4))
    assert np.array_equal(plain["x"], np.moveaxis(COLORFUL[:, 1:5, 2:6], -1, 1))


def test_colours_of_arrays_of_pixels_can_change(spec: Any, walk: Any) -> None:
    bgr, _ = walk(opened(COLORFUL, spec("N", 6, 8, 3), color="bgr"))
    assert np.array_equal(bgr["x"], COLORFUL[..., ::-1])
    gray, _ = walk(opened(COLORFUL, spec("N", 6, 8, 1), color="gray"))
    assert np.abs(gray["x"][..., 0] - COLORFUL @ [0.299, 0.587, 0.114]).max() < 1


def test_a_layout_of_pictures_for_what_is_none(spec: Any) -> None:
    with pytest.raises(DataError, match=r"shape \(2, 2, 2, 2\).*; give data of that shape"):
        opened(np.zeros((1, 2, 2, 2, 2)), spec("N", 3, 4, 4), layout="nchw")


@pytest.mark.parametrize(
    "array",
    [
        COLORFUL.astype(np.float32),
        COLORFUL[..., [0, 1, 2, 0]],
        COLORFUL[..., :2],
        COLORFUL[:, 0, 0],
        COLORFUL[:, :0],
    ],
)
def test_only_pictures_are_resized(spec: Any, array: Any) -> None:
    with pytest.raises(DataError, match=r"--resize, --crop and --color work on .* only"):
        opened(array, spec("N", 3, 4, 4), resize=4)


def test_pixels_that_resizing_would_blow_up_are_refused(spec: Any) -> None:
    with pytest.raises(DataError, match="million; give a smaller --resize"):
        opened(COLORFUL, spec("N", 3, 4, 4), resize=100_000)


def test_a_colour_with_other_channels_than_the_model(spec: Any) -> None:
    with pytest.raises(SettingsError, match=r"rgb have 3 channels.*takes 1; give --color gray"):
        opened(COLORFUL, spec("N", 1, 6, 8), color="rgb")


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        (("N", 3, 6, 8), "nchw"),
        (("N", 6, 8, 3), "nhwc"),
        (("N", "C", "H", 1), "nhwc"),
        (("N", 1, 28, 1), None),
        (("N", 3, 32, 3), None),
        (("N", None, None, None), None),
        (("N", 3, 6), None),
    ],
)
def test_a_layout_is_taken_from_the_shape_only_without_doubt(
    spec: Any, shape: Any, layout: Any
) -> None:
    assert model_layout(spec(*shape)) == layout
