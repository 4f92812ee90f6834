"""Operators that pick or place elements by index. Negative indices count from the end."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from onnx2fx.utils.dtype import DTYPE_MAP
from torch import Tensor

from onnx_relief.bridge.ops.registry import Row, call

# The reductions of ONNX, as scatter_reduce calls them.
_REDUCTIONS: Final = {"mul": "prod", "max": "amax", "min": "amin"}


def _counted(indices: Tensor, x: Tensor, axis: int) -> Tensor:
    """Return indices from 0 on, of the type that torch wants, where `x` lies."""
    found = indices.to(x.device, torch.int64)
    return torch.where(found < 0, found + x.shape[axis], found)


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Return slices of `x` along an axis, of shape x[:axis] + indices + x[axis + 1:]."""
    axis %= x.ndim
    picked = x.index_select(axis, _counted(indices, x, axis).flatten())
    return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Return one element per index."""
    return x.gather(axis, _counted(indices, x, axis))


def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Return the slices that the last axis of `indices` points at."""
    rank = indices.ndim - 1
    batch = [
        torch.arange(x.shape[i], device=x.device).reshape(-1, *[1] * (rank - 1 - i))
        for i in range(batch_dims)
    ]
    found: Tensor = x[(*batch, *indices.to(x.device, torch.int64).unbind(-1))]
    return found


def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """Return `x` with one element per index replaced by an update, or combined with it."""
    index, updates = _counted(indices, x, axis), updates.to(x.dtype)  # autocast makes them differ
    if reduction == "none":
        return x.scatter(axis, index, updates)
    if reduction == "add":
        return x.scatter_add(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCTIONS[reduction])


def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """Return `x` with the slices that `indices` points at replaced, or combined with updates."""
    depth = indices.shape[-1]
    rows = x.reshape(math.prod(x.shape[:depth]), -1)
    row = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for axis, index in enumerate(indices.unbind(-1)):
        row = row * x.shape[axis] + _counted(index, x, axis)
    row, update = row.flatten(), updates.to(x.dtype).reshape(row.numel(), rows.shape[1])
    if reduction in ("none", "add"):
        done = rows.index_put((row,), update, accumulate=reduction == "add")
    else:
        index = row[:, None].expand_as(update)
        done = rows.scatter_reduce(0, index, update, _REDUCTIONS[reduction])
    return done.reshape(x.shape)


def one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    """Return `values[1]` where an index says, `values[0]` elsewhere, also for one out of range."""
    count = int(depth.item())
    index = indices.to(torch.int64)
    index = torch.where(index < 0, index + count, index).unsqueeze(-1)
    hot = index == torch.arange(count, device=index.device)
    return torch.where(hot, values[1], values[0]).movedim(-1, axis)


def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """Return the slices where `condition` is true; it may be shorter than the axis."""
    if axis is None:
        x, axis = x.flatten(), 0
    return x.index_select(axis, condition.flatten().nonzero().flatten().to(x.device))


def unique(
    x: Tensor, *, axis: int | None = None, sorted: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the values that occur, where each is first, which one each element is, how often."""
    x, axis = (x.flatten(), 0) if axis is None else (x, axis)
    found = torch.unique(x, dim=axis, return_inverse=True, return_counts=True)
    inverse, counts = found[1].flatten(), found[2]
    places = torch.arange(len(inverse), device=x.device)
    first = torch.full_like(counts, len(inverse)).scatter_reduce(0, inverse, places, "amin")
    if not sorted:
        order = first.argsort()
        first, counts, inverse = first[order], counts[order], order.argsort()[inverse]
    return x.index_select(axis, first), first, inverse, counts


def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Return ones on the k-th diagonal and zeros elsewhere."""
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    columns = torch.arange(x.shape[1], device=x.device)
    kind: Any = x.dtype if dtype is None else DTYPE_MAP[dtype]
    return (columns - rows == k).to(kind)


HANDLERS: Final = (
    Row("Gather", 1, call(gather)),
    Row("GatherElements", 11, call(gather_elements)),
    Row("GatherND", 11, call(gather_nd)),
    Row("Scatter", 9, call(scatter_elements)),
    Row("ScatterElements", 11, call(scatter_elements)),
    Row("ScatterND", 11, call(scatter_nd)),
    Row("OneHot", 9, call(one_hot)),
    Row("Compress", 9, call(compress)),
    Row("Unique", 11, call(unique)),
    Row("EyeLike", 9, call(eye_like)),
)
