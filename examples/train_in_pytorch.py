"""Train a pruned ONNX model in a plain PyTorch loop and write the same ONNX file back.

    python examples/train_in_pytorch.py

Needs `pip install 'onnx-relief[cpu,retrain]'`. The zeros that pruning left stay exactly zero,
whatever optimizer is used; names, shapes and everything else of the file stay as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import onnx_relief as relief

MODELS = Path(__file__).resolve().parent.parent / "models"


def main(folder: Path) -> float:
    """Prune LeNet-300-100, train it for three epochs, and return its accuracy in percent."""
    with np.load(MODELS / "mnist-calibration.npz") as samples:
        images, labels = samples["image"].astype(np.float32) / 255, samples["labels"]

    pruned = relief.prune(MODELS / "lenet-300-100.onnx", {"image": images}, alpha=0.8)
    module = relief.to_torch(pruned.model)  # an ordinary torch.nn.Module
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=5e-4)

    torch.manual_seed(0)
    module.train()
    for _ in range(3):
        for batch in torch.randperm(len(images)).split(100):
            optimizer.zero_grad()
            outputs = module(torch.from_numpy(images[batch.numpy()]))  # tensors by output name
            loss = cross_entropy(outputs["logits"], torch.from_numpy(labels[batch.numpy()]))
            loss.backward()
            optimizer.step()

    model = relief.from_torch(module, pruned.model)  # an onnx.ModelProto
    target = folder / "lenet-300-100.trained.onnx"
    target.write_bytes(model.SerializeToString())

    with np.load(MODELS / "mnist-test.npz") as samples:
        test = {"image": samples["image"].astype(np.float32) / 255, "labels": samples["labels"]}
    before = relief.evaluate(pruned.model, test)
    after = relief.evaluate(target, test)
    print(f"accuracy {before.value:.2f} % pruned, {after.value:.2f} % trained: {target}")
    return after.value


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
