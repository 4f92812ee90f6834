from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_relief.data.decode import MAX_PIXELS, BrokenPictureError, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(image: Any, kind: Any = "PNG", **options: Any) -> Any:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def header_only_png(width: Any, height: Any) -> Any:
    def chunk(name: Any, data: Any) -> Any:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("PPM", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_give_the_pixels(kind: Any, options: Any) -> None:
    image = decode(saved(Image.fromarray(PIXELS), kind, **options))
    assert np.array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("LAB", "TIFF"),
        ("YCbCr", "JPEG"),
    ],
)
def test_every_colour_mode_becomes_rgb(mode: Any, kind: Any) -> None:
    plain = Image.new("RGB", (16, 16), (200, 30, 90))
    image = decode(
        saved(
            plain.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else _to(plain, mode),
            kind,
        )
    )
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - [200, 30, 90]).max() <= 8


def _to(image: Any, mode: Any) -> Any:
    if mode != "LAB":
        return image.convert(mode)
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_gray_modes_keep_their_brightness(mode: Any) -> None:
    gray = np.repeat(np.arange(0, 256, 51, dtype=np.uint8)[None], 4, axis=0)
    image = Image.fromarray(gray)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode == "1":
        gray = np.where(gray > 127, 255, 0).astype(np.uint8)
        image = Image.fromarray(gray).convert("1")
    elif mode == "LA":
        image = image.convert("LA")
    assert image.mode == mode
    assert np.array_equal(np.asarray(decode(saved(image)).convert("L")), gray)


def test_sixteen_bit_gray_of_pgm_is_scaled() -> None:
    data = b"P5 2 1 65535\n" + struct.pack(">HH", 0x80FF, 0xFFFF)
    assert np.asarray(decode(data)).tolist() == [[0x80, 0xFF]]


def test_transparent_palettes_do_not_warn() -> None:
    image = Image.fromarray(PIXELS).quantize(8)
    image.info["transparency"] = bytes([0, 128, 255, 255, 255, 255, 255, 255])
    assert decode(saved(image)).mode == "RGB"


def test_pictures_stand_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    image = decode(saved(Image.fromarray(PIXELS), exif=exif.tobytes()))
    assert np.array_equal(np.asarray(image), np.rot90(PIXELS, 3))


@pytest.mark.parametrize("size", [(20000, 20000), (10000, 9000), (8000, 8001), (2**31 - 1, 1)])
def test_a_bomb_is_refused_by_its_header_without_a_warning(size: Any) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(BrokenPictureError, match=f"{size[0]} x {size[1]}"):
        decode(header_only_png(*size))  # a warning would be an error here
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_itself_is_no_bomb() -> None:
    with pytest.raises(BrokenPictureError) as error:
        decode(header_only_png(8000, MAX_PIXELS // 8000))
    assert "million" not in str(error.value)  # refused only because its pixels are missing


WHOLE = saved(Image.fromarray(np.tile(PIXELS, (20, 20, 1))), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture"),
        (b"hello", "not a picture"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "."),
        (b"GIF89a", "."),
        (b"II*\0" + bytes(20), "."),
        (b"P6 3 3", "."),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (WHOLE[:30], "."),
        (saved(Image.fromarray(PIXELS))[:60], "."),
        (saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "floats"),
        (
            saved(Image.fromarray(np.full((2, 2), 255, np.int32)), "TIFF"),
            "whole numbers whose range",
        ),
    ],
)
def test_broken_pictures_have_a_reason(data: Any, reason: Any) -> None:
    with pytest.raises(BrokenPictureError, match=reason):
        decode(data)
