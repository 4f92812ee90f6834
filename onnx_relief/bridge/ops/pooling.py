"""Pooling over windows.

All of them work out the windows first: how many there are, and what has to lie around the input so
that exactly these fit. So ceil mode, unequal pads, pads wider than half a kernel and dilations need
no rules of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import onnx
import torch
import torch.fx
from torch import Tensor
from torch.nn import functional

from onnx_relief.bridge.ops.registry import Builder, Row, attributes, call, inputs, outputs

_MAX_POOL: Final[tuple[Callable[..., Any], ...]] = (
    functional.max_pool1d,
    functional.max_pool2d,
    functional.max_pool3d,
)
_CONV: Final[tuple[Callable[..., Tensor], ...]] = (
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
)
_AVERAGE: Final[tuple[Callable[..., Tensor], ...]] = (
    functional.avg_pool1d,
    functional.avg_pool2d,
    functional.avg_pool3d,
)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where the windows of a pooling lie; one number per spatial axis.

    Attributes:
        kernel: Elements of a window.
        strides: From one window to the next.
        dilations: From one element of a window to the next.
        before: What lies before the input.
        after: What lies after it, by the node's word.
        reached: What must lie after it for the windows to fit; negative where some is not read.
        count: How many windows there are.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]
    reached: list[int]
    count: list[int]

    def around(self, after: list[int]) -> list[int]:
        """Return amounts before and `after` the input in the order of `functional.pad`."""
        pairs = list(zip(self.before, after, strict=True))
        return [amount for pair in reversed(pairs) for amount in pair]

    @property
    def is_plain(self) -> bool:
        """Whether torch pads just so itself."""
        fits = all(0 <= 2 * b <= k for b, k in zip(self.before, self.kernel, strict=True))
        # Rounded down, the windows end where the pad ends or before.
        inside = all(r <= a for r, a in zip(self.reached, self.after, strict=True))
        return fits and inside and self.before == self.after


def windows(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Windows:
    """Return where the windows lie on `x` (batch, channels, ...)."""
    rank = len(kernel_shape)
    steps, gaps = list(strides or [1] * rank), list(dilations or [1] * rank)
    around = list(pads or [0] * (2 * rank)) if auto_pad == "NOTSET" else [0] * (2 * rank)
    before, after, reached, count = around[:rank], around[rank:], [], []
    for i, (length, step) in enumerate(zip(x.shape[2:], steps, strict=True)):
        span = (kernel_shape[i] - 1) * gaps[i] + 1
        if auto_pad.startswith("SAME"):
            number = math.ceil(length / step)
            total = (number - 1) * step + span - length  # negative where steps leave a rest
            before[i] = int((total if auto_pad == "SAME_UPPER" else total + 1) / 2)
            after[i] = total - before[i]
        else:
            room = length + before[i] + after[i] - span
            number = (math.ceil(room / step) if ceil_mode else room // step) + 1
            if ceil_mode and (number - 1) * step >= length + before[i]:
                number -= 1  # it would start past the input
        count.append(number)
        reached.append((number - 1) * step + span - length - before[i])
    return Windows(
        kernel=list(kernel_shape),
        strides=steps,
        dilations=gaps,
        before=before,
        after=after,
        reached=reached,
        count=count,
    )


def max_pool(x: Tensor, *, storage_order: int = 0, **options: Any) -> Tensor:  # noqa: ANN401, ARG001
    """Return the largest element of every window."""
    return _max_pool(x, windows(x, **options), with_indices=False)[0]


def max_pool_with_indices(
    x: Tensor,
    *,
    storage_order: int = 0,
    **options: Any,  # noqa: ANN401
) -> tuple[Tensor, Tensor]:
    """Return the largest elements and where they are in `x`, as one number.

    The number counts row by row, or with `storage_order` 1 column by column within a picture.
    """
    found = windows(x, **options)
    y, index = _max_pool(x, found, with_indices=True)
    shape, start = list(x.shape[2:]), found.before
    if not found.is_plain:  # torch counts in the padded input
        shape_there = [n + b + r for n, b, r in zip(shape, start, found.reached, strict=True)]
    else:
        shape_there, start = shape, [0] * len(shape)
    coordinates = torch.unravel_index(index, shape_there)
    moved = [c - s for c, s in zip(coordinates, start, strict=True)]
    order = range(len(shape)) if storage_order == 0 else reversed(range(len(shape)))
    flat = torch.zeros_like(index)
    for i in order:
        flat = flat * shape[i] + moved[i]
    pictures = torch.arange(x.shape[0] * x.shape[1], device=x.device)
    pictures = pictures.reshape(*x.shape[:2], *[1] * len(shape))
    return y, flat + pictures * math.prod(shape)


def _max_pool(x: Tensor, found: Windows, *, with_indices: bool) -> tuple[Tensor, Tensor]:
    kind = x.dtype
    if not x.is_floating_point():
        x = x.double()
    padding: list[int] | int = found.before
    if not found.is_plain:
        x, padding = functional.pad(x, found.around(found.reached), value=-torch.inf), 0
    y = _MAX_POOL[len(found.kernel) - 1](
        x,
        found.kernel,
        stride=found.strides,
        padding=padding,
        dilation=found.dilations,
        return_indices=with_indices,
    )
    if with_indices:
        return y[0].to(kind), y[1]
    return y.to(kind), y


def _max_pool_handler(builder: Builder, node: onnx.NodeProto) -> torch.fx.Node:
    indices = len(node.output) > 1 and bool(node.output[1])
    function = max_pool_with_indices if indices else max_pool
    result = builder.call_function(function, inputs(builder, node), attributes(node))
    return outputs(builder, node, result)


def average_pool(x: Tensor, *, count_include_pad: int = 0, **options: Any) -> Tensor:  # noqa: ANN401
    """Return the mean of every window; pads count as zeros, or not at all."""
    found = windows(x, **options)
    if found.is_plain and set(found.dilations) == {1}:
        return _AVERAGE[len(found.kernel) - 1](
            x,
            found.kernel,
            stride=found.strides,
            padding=found.before,
            count_include_pad=bool(count_include_pad),
        )
    ones = torch.ones_like(x[:1, :1])
    if count_include_pad:  # what ceil mode adds beyond the pads does not count even so
        ones = functional.pad(ones, found.around(found.after), value=1.0)
        beyond = [r - a for r, a in zip(found.reached, found.after, strict=True)]
        ones = functional.pad(ones, [amount for b in reversed(beyond) for amount in (0, b)])
    else:
        ones = functional.pad(ones, found.around(found.reached))
    total = _window_sums(functional.pad(x, found.around(found.reached)), found)
    return total / _window_sums(ones, found)


def lp_pool(x: Tensor, *, p: int = 2, **options: Any) -> Tensor:  # noqa: ANN401
    """Return the p-norm of every window."""
    found = windows(x, **options)
    total = _window_sums(functional.pad(x.abs() ** p, found.around(found.reached)), found)
    # A root has no slope at 0; a window of zeros shall not make all gradients NaN.
    return torch.where(total > 0, torch.where(total > 0, total, 1.0) ** (1 / p), 0.0)


def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    """Return the p-norm of every picture."""
    norm: Tensor = torch.linalg.vector_norm(x, p, tuple(range(2, x.ndim)), keepdim=True)
    return norm


def _window_sums(x: Tensor, found: Windows) -> Tensor:
    """Return the sum of every window of an input that they just cover."""
    rank = len(found.kernel)
    planes = x.reshape(-1, 1, *x.shape[2:])
    weight = torch.ones(1, 1, *found.kernel, dtype=x.dtype, device=x.device)
    y = _CONV[rank - 1](planes, weight, stride=found.strides, dilation=found.dilations)
    return y.reshape(*x.shape[:2], *y.shape[2:])


def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Tensor | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return zeros with the elements of `x` where MaxPool found them.

    `indices` count in the shape that the attributes say; an `output_shape` beyond it is filled up
    with zeros at the ends.
    """
    rank = len(kernel_shape)
    steps, around = strides or [1] * rank, pads or [0] * (2 * rank)
    shape = list(x.shape[:2])
    for i, kernel in enumerate(kernel_shape):
        shape.append((x.shape[2 + i] - 1) * steps[i] + kernel - around[i] - around[i + rank])
    flat = x.new_zeros(math.prod(shape)).scatter(0, indices.flatten(), x.flatten())
    y = flat.reshape(shape)
    if output_shape is None:
        return y
    more = [w - n for w, n in zip(output_shape.tolist(), shape, strict=True)]
    return functional.pad(y, [amount for m in reversed(more) for amount in (0, m)])


HANDLERS: Final = (
    Row("MaxPool", 1, _max_pool_handler),
    Row("AveragePool", 1, call(average_pool)),
    Row("LpPool", 1, call(lp_pool)),
    Row("GlobalLpPool", 1, call(global_lp_pool)),
    Row("MaxUnpool", 9, call(max_unpool)),
)
