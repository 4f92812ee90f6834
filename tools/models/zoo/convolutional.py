"""ResNet-50, ConvNeXt, U-Net and a C2f detector: streams, layer scales, skips and split branches.

Sources: arXiv 1512.03385, 2201.03545 and 1505.04597; the detector follows the published layout of
YOLOv8n (C2f, SPPF, two ways through a pyramid, distributions of distances).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.zoo.mobile import CLASSES, ConvNorm


class Bottleneck(nn.Module):
    """Narrow, 3x3, widen, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(inputs, width, act=nn.ReLU),
            ConvNorm(width, width, 3, stride, act=nn.ReLU),
            ConvNorm(width, 4 * width),
        )
        same = inputs == 4 * width and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, 4 width, h / stride, w / stride)."""
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet_50() -> nn.Module:
    """Return ResNet-50 with 1000 classes, 25.56 M parameters."""
    body: list[nn.Module] = [ConvNorm(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for at in range(count):
            stride = 2 if stage and at == 0 else 1
            body.append(Bottleneck(inputs, 64 << stage, stride))
            inputs = 4 * (64 << stage)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class ChannelsFirstNorm(nn.LayerNorm):
    """LayerNorm over the channels of (n, channels, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        y: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, four times as wide, GELU, back, a scale for every channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(0.1 + 0.9 * torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        y: Tensor = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(functional.gelu(self.widen(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Return ConvNeXt-Atto: widths 40 to 320, depths 2, 2, 6, 2."""
    widths, depths = (40, 80, 160, 320), (2, 2, 6, 2)
    body: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelsFirstNorm(widths[0])]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            body += [ChannelsFirstNorm(widths[stage - 1])]
            body += [nn.Conv2d(widths[stage - 1], width, 2, 2)]
        body += [ConvNextBlock(width) for _ in range(depth)]
    head = (nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], CLASSES))
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def _twice(inputs: int, units: int) -> nn.Module:
    return nn.Sequential(
        ConvNorm(inputs, units, 3, act=nn.ReLU), ConvNorm(units, units, 3, act=nn.ReLU)
    )


class UNet(nn.Module):
    """Down four times, up again by ConvTranspose, each time joined with what was there before."""

    def __init__(self, width: int = 24, classes: int = 4) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        self.down = nn.ModuleList(_twice(a, b) for a, b in zip([3, *widths], widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        self.merge = nn.ModuleList(_twice(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, classes, h, w)."""
        seen = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            seen.append(x)
        for up, merge, skip in zip(self.up, self.merge, seen[-2::-1], strict=True):
            x = merge(torch.cat((skip, up(x)), dim=1))
        y: Tensor = self.head(x)
        return y


class C2f(nn.Module):
    """Split in two halves, work on the second again and again, join all that was seen."""

    def __init__(self, inputs: int, units: int, count: int = 1, *, joins: bool = True) -> None:
        super().__init__()
        half = units // 2
        self.joins = joins
        self.first = ConvNorm(inputs, units, act=nn.SiLU)
        self.last = ConvNorm((2 + count) * half, units, act=nn.SiLU)
        self.work = nn.ModuleList(
            nn.Sequential(
                ConvNorm(half, half, 3, act=nn.SiLU), ConvNorm(half, half, 3, act=nn.SiLU)
            )
            for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, units, h, w)."""
        parts = list(self.first(x).chunk(2, dim=1))
        for block in self.work:
            y = block(parts[-1])
            parts.append(parts[-1] + y if self.joins else y)
        joined: Tensor = self.last(torch.cat(parts, dim=1))
        return joined


class Pyramid(nn.Module):
    """SPPF: the same pooling three times, all joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels // 2, act=nn.SiLU)
        self.last = ConvNorm(2 * channels, channels, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        joined: Tensor = self.last(torch.cat(parts, dim=1))
        return joined


class Detector(nn.Module):
    """A detector with C2f blocks: backbone, two ways through the pyramid, and a head."""

    bins = 16

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        self.stem = nn.Sequential(_down(3, 16), _down(16, 32), C2f(32, 32), _down(32, 64))
        self.third = C2f(64, 64, 2)
        self.fourth = nn.Sequential(_down(64, 128), C2f(128, 128, 2))
        self.fifth = nn.Sequential(_down(128, 256), C2f(256, 256), Pyramid(256))
        self.up_four, self.up_three = (C2f(a, b, joins=False) for a, b in ((384, 128), (192, 64)))
        self.to_four, self.to_five = _down(64, 64), _down(128, 128)
        self.down_four, self.down_five = C2f(192, 128, joins=False), C2f(384, 256, joins=False)
        self.boxes = nn.ModuleList(_branch(n, 64, 4 * self.bins) for n in (64, 128, 256))
        self.kinds = nn.ModuleList(_branch(n, 64, classes) for n in (64, 128, 256))
        self.register_buffer("distances", torch.arange(self.bins, dtype=torch.float32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances to four sides (n, 4, places) and scores (n, classes, places)."""
        three = self.third(self.stem(x))
        four = self.fourth(three)
        five = self.fifth(four)
        up_four = self.up_four(torch.cat((_larger(five), four), dim=1))
        up_three = self.up_three(torch.cat((_larger(up_four), three), dim=1))
        down_four = self.down_four(torch.cat((self.to_four(up_three), up_four), dim=1))
        down_five = self.down_five(torch.cat((self.to_five(down_four), five), dim=1))
        levels = (up_three, down_four, down_five)
        sides = [box(y).flatten(2) for box, y in zip(self.boxes, levels, strict=True)]
        scores = [kind(y).flatten(2) for kind, y in zip(self.kinds, levels, strict=True)]
        chances = torch.cat(sides, dim=2).unflatten(1, (4, self.bins)).softmax(dim=2)
        expected = torch.einsum("nsbp,b->nsp", chances, self.distances)
        return expected, torch.cat(scores, dim=2).sigmoid()


def _down(inputs: int, units: int) -> nn.Module:
    return ConvNorm(inputs, units, 3, 2, act=nn.SiLU)


def _branch(inputs: int, width: int, units: int) -> nn.Module:
    return nn.Sequential(
        ConvNorm(inputs, width, 3, act=nn.SiLU),
        ConvNorm(width, width, 3, act=nn.SiLU),
        nn.Conv2d(width, units, 1),
    )


def _larger(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
