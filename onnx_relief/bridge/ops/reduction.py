"""Operators that sum up, count up or choose along axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from onnx_relief.bridge.ops.registry import Handler, Row, call

# Takes a tensor, axes (at least one), and whether they stay, of length 1.
Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _real(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.double()


def _extreme(x: Tensor, axes: list[int], keep: bool, largest: bool) -> Tensor:
    """Return the largest or smallest; of nothing, the smallest or largest that the type has."""
    if all(x.shape[axis] for axis in axes):
        return (torch.amax if largest else torch.amin)(x, axes, keep)
    if x.dtype == torch.bool:
        worst: float | bool = not largest
    elif x.is_floating_point():
        worst = -torch.inf if largest else torch.inf
    else:
        bounds = torch.iinfo(x.dtype)
        worst = bounds.min if largest else bounds.max
    return torch.full_like(x.sum(axes, keep), worst, dtype=x.dtype)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_REDUCTIONS: Final[dict[str, Reduction]] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceMean": lambda x, axes, keep: _real(x).mean(axes, keep),
    "ReduceMax": lambda x, axes, keep: _extreme(x, axes, keep, largest=True),
    "ReduceMin": lambda x, axes, keep: _extreme(x, axes, keep, largest=False),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(_real(x), 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: _real(x).sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(_real(x), axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


def _reducing(name: str, compute: Reduction) -> Handler:
    def reduce(
        x: Tensor,
        axes: Tensor | Sequence[int] | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        found = axes.tolist() if isinstance(axes, Tensor) else list(axes or ())
        chosen = sorted(axis % x.ndim for axis in found) if found else list(range(x.ndim))
        if not chosen or (not found and noop_with_empty_axes):
            # Over an axis of length 1 of its own: a sum is the number, a norm its magnitude.
            return compute(x.unsqueeze(-1), [x.ndim], False).to(x.dtype)
        return compute(x, chosen, bool(keepdims)).to(x.dtype)

    reduce.__name__ = name
    return call(reduce)


def _running(
    x: Tensor, axis: Tensor, exclusive: int, reverse: int, total: Callable[..., Tensor]
) -> Tensor:
    dim = int(axis.item()) % x.ndim
    x = x.flip(dim) if reverse else x
    if exclusive:
        neutral = torch.full_like(x.narrow(dim, 0, 1), total is torch.cumprod)
        x = torch.cat([neutral, x.narrow(dim, 0, x.shape[dim] - 1)], dim)
    y = total(x, dim, dtype=x.dtype)
    return y.flip(dim) if reverse else y


def cumulative_sum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Return the sums of everything up to each element, without it where `exclusive`."""
    return _running(x, axis, exclusive, reverse, torch.cumsum)


def cumulative_product(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Return the products of everything up to each element, without it where `exclusive`."""
    return _running(x, axis, exclusive, reverse, torch.cumprod)


def top_k(
    x: Tensor,
    k: Tensor | int,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,  # noqa: ARG001 - in order is never wrong
) -> tuple[Tensor, Tensor]:
    """Return the k largest or smallest and where they are; of equal ones the first come first."""
    order = torch.argsort(x.detach(), dim=axis, descending=bool(largest), stable=True)
    index = order.narrow(axis, 0, int(k))
    return x.gather(axis, index), index


def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Return 1 at the first largest element along an axis, 0 elsewhere."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


def hardmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    """Return 1 at the largest element among all axes from `axis` on, as it was until opset 12."""
    return hardmax(x.flatten(axis % x.ndim)).reshape(x.shape)


HANDLERS: Final = (
    *(Row(name, 1, _reducing(name, compute)) for name, compute in _REDUCTIONS.items()),
    Row("CumSum", 11, call(cumulative_sum)),
    Row("CumProd", 26, call(cumulative_product)),
    Row("TopK", 1, call(top_k)),
    Row("Hardmax", 13, call(hardmax)),
    Row("Hardmax", 1, call(hardmax_1)),
)
