"""Cut and retrain ResNet-20 with Torch-Pruning. Run with its own Python.

python torch_pruning_resnet.py SETTINGS, where SETTINGS is a file of JSON; the keys are read in
`main`. Writes one line of JSON per ratio. The weights are those of the ONNX file. A shortcut that
slices and pads is written as the convolution of 1 x 1 that computes the same, since Torch-Pruning
does not follow padded channels.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch_pruning  # type: ignore[import-not-found, unused-ignore]
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

IMAGE = (1, 3, 32, 32)


class Block(nn.Module):
    """Two convolutions and a shortcut; its names are those of the ONNX file."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        stride = 1 if width_in == width else 2
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.shortcut = nn.Conv2d(width_in, width, 1, stride, bias=False)
            nn.init.zeros_(self.shortcut.weight)
            for place in range(width_in):
                self.shortcut.weight.data[(width - width_in) // 2 + place, place] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return what comes out of the block."""
        inside = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inside)) + self.shortcut(x))


class ResNet20(nn.Module):
    """The network of cifar10-resnet20.onnx."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def main() -> None:
    """Cut, count, judge, retrain and judge again at every ratio."""
    told = json.loads(Path(sys.argv[1]).read_text())
    with np.load(told["pictures"], allow_pickle=False) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
    scale = torch.tensor(told["mean"]), torch.tensor(told["std"])
    pixels = {part: _scaled(arrays[f"{part}_images"], *scale) for part in ("train", "test")}
    labels = {part: arrays[f"{part}_labels"].long().flatten() for part in ("train", "test")}
    spread = torch.linspace(0, len(pixels["train"]) - 1, told["samples"]).round().long()
    for ratio in told["ratios"]:
        torch.manual_seed(told["seed"])
        model = _loaded(told["model"])
        share = _cut(model, ratio)
        _normalise_again(model, pixels["train"][spread])
        before = _correct(model, pixels["test"], labels["test"])
        _train(model, pixels["train"], labels["train"], told)
        row = {
            "ratio": ratio,
            "parameters": 100 * share[0],
            "macs": 100 * share[1],
            "bias": before,
            "labels": _correct(model, pixels["test"], labels["test"]),
            "version": importlib.metadata.version("torch-pruning"),
        }
        print(json.dumps(row), flush=True)


def _loaded(path: str) -> ResNet20:
    model = ResNet20()
    weights = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(path).graph.initializer
    }
    missing, unexpected = model.load_state_dict(weights, strict=False)
    strangers = [name for name in missing if "shortcut" not in name and "num_batches" not in name]
    if strangers or unexpected:
        raise SystemExit(f"{path} is not the ResNet-20 that is meant: {strangers + unexpected}")
    return model.eval()


def _cut(model: ResNet20, ratio: float) -> tuple[float, float]:
    """Cut by group L2 and return the shares of parameters and MACs of the layers that are left."""
    example = torch.zeros(IMAGE)
    before = _sizes(model)
    torch_pruning.pruner.MetaPruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[model.linear],
    ).step()
    after = _sizes(model)
    return after[0] / before[0], after[1] / before[1]


def _sizes(model: ResNet20) -> tuple[int, int]:
    """Return weights and MACs of all layers but the shortcuts, which are no layers in the file."""
    weights, macs = 0, 0

    def count(layer: nn.Module, _: Any, made: Tensor) -> None:  # noqa: ANN401
        nonlocal weights, macs
        assert isinstance(layer, nn.Conv2d | nn.Linear), "hooks are on layers"
        weights += layer.weight.numel()
        macs += layer.weight.numel() * made[0, 0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    with torch.no_grad():
        model(torch.zeros(IMAGE))
    for hook in hooks:
        hook.remove()
    return weights, macs


def _normalise_again(model: ResNet20, images: Tensor) -> None:
    """Give BatchNormalization the mean and variance of what it meets now."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    usual = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None
    model.train()
    with torch.no_grad():
        for batch in images.split(100):
            model(batch)
    for layer, momentum in zip(norms, usual, strict=True):
        layer.momentum = momentum
    model.eval()


def _train(model: ResNet20, images: Tensor, labels: Tensor, told: dict[str, Any]) -> None:
    """Train as `retrain` does: Adam, cosine to zero by steps, mirrored and shifted pictures."""
    size, epochs = told["batch_size"], told["epochs"]
    steps = epochs * math.ceil(len(images) / size)
    optimizer = torch.optim.Adam(model.parameters(), lr=told["lr"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for rows in _orders(len(images), size):
            batch = _augmented(images[rows], told["crop_padding"], flip=told["flip"])
            optimizer.zero_grad()
            functional.cross_entropy(model(batch), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def _orders(count: int, size: int) -> Iterator[Tensor]:
    yield from torch.randperm(count).split(size)


def _augmented(images: Tensor, padding: int, *, flip: bool) -> Tensor:
    if padding:
        edge = images.shape[-1]
        wide = functional.pad(images, (padding,) * 4)
        corners = torch.randint(0, 2 * padding + 1, (len(images), 2)).tolist()
        images = torch.stack(
            [
                one[:, down : down + edge, right : right + edge]
                for one, (down, right) in zip(wide, corners, strict=True)
            ]
        )
    if flip:
        mirrored = torch.rand(len(images)) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


def _scaled(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]


def _correct(model: ResNet20, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        found = torch.cat([model(batch).argmax(1) for batch in images.split(100)])
    return 100 * float((found == labels).float().mean())


if __name__ == "__main__":
    main()
