"""Train LeNet-300-100 or LeNet-5 on MNIST with PyTorch and write it as ONNX.

Run by tools/make_models.py: python lenet.py DATA.npz OUT.onnx NAME
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
from torch import nn  # type: ignore[import-not-found, unused-ignore]

SEED: Final = 0
EPOCHS: Final = 12
BATCH: Final = 64
LEARNING_RATE: Final = 1e-3
WEIGHT_DECAY: Final = 5e-4


def lenet_300_100() -> Any:  # noqa: ANN401 - torch is not installed where types are checked
    """Return the fully connected network of LeCun et al. 1998."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def lenet_5() -> Any:  # noqa: ANN401
    """Return Caffe's LeNet-5, the one that the pruning literature uses (431080 parameters)."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


NETWORKS: Final = {"lenet-300-100": lenet_300_100, "lenet-5": lenet_5}


def train(network: Any, images: Any, labels: Any) -> None:  # noqa: ANN401
    """Train in place on images (n, 1, 28, 28) in [0, 1]; the step size falls linearly to zero."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    order_generator = torch.Generator().manual_seed(SEED)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=order_generator)
        total = 0.0
        for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total * BATCH / len(images):.4f}", flush=True)


def main() -> None:
    """Train the network named on the command line and export it."""
    data_file, onnx_file, name = sys.argv[1:]
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with np.load(data_file) as data:
        images = torch.from_numpy(data["train_images"].astype(np.float32) / 255)
        labels = torch.from_numpy(data["train_labels"].astype(np.int64))
    network = NETWORKS[name]()
    train(network, images, labels)
    # dynamo=False: the newer exporter needs one more package, onnxscript.
    torch.onnx.export(
        network.eval(),
        (images[:1],),
        onnx_file,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    main()
