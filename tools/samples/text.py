"""Rendered words and pages for the PP-OCR models, drawn with Pillow's own font.

Preprocessing as in rapidocr-onnxruntime 1.4.4 (`text_recognize.py`, `text_cls.py`,
`text_detect.py`) and rapid-layout 1.2.1 (`pp/pre_process.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from _bench import ROOT
from PIL import Image, ImageDraw, ImageFont

from samples import Array, Case, Run, Sizes, overlap

SEED: Final = 2109
IMAGENET_MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32)
IMAGENET_STD: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def recognition(model: Path, sizes: Sizes) -> Case:
    """Return words for PP-OCR's recogniser; the score is the share of words read correctly."""
    test_count = min(100, sizes.test)
    words = words_for(sizes.calibration + test_count)
    pictures = _word_pictures(words, width=320, noise=24.0)
    alphabet = alphabet_of(model)
    expected = words[sizes.calibration :]
    test = pictures[sizes.calibration :]

    def judge(_dense: Run, pruned: Run) -> float:
        read: list[str] = []
        for start in range(0, len(test), 10):
            (output,) = pruned({"x": test[start : start + 10]}).values()
            read += [decode(rows, alphabet) for rows in output]
        return 100.0 * sum(a == b for a, b in zip(read, expected, strict=True)) / len(expected)

    return Case(
        calibration={"x": pictures[: sizes.calibration]},
        test={"x": test},
        data=f"{sizes.calibration} + {len(expected)} rendered words",
        batch_size=10,
        judge=judge,
        score="words read",
    )


def direction(_model: Path, sizes: Sizes) -> Case:
    """Return words, upright (0) and upside-down (1), for PP-OCR's text direction classifier."""
    test_count = min(200, sizes.test)
    pictures = _word_pictures(words_for(sizes.calibration + test_count), width=192, noise=8.0)
    labels = np.arange(len(pictures)) % 2
    turned = pictures[:, :, ::-1, ::-1]
    pictures = np.where(labels[:, None, None, None] == 1, turned, pictures)
    split = sizes.calibration
    return Case(
        calibration={"x": pictures[:split]},
        test={"x": pictures[split:], "labels": labels[split:]},
        data=f"{split} + {test_count} rendered words, every second upside-down",
    )


def detection(_model: Path, sizes: Sizes) -> Case:
    """Return pages for PP-OCR's detector; the score compares the pixels taken for text."""
    total = sizes.dear_calibration + sizes.dear_test
    pages = np.stack([page((640, 640), number) for number in range(total)])
    pages = _normalised(pages, 0.5, 0.5)
    test = pages[sizes.dear_calibration :]
    return Case(
        calibration={"x": pages[: sizes.dear_calibration]},
        test={"x": test},
        data=f"{sizes.dear_calibration} + {sizes.dear_test} rendered pages, 640 x 640",
        batch_size=4,
        judge=_overlap_judge("x", test, batch=4, threshold=0.5, outputs=slice(None)),
        against_dense=True,
        score="text pixels as dense, intersection over union",
    )


def layout(_model: Path, sizes: Sizes) -> Case:
    """Return pages for Paddle's layout detector; the score compares boxes and classes found."""
    total = sizes.dear_calibration + sizes.dear_test
    pages = np.stack([page((800, 608), number) for number in range(total)])
    pages = _normalised(pages, IMAGENET_MEAN, IMAGENET_STD)
    test = pages[sizes.dear_calibration :]
    return Case(
        calibration={"image": pages[: sizes.dear_calibration]},
        test={"image": test},
        data=f"{sizes.dear_calibration} + {sizes.dear_test} rendered pages, 800 x 608",
        metric="cosine",
        # The first four outputs are class scores on grids of four scales; 0.4 is the confidence
        # that the package asks for.
        judge=_overlap_judge("image", test, batch=1, threshold=0.4, outputs=slice(4)),
        against_dense=True,
        score="(place, class) pairs found as dense, intersection over union",
    )


