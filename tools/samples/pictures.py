"""Pictures: those of the benchmark folder where it is there, seeded noise, digits, and our own."""

from __future__ import annotations

import importlib
import io
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from _bench import MissingError, from_models, from_shared
from PIL import Image

from onnx_relief.data import Preprocess
from onnx_relief.graph.document import input_specs
from samples import Array, Case, Sizes

SEED: Final = 2109
IMAGENET: Final = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def shipped(task: str, layout: str | None = None) -> Callable[[Path, Sizes], Case]:
    """Return a builder for the models that the repository ships with their own samples."""

    def build(_model: Path, sizes: Sizes) -> Case:
        calibration, test = (
            _npz(from_models(f"{task}-{part}.npz"), count)
            for part, count in (("calibration", sizes.calibration), ("test", 2 * sizes.test))
        )
        return Case(
            calibration=calibration,
            test=test,
            data=f"{len(calibration['image'])} + {len(test['image'])} pictures of models/{task}",
            preprocess=Preprocess(scale=1 / 255, layout=layout),  # type: ignore[arg-type]
            batch_size=100,
        )

    return build


def random_network(model: Path, sizes: Sizes) -> Case:
    """Return pictures for a topology with random weights, whose answers mean nothing."""
    name = input_specs(onnx.load(model))[0].name
    total = sizes.dear_calibration + sizes.dear_test
    try:
        pictures, kind = imagenet_crops(tuple(range(total)), 224)[0], "ImageNet pictures"
    except MissingError:
        pictures, kind = smooth_noise(total), "pictures of smooth noise"
    return Case(
        calibration={name: pictures[: sizes.dear_calibration]},
        test={name: pictures[sizes.dear_calibration :]},
        data=f"{sizes.dear_calibration} + {sizes.dear_test} {kind}",
        preprocess=IMAGENET,
        # Random weights decide nothing, so there is no decision to agree with.
        metric="cosine",
        score="cosine to dense, times 100",
    )


def efficientnet(_model: Path, sizes: Sizes) -> Case:
    """Return ImageNet pictures: every second one, without its label, is for calibration."""
    calibration = tuple(range(0, 1000, 2))[:: 500 // (4 * sizes.dear_calibration)]
    test = tuple(range(1, 1000, 2))[: 8 * sizes.dear_test]
    pictures, labels = imagenet_crops(test, 224)
    return Case(
        # Whole, since training with --crop-scale makes use of what the crop leaves out.
        calibration={"x": imagenet_crops(calibration, 256)[0]},
        test={"x": pictures, "labels": labels},
        data=f"{len(calibration)} + {len(test)} ImageNet pictures",
        preprocess=Preprocess(crop=224, mean=(127.0,), std=(128.0,)),
    )


def cifar(_model: Path, sizes: Sizes) -> Case:
    """Return original CIFAR-10 pictures."""
    path = from_shared("data", "cifar10-original-6k.npz")
    calibration = _npz(path, 5 * sizes.calibration, "train_")
    test = _npz(path, 2 * sizes.test, "test_")
    test["image"], calibration["image"] = test.pop("images"), calibration.pop("images")
    return Case(
        calibration=calibration,
        test=test,
        data=f"{len(calibration['image'])} + {len(test['image'])} original CIFAR-10 pictures",
        preprocess=IMAGENET,
        batch_size=100,
    )


def digits(number: int) -> Callable[[Path, Sizes], Case]:
    """Return a builder for the digits models: scikit-learn's digits, split with seed `number`."""

    def build(model: Path, sizes: Sizes) -> Case:
        try:
            datasets = importlib.import_module("sklearn.datasets")
            selection = importlib.import_module("sklearn.model_selection")
        except ImportError as error:
            raise MissingError("its data is in scikit-learn, which is not installed") from error
        pixels, classes = datasets.load_digits(return_X_y=True)
        train, test, _, labels = selection.train_test_split(
            pixels / 16, classes, test_size=0.3, random_state=number, stratify=classes
        )
        shape = (-1, 1, 8, 8) if "cnn" in model.stem else (-1, 64)
        train, test = (part.reshape(shape).astype(np.float32) for part in (train, test))
        train = train[: min(512, 4 * sizes.calibration)]
        return Case(
            calibration={"x": train},
            test={"x": test, "labels": labels},
            data=f"{len(train)} + {len(test)} of scikit-learn's digits",
            batch_size=100,
        )

    return build


def _npz(path: Path, count: int, prefix: str = "") -> dict[str, Any]:
    """Return the first arrays of a file whose names begin with `prefix`, `count` rows of each."""
    with np.load(path, allow_pickle=False) as stored:
        names = [name for name in stored.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): stored[name][:count] for name in names}


@cache
def imagenet_crops(indices: tuple[int, ...], side: int) -> tuple[Array, Array]:
    """Return centre crops, uint8 (n, 3, side, side), and classes: the rank of the synset."""
    with zipfile.ZipFile(from_shared("data", "imagenet-sample-1000.zip")) as archive:
        names = sorted(name for name in archive.namelist() if name.upper().endswith(".JPEG"))
        ranks = {name: rank for rank, name in enumerate(sorted({n.split("/")[-2] for n in names}))}
        pictures = np.empty((len(indices), 3, side, side), dtype=np.uint8)
        for row, index in zip(pictures, indices, strict=True):
            picture = Image.open(io.BytesIO(archive.read(names[index]))).convert("RGB")
            left, top = ((size - side) // 2 for size in picture.size)
            crop = picture.crop((left, top, left + side, top + side))
            row[:] = np.asarray(crop).transpose(2, 0, 1)
    labels = [ranks[names[index].split("/")[-2]] for index in indices]
    return pictures, np.array(labels, dtype=np.int64)


def smooth_noise(count: int) -> Array:
    """Return smooth random pictures, uint8 (count, 3, 224, 224)."""
    generator = np.random.default_rng(SEED)
    coarse = generator.integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    resized = [
        Image.fromarray(part).resize((224, 224), Image.Resampling.BICUBIC) for part in coarse
    ]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in resized])
