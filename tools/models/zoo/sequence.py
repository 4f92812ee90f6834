"""A bidirectional LSTM tagger, a BERT encoder, PyTorch's own encoder, a ViT and an MLP-Mixer.

Sources: arXiv 1508.01991, 1810.04805, 1706.03762, 2010.11929 and 2105.01601.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.zoo.mobile import CLASSES


class Tagger(nn.Module):
    """Words, two layers of LSTM in both directions, one label for every word."""

    def __init__(self, words: int = 2000, width: int = 96, hidden: int = 128) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 17))

    def forward(self, ids: Tensor) -> Tensor:
        """Return (n, words, labels)."""
        labels: Tensor = self.head(self.lstm(self.words(ids))[0])
        return labels


class BertLayer(nn.Module):
    """Attention written out with separate projections, then a feed-forward net; norms after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-12) for _ in range(2))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the shape of `x`, (n, words, width); `bias` (n, 1, 1, words) hides words."""
        q, k, v = (self._split(part(x)) for part in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / (q.shape[-1] ** 0.5) + bias
        mixed = (scores.softmax(dim=-1) @ v).permute(0, 2, 1, 3)
        x = self.norms[0](x + self.out(mixed.reshape(x.shape)))
        y: Tensor = self.norms[1](x + self.narrow(functional.gelu(self.widen(x))))
        return y

    def _split(self, x: Tensor) -> Tensor:
        n, words, width = x.shape
        return x.view(n, words, self.heads, width // self.heads).permute(0, 2, 1, 3)


class Bert(nn.Module):
    """BERT with a pooler and a classifier."""

    def __init__(self, words: int = 500, width: int = 256, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(64, width)
        self.kinds = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(width, heads) for _ in range(depth))
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return (n, classes)."""
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.words(ids) + self.places(places)[None] + self.kinds(torch.zeros_like(ids))
        x = self.norm(x)
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        logits: Tensor = self.head(torch.tanh(self.pooler(x[:, 0])))
        return logits


class Encoder(nn.Module):
    """PyTorch's own TransformerEncoder over frames of features, norms first, a mean, a label."""

    def __init__(self, features: int = 40, width: int = 192, heads: int = 6) -> None:
        super().__init__()
        self.into = nn.Linear(features, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, 3, nn.LayerNorm(width), False)
        self.head = nn.Linear(width, 12)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, classes)."""
        logits: Tensor = self.head(self.layers(self.into(x)).mean(dim=1))
        return logits


class VitBlock(nn.Module):
    """Norms first, one packed projection, fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape, (n, places, width)."""
        n, places, width = x.shape
        packed = self.packed(self.norms[0](x)).reshape(n, places, 3, self.heads, -1)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, places, width))
        y: Tensor = self.narrow(functional.gelu(self.widen(self.norms[1](x))))
        return x + y


class Vit(nn.Module):
    """ViT-Tiny with six blocks, for 96 x 96 pictures."""

    def __init__(self, width: int = 192, heads: int = 3, depth: int = 6, patch: int = 16) -> None:
        super().__init__()
        places = (96 // patch) ** 2 + 1
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(0.1 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.1 * torch.randn(1, places, width))
        self.blocks = nn.Sequential(*(VitBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, classes)."""
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat((self.first.expand(y.shape[0], -1, -1), y), dim=1) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(y))[:, 0])
        return logits


class MixerBlock(nn.Module):
    """One net across places, one across channels."""

    def __init__(self, width: int, places: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.places = nn.Sequential(
            nn.Linear(places, 2 * places), nn.GELU(), nn.Linear(2 * places, places)
        )
        self.channels = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape, (n, places, width)."""
        x = x + self.places(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        y: Tensor = self.channels(self.norms[1](x))
        return x + y


class Mixer(nn.Module):
    """An MLP-Mixer for 96 x 96 pictures."""

    def __init__(self, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.blocks = nn.Sequential(*(MixerBlock(width, 36) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, classes)."""
        y = self.patches(x).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.norm(self.blocks(y)).mean(dim=1))
        return logits
