"""What tests of `retrain` and `iterate` share: lines to run, and how to read what comes of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
from classifier import contents, mlp, weights
from text_models import random

QUICK = "--epochs 2 --batch-size 8 "
RETRAIN = f"retrain model.onnx --data data.npz {QUICK}"
ITERATE = f"iterate model.onnx --data data.npz {QUICK}--alpha .8 --iterations 3 --run run "
RUN = Path("run")


def masked_mlp():
    w1, w2 = random(6, 5, seed=1), random(5, 3, seed=2)
    w1[::2], w2[0] = 0, 0
    return mlp(w1=w1, w2=w2)


def results(folder):
    """Return what must not depend on interruptions: models and plans by name."""
    found = contents(folder)
    return {
        str(path.relative_to(folder)): data
        for path, data in found.items()
        if path.suffix == ".onnx" or path.name == "plan.json"
    }


def models():
    paths = sorted(RUN.glob("iteration-*/model.onnx"))
    return [onnx.load("model.onnx"), *map(onnx.load, paths)]


def history():
    return list(csv.DictReader((RUN / "history.csv").read_text().splitlines()))


def left(model):
    return sum(np.count_nonzero(array) for array in weights(model).values())