def page(size: tuple[int, int], number: int) -> Array:
    """Return a page with a title, paragraphs, a box and some lines of a table, uint8 (h, w, 3)."""
    generator = np.random.default_rng([SEED, number])
    height, width = size
    picture = Image.new("RGB", (width, height), (int(generator.integers(225, 256)),) * 3)
    draw = ImageDraw.Draw(picture)
    words = [str(word) for word in generator.permutation(_vocabulary())]
    top = 30.0
    draw.text((width / 4, top), " ".join(words[:2]).upper(), fill=(0, 0, 0), font=_font(30))
    top += 60
    while top < height - 60:
        kind, block = generator.integers(4), min(float(generator.integers(80, 180)), height - top)
        left, fill = float(generator.integers(20, 80)), (int(generator.integers(0, 90)),) * 3
        if kind == 0:
            draw.rectangle((left, top, width - left, top + block - 20), outline=fill, fill="#9ab")
        elif kind == 1:
            for step in range(4):
                x = left + step * (width - 2 * left) / 4
                draw.rectangle((x, top, x + (width - 2 * left) / 4, top + 30), outline=fill)
                draw.text((x + 8, top + 6), words[step][:9], fill=fill, font=_font(16))
        else:
            size_of_text = int(generator.integers(14, 24))
            for line in np.arange(top, top + block - 30, size_of_text * 1.5):
                start = int(generator.integers(0, len(words) - 5))
                draw.text(
                    (left, line), " ".join(words[start:][:4]), fill=fill, font=_font(size_of_text)
                )
        top += block
    return np.asarray(picture)


def _vocabulary() -> list[str]:
    """Return the words of the licence, each once: text that every copy of the repository has."""
    found = re.findall(r"\b[A-Za-z]{4,12}\b", (ROOT / "LICENSE").read_text(encoding="utf-8"))
    return list(dict.fromkeys(found))


def words_for(count: int) -> list[str]:
    """Return different words, some of them capitals, some with a number behind."""
    generator = np.random.default_rng(SEED)
    words = [str(word) for word in generator.permutation(_vocabulary())[:count]]
    forms = (str.lower, str.upper, str.capitalize, lambda word: f"{word[:8]}{len(word)}7")
    return [forms[index % 4](word) for index, word in enumerate(words)]


def _word_pictures(words: list[str], width: int, noise: float) -> Array:
    """Return words of many sizes and shades, float32 (n, 3, 48, width) in [-1, 1]."""
    generator = np.random.default_rng([SEED, width])
    batch = np.zeros((len(words), 3, 48, width), dtype=np.float32)
    for row, word in zip(batch, words, strict=True):
        font = _font(int(generator.integers(11, 40)))
        box = font.getbbox(word)
        margin = int(generator.integers(2, 9))
        size = (round(box[2] + 2 * margin), round(box[3] - box[1] + 2 * margin))
        dark, light = int(generator.integers(0, 130)), int(generator.integers(150, 256))
        picture = Image.new("RGB", size, (light,) * 3)
        draw = ImageDraw.Draw(picture)
        draw.text((margin, margin - box[1]), word, fill=(dark,) * 3, font=font)
        fitted = min(width, max(1, round(48 * size[0] / size[1])))
        pixels = np.asarray(picture.resize((fitted, 48), Image.Resampling.BILINEAR))
        noisy = pixels + generator.normal(0.0, noise, pixels.shape[:2])[..., None]
        row[:, :, :fitted] = np.clip(noisy, 0, 255).transpose(2, 0, 1) / 127.5 - 1
    return batch


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def alphabet_of(model: Path) -> list[str]:
    """Return the characters by class: blank, those of the model's own metadata, space."""
    properties = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    return ["", *properties["character"].splitlines(), " "]


def decode(rows: Array, alphabet: list[str]) -> str:
    """Return the text of one output (steps, classes): CTC, the best class at each step."""
    best = rows.argmax(axis=1)
    changes = np.flatnonzero(np.diff(best, prepend=-1))
    return "".join(alphabet[index] for index in best[changes] if index < len(alphabet))


def _normalised(pages: Array, mean: Array | float, std: Array | float) -> Array:
    scaled = (pages.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def _overlap_judge(
    name: str, samples: Array, *, batch: int, threshold: float, outputs: slice
) -> Callable[[Run, Run], float]:
    """Return a judge that compares what both models find above a threshold."""

    def judge(dense: Run, pruned: Run) -> float:
        found: tuple[list[Array], list[Array]] = ([], [])
        for start in range(0, len(samples), batch):
            feed = {name: samples[start : start + batch]}
            for run, parts in zip((dense, pruned), found, strict=True):
                parts += [array.ravel() for array in list(run(feed).values())[outputs]]
        return overlap(np.concatenate(found[0]), np.concatenate(found[1]), threshold)

    return judge
