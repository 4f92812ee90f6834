"""The networks that `bench_activity.py` measures, with their pictures as float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from _bench import MissingError, from_corpus, from_shared
from onnx import numpy_helper
from samples import Array
from samples.pictures import imagenet_crops, smooth_noise

MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32)[:, None, None]
STD: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32)[:, None, None]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is measured.

    Attributes:
        title: Heading.
        pictures: How many pictures.
        batch: How many of them at once.
        targets: Ratio to plain inference that is asked for, by estimator; None where none is.
        prepare: (folder, pictures) -> model file, data file, what the pictures are.
    """

    title: str
    pictures: int
    batch: int
    targets: Mapping[str, float | None]
    prepare: Callable[[Path, int], tuple[Path, Path, str]]


def _resnet50(folder: Path, pictures: int) -> tuple[Path, Path, str]:
    model = onnx.load(from_corpus("light-resnet50.random.onnx"))
    _free_batch(model)
    path = folder / "resnet50.onnx"
    onnx.save(model, path)
    try:
        crops, kind = imagenet_crops(tuple(range(pictures)), 224)[0], "ImageNet pictures"
    except MissingError:
        crops, kind = smooth_noise(pictures), "pictures of smooth noise"
    return path, _normalised(folder, crops), kind


def _resnet20(folder: Path, pictures: int) -> tuple[Path, Path, str]:
    model = from_shared("models", "cifar10-resnet20.onnx")
    with np.load(from_shared("data", "cifar10-original-6k.npz"), allow_pickle=False) as stored:
        return model, _normalised(folder, stored["train_images"][:pictures]), "CIFAR-10 pictures"


NETWORKS: Final = {
    "resnet50": Network(
        title="ResNet-50",
        pictures=64,
        batch=16,
        targets={"mean-map": 1.2, "paper": 1.6},
        prepare=_resnet50,
    ),
    "resnet20": Network(
        title="ResNet-20",
        pictures=1000,
        batch=100,
        targets={"mean-map": None, "paper": 3.0},
        prepare=_resnet20,
    ),
}


def _free_batch(model: onnx.ModelProto) -> None:
    """Give a model of one picture a free batch, and constants that ONNX Runtime may fold."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    # Up to IR version 3 initializers are inputs that a caller may override, so nothing that reads
    # them can be folded or fused: plain inference would be slower than it has to be.
    model.ir_version = 4
    inputs = [value for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(inputs)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in graph.node:
        if node.op_type == "Reshape":
            shape = stored[node.input[1]]
            sizes = numpy_helper.to_array(shape).copy()
            sizes[0] = -1
            shape.CopyFrom(numpy_helper.from_array(sizes, shape.name))


def _normalised(folder: Path, pictures: Array) -> Path:
    """Write pictures as the networks take them, a block at a time, and return the file."""
    path = folder / "pictures.npy"
    written = np.lib.format.open_memmap(path, "w+", np.float32, pictures.shape)
    for start in range(0, len(pictures), 64):
        block = pictures[start : start + 64].astype(np.float32) / 255
        written[start : start + 64] = (block - MEAN) / STD
    written.flush()
    return path
