"""MobileNetV2, MobileNetV3, EfficientNet and ShuffleNetV2: depthwise, gates, split and shuffle.

Sources: arXiv 1801.04381, 1905.02244, 1905.11946 and 1807.11164; widths and depths as published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

CLASSES = 100


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and, where there is one, an activation."""

    def __init__(
        self,
        inputs: int,
        units: int,
        size: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: Callable[[], nn.Module] | None = None,
    ) -> None:
        parts: list[nn.Module] = [
            nn.Conv2d(inputs, units, size, stride, size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(units),
        ]
        super().__init__(*parts, *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """A gate for every channel, computed from the means of all of them."""

    def __init__(self, channels: int, hidden: int, gate: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.excite = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.gate, self.act = gate, act

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (n, channels, h, w) with every channel scaled."""
        gates: Tensor = self.gate(self.excite(self.act(self.squeeze(self.pool(x)))))
        return x * gates


class Inverted(nn.Module):
    """Inverted residual: widen, depthwise, perhaps a gate, narrow."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        units: int,
        size: int,
        stride: int,
        act: Callable[[], nn.Module],
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        widen = [] if hidden == inputs else [ConvNorm(inputs, hidden, act=act)]
        depthwise = ConvNorm(hidden, hidden, size, stride, hidden, act)
        gates = [] if gate is None else [gate]
        self.body = nn.Sequential(*widen, depthwise, *gates, ConvNorm(hidden, units))
        self.joins = stride == 1 and inputs == units

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, units, h / stride, w / stride)."""
        y: Tensor = self.body(x)
        return x + y if self.joins else y


def _classifier(body: Sequence[nn.Module], *head: nn.Module) -> nn.Module:
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def mobilenet_v2() -> nn.Module:
    """Return MobileNetV2 of width 1."""
    stages = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    )
    body: list[nn.Module] = [ConvNorm(3, 32, 3, 2, act=nn.ReLU6)]
    width = 32
    for factor, units, count, stride in stages:
        for at in range(count):
            step = stride if at == 0 else 1
            body.append(Inverted(width, width * factor, units, 3, step, nn.ReLU6))
            width = units
    body.append(ConvNorm(width, 1280, act=nn.ReLU6))
    return _classifier(body, nn.Dropout(0.2), nn.Linear(1280, CLASSES))


def mobilenet_v3() -> nn.Module:
    """Return MobileNetV3-Small: gates with HardSigmoid, HardSwish."""
    rows = (
        *((3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2)),
        *((3, 88, 24, False, False, 1), (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1)),
        *((5, 240, 40, True, True, 1), (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1)),
        *((5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1)),
    )
    body: list[nn.Module] = [ConvNorm(3, 16, 3, 2, act=nn.Hardswish)]
    width = 16
    for size, hidden, units, gated, hard, stride in rows:
        gate = SqueezeExcite(hidden, _eighths(hidden / 4), nn.Hardsigmoid(), nn.ReLU())
        act = nn.Hardswish if hard else nn.ReLU
        body.append(Inverted(width, hidden, units, size, stride, act, gate if gated else None))
        width = units
    body.append(ConvNorm(width, 576, act=nn.Hardswish))
    return _classifier(body, nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, CLASSES))


def efficientnet() -> nn.Module:
    """Return EfficientNet-B0: gates with Sigmoid, SiLU."""
    stages = (
        *((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2)),
        *((6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1)),
    )
    body: list[nn.Module] = [ConvNorm(3, 32, 3, 2, act=nn.SiLU)]
    width = 32
    for factor, size, units, count, stride in stages:
        for at in range(count):
            hidden = width * factor
            gate = SqueezeExcite(hidden, max(1, width // 4), nn.Sigmoid(), nn.SiLU())
            step = stride if at == 0 else 1
            body.append(Inverted(width, hidden, units, size, step, nn.SiLU, gate))
            width = units
    body.append(ConvNorm(width, 1280, act=nn.SiLU))
    return _classifier(body, nn.Dropout(0.2), nn.Linear(1280, CLASSES))


class Shuffled(nn.Module):
    """ShuffleNetV2: half of the channels pass, the others are worked on, then all are shuffled."""

    def __init__(self, inputs: int, units: int, stride: int) -> None:
        super().__init__()
        half = units // 2
        self.splits = stride == 1
        passed = half if self.splits else inputs
        self.work = nn.Sequential(
            ConvNorm(passed, half, act=nn.ReLU),
            ConvNorm(half, half, 3, stride, half),
            ConvNorm(half, half, act=nn.ReLU),
        )
        self.side = nn.Sequential(
            ConvNorm(inputs, inputs, 3, stride, inputs), ConvNorm(inputs, half, act=nn.ReLU)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, units, h / stride, w / stride)."""
        if self.splits:
            passed, worked = x.chunk(2, dim=1)
            y = torch.cat((passed, self.work(worked)), dim=1)
        else:
            y = torch.cat((self.side(x), self.work(x)), dim=1)
        n, channels, h, w = y.shape
        return y.view(n, 2, channels // 2, h, w).transpose(1, 2).reshape(n, channels, h, w)


def shufflenet_v2() -> nn.Module:
    """Return ShuffleNetV2 of width 1."""
    body: list[nn.Module] = [ConvNorm(3, 24, 3, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    width = 24
    for units, count in ((116, 4), (232, 8), (464, 4)):
        for at in range(count):
            body.append(Shuffled(width, units, 2 if at == 0 else 1))
            width = units
    body.append(ConvNorm(width, 1024, act=nn.ReLU))
    return _classifier(body, nn.Linear(1024, CLASSES))


def _eighths(width: float) -> int:
    return max(8, int(width + 4) // 8 * 8)
