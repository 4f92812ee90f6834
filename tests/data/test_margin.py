"""What lies around a centre crop."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from onnx_relief.data import Preprocess, open_data
from onnx_relief.data.margin import with_margin

SIZES = [(16, 16), (16, 20), (24, 16)]


def saved(folder: Path, pictures: list[Any]) -> Path:
    for index, picture in enumerate(pictures):
        path = folder / "some" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def first(walk: Any, data: Any) -> Any:
    return walk(data)[0]["x"]


def assert_around(wide: Any, narrow: Any) -> None:
    """Every narrow picture, (n, c, h, w), is the middle of the wide one, to a pixel."""
    windows = sliding_window_view(wide, narrow.shape[2:], axis=(2, 3))
    same = (windows == narrow[:, :, None, None]).all(axis=(1, 4, 5))
    for places in same:
        ((down, right),) = np.argwhere(places)
        assert abs(2 * down - (wide.shape[2] - narrow.shape[2])) <= 2
        assert abs(2 * right - (wide.shape[3] - narrow.shape[3])) <= 2


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("resize", "crop", "wide"),
    [
        (16, 8, (16, 16)),
        (12, 8, (12, 12)),
        (16, (6, 8), (12, 16)),
        ((14, 20), (6, 8), (14, 18)),
        ((30, 20), 8, (20, 20)),
    ],
)
def test_pictures_of_a_folder_come_with_as_much_as_all_of_them_have(
    tmp_path: Path, spec: Any, walk: Any, resize: Any, crop: Any, wide: Any, zipped: bool
) -> None:
    source = saved(tmp_path / "pictures", [noise(*size, 3) for size in SIZES])
    if zipped:
        with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
            for file in sorted(source.rglob("*.png")):
                archive.write(file, file.relative_to(source))
        source = tmp_path / "pictures.zip"
    shape = (crop, crop) if isinstance(crop, int) else crop
    preprocess = Preprocess(resize=resize, crop=crop, scale=1 / 255, mean=(0.1, 0.2, 0.3))
    data = open_data(source, [spec("N", 3, *shape)], preprocess=preprocess)
    found = first(walk, with_margin(data))
    assert found.shape == (3, 3, *wide)
    assert_around(found, first(walk, data))


@pytest.mark.parametrize("shape", [(5, 3, 16, 20), (5, 16, 20, 3), (5, 1, 16, 20), (5, 16, 20)])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("resize", "wide"), [(None, (16, 16)), (24, (24, 24)), ((9, 30), (9, 9))])
def test_arrays_of_pixels_come_whole(
    spec: Any, walk: Any, shape: Any, layout: Any, resize: Any, wide: Any
) -> None:
    channels = 3 if 3 in shape else 1
    taken = spec("N", channels, 8, 8) if layout == "nchw" else spec("N", 8, 8, channels)
    preprocess = Preprocess(resize=resize, crop=8, scale=1)
    data = open_data(noise(*shape), [taken], preprocess=preprocess)
    narrow, found = first(walk, data), first(walk, with_margin(data))
    if layout == "nhwc":
        narrow, found = np.moveaxis(narrow, -1, 1), np.moveaxis(found, -1, 1)
    assert found.shape == (5, channels, *wide)
    assert_around(found, narrow)


def test_a_preset_of_a_model_of_any_size_leaves_a_margin(
    tmp_path: Path, spec: Any, walk: Any
) -> None:
    folder = saved(tmp_path, [noise(300, 280, 3)])
    data = open_data(folder, [spec("N", 3, None, None)], preprocess=Preprocess(preset="imagenet"))
    found = first(walk, with_margin(data))
    assert found.shape == (1, 3, 256, 256)
    assert_around(found, first(walk, data))


def test_a_model_of_a_fixed_batch_still_gets_that_many(spec: Any) -> None:
    preprocess = Preprocess(crop=8, scale=1)
    data = open_data(noise(5, 3, 16, 16), [spec(4, 3, 8, 8)], preprocess=preprocess)
    (_, last) = with_margin(data).batches(1)
    assert last.feed["x"].shape == (4, 3, 16, 16)
    assert last.count == 1


@pytest.mark.parametrize(
    ("preprocess", "shape"),
    [
        (Preprocess(scale=1, layout="nchw"), (8, 8)),
        (Preprocess(scale=1, resize=8), (16, 16)),
        (Preprocess(scale=1, crop=8), (8, 8)),
        (Preprocess(scale=1, resize=(9, 8), crop=8), (16, 16)),
    ],
)
def test_what_has_no_margin_stays_as_it_is(
    tmp_path: Path, spec: Any, walk: Any, preprocess: Any, shape: Any
) -> None:
    pictures = noise(3, *shape, 3)
    for source in (pictures, saved(tmp_path, list(pictures))):
        data = open_data(source, [spec("N", 3, 8, 8)], preprocess=preprocess)
        np.testing.assert_array_equal(first(walk, with_margin(data)), first(walk, data))


def test_rows_numbers_and_feeds_stay_as_they_are(spec: Any, walk: Any) -> None:
    rows = open_data(noise(4, 6), [spec("N", 6)], preprocess=Preprocess(scale=1))
    np.testing.assert_array_equal(first(walk, with_margin(rows)), first(walk, rows))
    feeds = open_data([{"x": np.zeros((1, 3, 8, 8), np.float32)}], [spec("N", 3, 8, 8)])
    assert with_margin(feeds) is feeds


def test_flat_pictures_stay_as_they_are(spec: Any, walk: Any) -> None:
    preprocess = Preprocess(scale=1, crop=8, layout="flat")
    data = open_data(noise(4, 16, 16), [spec("N", 64)], preprocess=preprocess)
    np.testing.assert_array_equal(first(walk, with_margin(data)), first(walk, data))


def test_rows_and_broken_pictures_are_those_of_the_data(tmp_path: Path, spec: Any) -> None:
    folder = saved(tmp_path, [noise(16, 16, 3)] * 4)
    (folder / "some" / "1.png").write_bytes(b"no picture")
    preprocess = Preprocess(resize=16, crop=8, scale=1)
    data = open_data(folder, [spec("N", 3, 8, 8)], preprocess=preprocess)
    wide = with_margin(data)
    assert sum(batch.count for batch in wide.batches(2)) == 3
    assert wide.skipped == data.skipped != {}
    np.testing.assert_array_equal(wide.rows, data.rows)
