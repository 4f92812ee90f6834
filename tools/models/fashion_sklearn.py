"""Train a scikit-learn MLPClassifier on Fashion-MNIST and convert it with skl2onnx.

Run by tools/make_models.py: python fashion_sklearn.py DATA.npz OUT.onnx NAME
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np
from skl2onnx import convert_sklearn  # type: ignore[import-not-found, unused-ignore]
from skl2onnx.common.data_types import (  # type: ignore[import-not-found, unused-ignore]
    FloatTensorType,
)
from sklearn.neural_network import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    MLPClassifier,
)

SEED: Final = 0
EPOCHS: Final = 20


def main() -> None:
    """Train on pictures flattened to (n, 784) in [0, 1]; zipmap off gives plain arrays back."""
    data_file, onnx_file = sys.argv[1:3]
    with np.load(data_file) as data:
        pixels = data["train_images"].reshape(-1, 784).astype(np.float32) / 255
        labels = data["train_labels"].astype(np.int64)
    model = MLPClassifier(
        hidden_layer_sizes=(256, 128),
        alpha=1e-3,
        max_iter=EPOCHS,
        n_iter_no_change=EPOCHS,
        random_state=SEED,
        verbose=True,
    )
    model.fit(pixels, labels)
    converted = convert_sklearn(
        model,
        name="fashion-sklearn",
        initial_types=[("image", FloatTensorType([None, 784]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    Path(onnx_file).write_bytes(converted.SerializeToString())


if __name__ == "__main__":
    main()
