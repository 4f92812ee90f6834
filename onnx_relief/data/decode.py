"""The bytes of a picture file -> an 8-bit picture, or the reason why not.

`PIL.Image.open` is not used. It warns about big pictures or raises, by a limit that belongs to the
whole process, and it would hand any file to any of Pillow's readers, one of which runs Ghostscript.
Here the first bytes choose a reader, and the size is looked at before a pixel is read.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

MAX_PIXELS: Final = 64_000_000
MAX_FILE_BYTES: Final = 512 * 2**20

SUFFIXES: Final = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)

# A new picture format is one line: how its files begin, and the reader.
_READERS: Final[tuple[tuple[bytes, type[ImageFile]], ...]] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"GIF8", GifImagePlugin.GifImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    *((b"P%d" % kind, PpmImagePlugin.PpmImageFile) for kind in range(1, 7)),
)


class BrokenPictureError(Exception):
    """Internal: a picture that is skipped, or named under --strict; its text is the reason."""


def decode(data: bytes) -> Image.Image:
    """Return the picture upright, in mode L or RGB, transparency dropped.

    Raises:
        BrokenPictureError: It cannot be read, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with _reader(data)(io.BytesIO(data), "") as image:
            check_pixels(*image.size)
            ImageOps.exif_transpose(image, in_place=True)
            return _eight_bit(image)
    except BrokenPictureError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise BrokenPictureError(f"{error or type(error).__name__}") from error


def check_pixels(width: int, height: int) -> None:
    """Refuse a picture that would fill the memory.

    Raises:
        BrokenPictureError: It has more than `MAX_PIXELS` pixels.
    """
    if width * height > MAX_PIXELS:
        raise BrokenPictureError(
            f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} million"
        )


def _reader(data: bytes) -> Any:  # noqa: ANN401 - Pillow's readers are classes called like functions
    for beginning, reader in _READERS:
        if data.startswith(beginning):
            return reader
    raise BrokenPictureError("not a picture" if data else "the file is empty")


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BrokenPictureError("its pixels are floats, whose range is not known")
    if image.mode == "I" and isinstance(image, TiffImagePlugin.TiffImageFile):
        # In the other formats mode I holds 16 bits without a sign.
        raise BrokenPictureError("its pixels are whole numbers whose range is not known")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip 16-bit gray at 255 instead of scaling it.
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB warns
    return image if image.mode == "L" else image.convert("RGB")
