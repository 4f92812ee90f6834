"""A small decoder in the manner of Llama: RMSNorm, RoPE, grouped queries, SwiGLU, a tied table.

Source: arXiv 2302.13971; grouped queries: 2305.13245; rotation: 2104.09864.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RmsNorm(nn.Module):
    """Scale by the root of the mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (n, heads, words, size): the first half of a head with the second."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Block(nn.Module):
    """Attention with fewer keys than queries, then a gated feed-forward net."""

    def __init__(self, width: int, heads: int, shared: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.query = nn.Linear(width, heads * self.size, bias=False)
        self.key = nn.Linear(width, shared * self.size, bias=False)
        self.value = nn.Linear(width, shared * self.size, bias=False)
        self.out = nn.Linear(heads * self.size, width, bias=False)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.norms = nn.ModuleList(RmsNorm(width) for _ in range(2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, hidden: Tensor) -> Tensor:
        """Return the same shape, (n, words, width); `hidden` is added to the scores."""
        n, words, width = x.shape
        y = self.norms[0](x)
        q = rotated(self.query(y).view(n, words, self.heads, -1).transpose(1, 2), cos, sin)
        k = rotated(self.key(y).view(n, words, self.shared, -1).transpose(1, 2), cos, sin)
        v = self.value(y).view(n, words, self.shared, -1).transpose(1, 2)
        k, v = self._repeated(k), self._repeated(v)
        scores = q @ k.transpose(2, 3) * self.size**-0.5 + hidden
        mixed = scores.softmax(dim=-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, words, width))
        y = self.norms[1](x)
        z: Tensor = self.down(functional.silu(self.gate(y)) * self.up(y))
        return x + z

    def _repeated(self, x: Tensor) -> Tensor:
        n, shared, words, size = x.shape
        times = self.heads // shared
        x = x[:, :, None].expand(n, shared, times, words, size)
        return x.reshape(n, shared * times, words, size)


class Decoder(nn.Module):
    """Next-word scores for every word; the table of words is read at both ends."""

    def __init__(self, words: int = 1000, width: int = 256, heads: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width, heads, 2, 688) for _ in range(depth))
        self.norm = RmsNorm(width)
        size = width // heads
        rates = 10000.0 ** (-torch.arange(0, size, 2).float() / size)
        self.rates: Tensor
        self.register_buffer("rates", torch.cat((rates, rates)))

    def forward(self, ids: Tensor) -> Tensor:
        """Return (n, words, table)."""
        x = self.words(ids)
        places = torch.arange(ids.shape[1], device=ids.device)
        angles = places[:, None].float() * self.rates
        cos, sin = angles.cos(), angles.sin()
        hidden = torch.full((ids.shape[1], ids.shape[1]), -1e4).triu(1)
        for block in self.blocks:
            x = block(x, cos, sin, hidden)
        return functional.linear(self.norm(x), self.words.weight)
