"""Files of this Python installation for magika, which names the type of a file's contents.

Features as in magika 1.0.3 (`_extract_features_from_seekable`): of the first and the last 4096
bytes, stripped of white space, the first and the last 1024; 256 where there are no more.
"""

from __future__ import annotations

import os
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from samples import Array, Case, Sizes

SEED: Final = 2109
SIDE: Final = 1024
BLOCK: Final = 4096
PADDING: Final = 256
PER_SUFFIX: Final = 150
# Suffix -> class of the model standard_v3_3 ("target_labels_space" of its config).
CLASSES: Final = {
    **{".py": 143, ".pyi": 143, ".pyc": 144, ".so": 46, ".h": 17, ".c": 17, ".html": 71},
    **{".css": 31, ".json": 87, ".rst": 153, ".csv": 32, ".npy": 110, ".npz": 111, ".png": 133},
    **{".gif": 58, ".xml": 206, ".toml": 181, ".md": 100, ".zip": 212, ".gz": 64, ".sh": 161},
    **{".wav": 195, ".f90": 55, ".onnx": 120, ".exe": 128, ".bat": 12, ".js": 83, ".ttf": 184},
}


def system_files(_model: Path, sizes: Sizes) -> Case:
    """Return files whose suffix says what they are."""
    found = list(_found())
    generator = np.random.default_rng(SEED)
    chosen = [found[index] for index in generator.permutation(len(found))]
    chosen = chosen[: sizes.calibration + sizes.test]
    features = np.stack([_features(path.read_bytes()) for path, _ in chosen])
    labels = np.array([label for _, label in chosen])
    split = sizes.calibration
    return Case(
        calibration={"bytes": features[:split]},
        test={"bytes": features[split:], "labels": labels[split:]},
        data=f"{split} + {len(chosen) - split} files of the Python installation, by suffix",
        batch_size=32,
        score="type as the suffix says",
    )


def _found() -> Iterator[tuple[Path, int]]:
    """Yield files and their classes, at most `PER_SUFFIX` of each suffix, in a fixed order."""
    paths = sysconfig.get_paths()
    counts: defaultdict[str, int] = defaultdict(int)
    for root in dict.fromkeys(paths[name] for name in ("stdlib", "include", "purelib")):
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                # Below 8 bytes magika does not ask the model; empty modules say nothing.
                if path.suffix in CLASSES and path.is_file() and path.stat().st_size > 200:
                    counts[path.suffix] += 1
                    # Every 7th: neighbours in a folder are alike.
                    if counts[path.suffix] % 7 == 1 and counts[path.suffix] < 7 * PER_SUFFIX:
                        yield path, CLASSES[path.suffix]


def _features(content: bytes) -> Array:
    """Return the first and last bytes as magika takes them, int32 (2048,)."""
    features = np.full(2 * SIDE, PADDING, dtype=np.int32)
    head = content[:BLOCK].lstrip()[:SIDE]
    tail = content[-BLOCK:].rstrip()[-SIDE:]
    features[: len(head)] = np.frombuffer(head, np.uint8)
    features[2 * SIDE - len(tail) :] = np.frombuffer(tail, np.uint8)
    return features
