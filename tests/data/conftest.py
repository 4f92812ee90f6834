"""What several tests of the data package need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_relief.data import Dataset
from onnx_relief.tensors import TensorSpec

MakeSpec = Callable[..., TensorSpec]


@pytest.fixture(name="spec")
def spec_maker() -> MakeSpec:
    """Return a short way to describe an input: spec("N", 3, 8, 8, dtype="float32", name="x")."""

    def make(
        *shape: int | str | None, name: str = "x", dtype: str = "float32", optional: bool = False
    ) -> TensorSpec:
        return TensorSpec(name=name, dtype=np.dtype(dtype), shape=shape, optional=optional)

    return make


@pytest.fixture(name="walk")
def walker() -> Callable[..., tuple[dict[str, Any], Any]]:
    """Return a way to walk a dataset: everything that was fed, in one array for each input."""

    def walk(data: Dataset, batch_size: int = 4) -> tuple[dict[str, Any], Any]:
        batches = list(data.batches(batch_size))
        names = batches[0].feed
        fed = {n: np.concatenate([part.feed[n][: part.count] for part in batches]) for n in names}
        labels = [part.labels for part in batches if part.labels is not None]
        return fed, np.concatenate(labels) if labels else None

    return walk


@pytest.fixture(name="pixels")
def random_pixels() -> Any:
    """Return twelve small colour pictures, uint8 (12, 6, 8, 3)."""
    return np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)


@pytest.fixture(name="folder")
def picture_folder(tmp_path: Path, pixels: Any) -> Path:
    """Return a folder of the twelve pictures as PNG: four each of the classes ant, bee, cat."""
    root = tmp_path / "pictures"
    for index, picture in enumerate(pixels):
        file = root / ("ant", "bee", "cat")[index // 4] / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return root


@pytest.fixture(name="shared")
def shared_folder() -> Path:
    """Return the folder of data that lies beside the repository, or skip the test."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared benchmark data does not lie beside the repository")
    return folder
