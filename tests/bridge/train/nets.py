"""Small modules that take and give tensors by name, as converted models do."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from onnx_relief.data import open_data
from onnx_relief.tensors import TensorSpec


class Net(nn.Module):
    """A stand-in for a converted model: one input `x`, one output `y`, masks held."""

    def __init__(self, *layers, masks=None):
        super().__init__()
        self.net = nn.Sequential(*layers)
        self.inputs, self.outputs = ("x",), ("y",)
        self.masks = masks or {}
        parameters = dict(self.named_parameters())
        for name, mask in self.masks.items():
            parameters[name].register_hook(lambda gradient, mask=mask: gradient * mask)
        self.hold_masks()

    def forward(self, feed):
        return {"y": self.net(feed["x"])}

    def hold_masks(self):
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameters[name].masked_fill_(~mask, 0.0)


def mlp(seed=0, *, masked=0.0, inputs=8, hidden=16, classes=3, tail=(), dropout=0.0):
    """Return two layers; `masked` is the share of the weights of the first that are held at 0."""
    torch.manual_seed(seed)
    first = nn.Linear(inputs, hidden)
    masks = {}
    if masked:
        masks["net.0.weight"] = torch.rand(hidden, inputs) >= masked
    middle = [nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return Net(first, *middle, nn.Linear(hidden, classes), *tail, masks=masks)


def specs(*shape, name="x", dtype="float32"):
    return [TensorSpec(name=name, dtype=np.dtype(dtype), shape=shape)]


def arrays(count=200, *, inputs=8, classes=3, seed=0, labels=True):
    """Return points around one centre for each class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, inputs)) * 2
    classes_of = rng.integers(0, classes, count)
    x = (centres[classes_of] + rng.normal(size=(count, inputs))).astype(np.float32)
    return {"x": x, "labels": classes_of} if labels else {"x": x}


def points(count=200, *, inputs=8, **options):
    return open_data(arrays(count, inputs=inputs, **options), specs("N", inputs))


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
