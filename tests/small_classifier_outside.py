"""The small network with its weights in a file beside the model."""

from __future__ import annotations

import onnx
from text_models import build, random


def outside_model(folder):
    """Write y = x w, w 6 x 3, with external data, and return the model's path."""
    folder.mkdir()
    model = build("(float[N,6] x) => (float[N,3] y) { y = MatMul (x, w) }", w=random(6, 3))
    path = folder / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path
