"""Flips and crops: what they do to a picture, and what they may depend on."""

from __future__ import annotations

import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_relief.bridge.train.augment import Augmentation, augmentation, uniform
from onnx_relief.data import open_data
from onnx_relief.errors import SettingsError

ROWS = np.arange(40)
PICTURES = np.random.default_rng(0).random((40, 3, 6, 8)).astype(np.float32) + 1


def augment(pictures, rows, epoch=0, **options):
    options = {"layouts": {"x": "nchw"}, "flip": True, "padding": 2, "seed": 0} | options
    axes = (2, 3) if options["layouts"]["x"] == "nchw" else (1, 2)
    options = {"sizes": {"x": tuple(pictures.shape[axis] for axis in axes)}} | options
    return Augmentation(**options)({"x": pictures}, rows, epoch)["x"]


@given(st.permutations(list(range(12))), st.integers(1, 12))
def test_a_sample_is_changed_the_same_in_any_batch(order, size):
    rows = np.array(order)
    whole = augment(PICTURES[:12], ROWS[:12])
    for start in range(0, 12, size):
        part = rows[start : start + size]
        np.testing.assert_array_equal(augment(PICTURES[part], part), whole[part])


def test_every_picture_is_a_window_of_the_padded_one_or_its_mirror():
    padded = np.pad(PICTURES, ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = set()
    for index, found in enumerate(augment(PICTURES, ROWS)):
        places = [
            (down, right, flip)
            for down in range(5)
            for right in range(5)
            for flip in (1, -1)
            if np.array_equal(
                padded[index, :, down : down + 6, right : right + 8][..., ::flip], found
            )
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 20


def test_channels_last_is_the_same_moved():
    moved = augment(np.moveaxis(PICTURES, 1, 3), ROWS, layouts={"x": "nhwc"})
    np.testing.assert_array_equal(np.moveaxis(moved, 3, 1), augment(PICTURES, ROWS))
    assert moved.flags.c_contiguous


@settings(deadline=None)
@given(st.integers(0, 5), st.sampled_from([0.2, 0.5, 0.9]))
def test_enlarged_parts_are_windows_of_the_picture(epoch, scale):
    rows = np.arange(3)
    down, right = np.mgrid[0:40, 0:56].astype(np.float32)
    pictures = np.tile(np.stack([down, right])[None], (3, 1, 1, 1))
    found = augment(pictures, rows, epoch, padding=0, flip=False, scale=scale)
    assert found.shape == pictures.shape
    for part in found:
        # Where everything is linear, so is every part of it: rows down, columns to the right.
        assert np.ptp(part[0], axis=1).max() < 1e-3
        assert np.ptp(part[1], axis=0).max() < 1e-3
        tall, wide = np.ptp(part[0]) + 1, np.ptp(part[1]) + 1
        assert 0.9 * scale < tall * wide / (40 * 56) <= 1
        assert part[0].min() >= 0
        assert part[0].max() < 39.01
        assert part[1].max() < 55.01
    if scale < 0.9:
        assert (found[0] != found[1]).any()
    np.testing.assert_array_equal(
        augment(pictures[1:], rows[1:], epoch, padding=0, flip=False, scale=scale), found[1:]
    )


def test_enlarged_parts_lie_anywhere_in_a_larger_picture():
    down, right = np.mgrid[0:20, 0:24].astype(np.float32)
    pictures = np.tile(np.stack([down, right])[None], (40, 1, 1, 1))
    options = {"padding": 0, "flip": False, "scale": 0.5, "sizes": {"x": (12, 16)}}
    found = augment(pictures, ROWS, **options)
    assert found.shape == (40, 2, 12, 16)
    tall, wide = np.ptp(found[:, 0], axis=(1, 2)) + 1, np.ptp(found[:, 1], axis=(1, 2)) + 1
    assert (tall < 12.01).all()
    assert (wide < 16.01).all()
    assert (tall * wide > 0.45 * 12 * 16).all()
    for axis, last in enumerate((19, 23)):
        assert found[:, axis].min() < 1
        assert found[:, axis].max() > last - 1
    moved = augment(np.moveaxis(pictures, 1, 3), ROWS, **options | {"layouts": {"x": "nhwc"}})
    np.testing.assert_array_equal(np.moveaxis(moved, 3, 1), found)


JITTER = {"padding": 0, "flip": False, "jitter": 0.4, "levels": {"x": (1.0, 2.0)}}


@given(st.permutations(list(range(12))), st.integers(1, 12))
def test_colours_of_a_sample_change_the_same_in_any_batch(order, size):
    rows = np.array(order)
    whole = augment(PICTURES[:12], ROWS[:12], **JITTER)
    for start in range(0, 12, size):
        part = rows[start : start + size]
        np.testing.assert_array_equal(augment(PICTURES[part], part, **JITTER), whole[part])


def test_changed_colours_lie_between_black_and_white_and_grey_stays_grey():
    found = augment(PICTURES, ROWS, **JITTER)
    assert found.min() >= 1
    assert found.max() <= 2
    assert (found != PICTURES).any(axis=(1, 2, 3)).all()
    grey = np.repeat(PICTURES[:, :1], 3, axis=1)
    kept = augment(grey, ROWS, **JITTER)
    np.testing.assert_allclose(kept, np.repeat(kept[:, :1], 3, axis=1), atol=1e-6)
    black = np.ones_like(PICTURES)
    np.testing.assert_array_equal(augment(black, ROWS, **JITTER), black)


def test_brightness_changes_by_the_share_that_was_asked_for():
    flat = np.full((2000, 1, 2, 2), 1.5, np.float32)  # no contrast, no colour, half of white
    found = augment(flat, np.arange(2000), **JITTER | {"levels": {"x": (1.0, 5.0)}})
    factors = (found[:, 0, 0, 0] - 1) / 0.5
    assert 0.6 <= factors.min() < 0.61
    assert 1.39 < factors.max() <= 1.4001
    assert abs(factors.mean() - 1) < 0.02


def test_bytes_stay_bytes_when_colours_change():
    pictures = (np.random.default_rng(1).random((8, 3, 6, 8)) * 255).astype(np.uint8)
    found = augment(pictures, ROWS[:8], **JITTER | {"levels": {"x": (0.0, 255.0)}})
    assert found.dtype == np.uint8
    assert (found != pictures).any()


def test_black_and_white_are_those_of_the_data():
    pictures = np.random.default_rng(0).random((12, 3, 6, 8)).astype(np.float32)
    data = open_data(pictures, nets.specs("N", 3, 6, 8))
    found = augmentation(
        data, {"x": pictures[:2]}, flip=False, crop_padding=0, color_jitter=0.2, seed=0
    )
    assert found.levels["x"] == pytest.approx((pictures.min(), pictures.max()))


@given(st.integers(2, 12), st.integers(0, 3), st.sampled_from(["nchw", "nhwc"]))
def test_mixed_pictures_hold_one_rectangle_of_one_other(count, epoch, layout):
    pictures = np.tile(np.arange(count, dtype=np.float32)[:, None, None, None], (1, 3, 20, 30))
    given = pictures if layout == "nchw" else np.moveaxis(pictures, 1, 3)
    options = {"layouts": {"x": layout}, "padding": 0, "flip": False, "mixed": 1.0}
    found = augment(given, ROWS[:count], epoch, **options)
    found = found if layout == "nchw" else np.moveaxis(found, 3, 1)
    partners = []
    for own, picture in enumerate(found):
        (other,) = set(np.unique(picture).tolist()) - {own}
        partners.append(other)
        np.testing.assert_array_equal(picture, np.broadcast_to(picture[:1], picture.shape))
        down, right = np.nonzero(picture[0] == other)
        area = (np.ptp(down) + 1) * (np.ptp(right) + 1)
        assert area == down.size
        assert 0.03 < area / 600 < 0.7
    assert sorted(partners) == list(range(count))


def test_so_many_pictures_are_mixed_as_were_asked_for_and_a_single_one_never():
    pictures = np.tile(np.arange(2000, dtype=np.float32)[:, None, None, None], (1, 1, 4, 4))
    options = {"padding": 0, "flip": False, "mixed": 0.3}
    found = augment(pictures, np.arange(2000), **options)
    assert 0.27 < (found != pictures).any(axis=(1, 2, 3)).mean() < 0.33
    alone = augment(pictures[:1], ROWS[:1], **options | {"mixed": 1.0})
    np.testing.assert_array_equal(alone, pictures[:1])


def test_epochs_and_seeds_differ_and_the_input_stays():
    before = PICTURES.copy()
    first = augment(PICTURES, ROWS)
    assert (first != augment(PICTURES, ROWS, epoch=1)).any()
    assert (first != augment(PICTURES, ROWS, seed=1)).any()
    np.testing.assert_array_equal(PICTURES, before)


def test_about_half_of_the_pictures_are_mirrored():
    rows = np.arange(4000)
    pictures = np.tile(np.float32([[[[0, 1]]]]), (4000, 1, 1, 1))
    share = augment(pictures, rows, padding=0)[:, 0, 0, 0].mean()
    assert 0.47 < share < 0.53


def test_random_numbers_fill_the_interval_and_do_not_repeat():
    draws = np.stack(
        [uniform(seed, epoch, np.arange(1000), draw)
         for seed in (0, 1) for epoch in (0, 1) for draw in (0, 1)]
    )  # fmt: skip
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.02
    assert len(np.unique(draws)) == draws.size
    assert np.abs(np.corrcoef(draws) - np.eye(8)).max() < 0.15


@pytest.mark.parametrize(("shape", "layout"), [((3, 8, 8), "nchw"), ((8, 8, 3), "nhwc")])
@pytest.mark.parametrize("told", [True, False])
def test_the_layout_is_that_of_the_model(shape, layout, told):
    data = open_data(
        np.zeros((4, *shape), np.float32), nets.specs("N", *(shape if told else (None,) * 3))
    )
    sample = {"x": np.zeros((4, *shape), np.float32)}
    found = augmentation(data, sample, flip=True, crop_padding=0, seed=0)
    assert found.layouts == {"x": layout}
    assert augmentation(data, sample, flip=False, crop_padding=0, seed=0) is None


def test_what_is_no_picture_is_refused():
    data = nets.points(4)
    sample = {"x": np.zeros((4, 8), np.float32)}
    for said, flag in (
        ({"flip": True}, "--flip"),
        ({"crop_padding": 2}, "--crop-padding"),
        ({"crop_scale": 0.5}, "--crop-scale"),
        ({"color_jitter": 0.1}, "--color-jitter"),
        ({"cutmix": 0.1}, "--cutmix"),
    ):
        with pytest.raises(SettingsError, match=flag):
            augmentation(data, sample, **{"flip": False, "crop_padding": 0, "seed": 0} | said)


def test_rows_that_fill_up_a_batch_are_changed_as_the_last_one():
    filled = np.concatenate([PICTURES[:3], PICTURES[2:3], PICTURES[2:3]])
    found = augment(filled, ROWS[:3])
    np.testing.assert_array_equal(found[3], found[2])
    np.testing.assert_array_equal(found[:3], augment(PICTURES[:3], ROWS[:3]))
