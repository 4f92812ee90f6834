"""Train a small model in processes of its own; run by the tests, and by Lightning's processes.

Usage: training_child.py FOLDER DEVICES [kill STEP]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import nets
import torch

from onnx_relief.bridge.train import train
from onnx_relief.training import TrainSettings

SETTINGS = TrainSettings(
    epochs=3, batch_size=20, lr=1e-2, weight_decay=1e-2, clip=1.0, seed=4, warmup=0.1
)


def main(folder, devices, *rest):
    torch.set_num_threads(1)

    def die(_stage, done, _total):
        if rest and done == int(rest[1]):
            os.kill(os.getpid(), signal.SIGKILL)

    module = nets.mlp(masked=0.5)
    settings = SETTINGS
    if int(devices) > 1:
        settings = TrainSettings(**{**vars(SETTINGS), "devices": int(devices)})
    done = train(module, nets.points(203), settings, folder=Path(folder), progress=die)
    if done.is_main:
        rows = [(row.train_loss, row.validation_loss) for row in done.history]
        weights = nets.state_of(module)
        torch.save({"weights": weights, "history": rows}, Path(folder) / "result.pt")
    zero = module.get_parameter("net.0.weight")[~module.masks["net.0.weight"]]
    assert bool(zero.eq(0).all())


if __name__ == "__main__":
    main(*sys.argv[1:])
