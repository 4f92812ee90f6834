"""Train a small model in processes of its own; run by the tests, and by Lightning's processes.

Usage: training_child.py FOLDER DEVICES [kill STEP]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import nets
import numpy as np
import torch
from text_models import build, random

from onnx_relief.bridge.convert import convert
from onnx_relief.bridge.train import train
from onnx_relief.graph.document import load
from onnx_relief.training import TrainSettings

SETTINGS = TrainSettings(
    epochs=3, batch_size=20, lr=1e-2, weight_decay=1e-2, clip=1.0, seed=4, warmup=0.1
)


GRAPH = """(float[N, 8] x) => (float[N, 3] y)
{ a = Gemm(x, v, b) n = BatchNormalization(a, scale, shift, mean, var)
  r = Relu(n) y = MatMul(r, w) }"""


def model():
    """Return a converted model with batch normalisation and a mask."""
    module = convert(
        load(
            build(
                GRAPH,
                v=random(8, 16, seed=1),
                b=random(16, seed=2),
                scale=np.ones(16, np.float32),
                shift=np.zeros(16, np.float32),
                mean=np.zeros(16, np.float32),
                var=np.ones(16, np.float32),
                w=random(16, 3, seed=3),
            )
        )
    )
    masks = {
        name: torch.from_numpy(random(*value.shape, seed=4) > 0)
        for name, value in module.named_parameters()
        if value.ndim == 2
    }
    module.hold(masks)
    return module


def main(folder, devices, *rest):
    torch.set_num_threads(1)

    def die(_stage, done, _total):
        if rest and done == int(rest[1]):
            os.kill(os.getpid(), signal.SIGKILL)

    module = model()
    settings = SETTINGS
    if int(devices) > 1:
        settings = TrainSettings(**{**vars(SETTINGS), "devices": int(devices)})
    done = train(module, nets.points(203), settings, folder=Path(folder), progress=die)
    if done.is_main:
        rows = [(row.train_loss, row.validation_loss) for row in done.history]
        weights = nets.state_of(module)
        torch.save({"weights": weights, "history": rows}, Path(folder) / "result.pt")
    for name, mask in module.masks.items():
        assert bool(module.get_parameter(name)[~mask].eq(0).all())


if __name__ == "__main__":
    main(*sys.argv[1:])
