"""The labelled data that benchmarks use opens as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_relief.data import Preprocess, open_data


@pytest.mark.parametrize(
    ("name", "shape", "said", "size", "classes"),
    [
        ("mnist.npz:train", (1, 28, 28), {"preset": "mnist"}, 60000, 10),
        ("mnist.npz:test", (784,), {"preset": "unit", "layout": "flat"}, 10000, 10),
        ("fashion-mnist.npz:test", (28, 28, 1), {"preset": "unit", "layout": "nhwc"}, 10000, 10),
        ("cifar10-original-6k.npz:train", (3, 32, 32), {"preset": "imagenet"}, 5085, 10),
        ("cifar10-jpeg.zip:test", (3, 32, 32), {"preset": "unit"}, 10000, 10),
        ("imagenet-sample-1000.zip", (3, 224, 224), {"preset": "efficientnet-lite"}, 1000, 1000),
    ],
)
def test_shared_data_opens_directly(
    shared: Path, spec: Any, walk: Any, name: Any, shape: Any, said: Any, size: Any, classes: Any
) -> None:
    data = open_data(shared / name, [spec("N", *shape)], preprocess=Preprocess(**said))
    assert (data.size, data.source.class_count) == (size, classes)
    fed, labels = walk(data.take(60), 16)
    assert fed["x"].shape == (60, *shape)
    assert len(np.unique(labels)) >= min(classes, 60) - 2
    assert not data.skipped
