"""Transposed, deformable and causal convolutions, and the sum of columns, Col2Im."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from onnx_relief.bridge.ops.registry import Row, call

_TRANSPOSED: Final[tuple[Callable[..., Tensor], ...]] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,  # noqa: ARG001 - the weight has it, too
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return the transposed convolution of `x` (batch, in, ...) with `weight` (in, out/group, ...).

    Pads cut the output. torch knows equal pads on both sides and output padding below the stride;
    the rest is cut from, or added as nothing but the bias to, the whole output.
    """
    rank = weight.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    added = list(output_padding or [0] * rank)
    pads = list(pads or [0] * (2 * rank))
    kernel = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    whole = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], strides, kernel, strict=True)]
    if output_shape is None and auto_pad.startswith("SAME"):  # as ONNX Runtime, never made longer
        each = zip(x.shape[2:], strides, whole, added, strict=True)
        output_shape = [min(n * s, w + a) for n, s, w, a in each]
    if auto_pad == "VALID":
        pads = [0] * (2 * rank)
    if output_shape is not None:
        wanted = output_shape[-rank:]
        total = [max(0, w + a - o) for w, a, o in zip(whole, added, wanted, strict=True)]
        half = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        added = [o + t - w for w, o, t in zip(whole, wanted, total, strict=True)]
        pads = [*half, *(t - h for t, h in zip(total, half, strict=True))]
    start, end = pads[:rank], pads[rank:]
    run = _TRANSPOSED[rank - 1]
    fixed: dict[str, Any] = {"stride": strides, "groups": group, "dilation": dilations}
    # More at the end than torch cuts or adds is a crop or a pad afterwards.
    rest = [a - e + s for a, e, s in zip(added, end, start, strict=True)]
    possible = all(0 <= r < max(s, d) for r, s, d in zip(rest, strides, dilations, strict=True))
    if possible and min(start) >= 0:
        return run(x, weight, bias, padding=start, output_padding=rest, **fixed)
    y = run(x, weight, **fixed)
    flat = [
        amount
        for s, a, e in reversed(list(zip(start, added, end, strict=True)))
        for amount in (-s, a - e)
    ]
    y = functional.pad(y, flat)
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,  # noqa: ARG001 - the weight has it, too
    offset_group: int = 1,
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
) -> Tensor:
    """Return the convolution whose kernel elements read beside their places (arXiv 1703.06211).

    Args:
        x: (batch, in, height, width).
        weight: (out, in/group, kernel height, kernel width).
        offset: (batch, offset_group * elements * 2, output height, output width), y before x.
        bias: (out,).
        mask: (batch, offset_group * elements, output height, output width), factors.
        dilations: Distances between kernel elements.
        group: Groups of channels.
        kernel_shape: Not used.
        offset_group: Groups of channels with offsets of their own.
        pads: Zeros around the picture; those at the start are all that matters here.
        strides: Steps of the kernel.
    """
    n, c, h, w = x.shape
    out, _, kh, kw = weight.shape
    oh, ow = offset.shape[-2:]
    moved = offset.reshape(n * offset_group, kh * kw, 2, oh, ow)
    rows, columns = _arange(oh, x)[:, None] * strides[0], _arange(ow, x) * strides[1]
    down = (_arange(kh, x) * dilations[0]).repeat_interleave(kw)[:, None, None]
    right = (_arange(kw, x) * dilations[1]).repeat(kh)[:, None, None]
    y_at, x_at = moved[:, :, 0] + rows + down - pads[0], moved[:, :, 1] + columns + right - pads[1]
    planes = x.reshape(n * offset_group, c // offset_group, h, w)
    sampled = _bilinear(planes, y_at.flatten(1), x_at.flatten(1))
    sampled = sampled.reshape(n, offset_group, c // offset_group, kh * kw, oh, ow)
    if mask is not None:
        sampled = sampled * mask.reshape(n, offset_group, 1, kh * kw, oh, ow)
    patches = sampled.reshape(n, group, c // group * kh * kw, oh * ow)
    y = (weight.reshape(group, out // group, -1) @ patches).reshape(n, out, oh, ow)
    return y if bias is None else y + bias[:, None, None]


def _arange(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=like.dtype, device=like.device)


def _bilinear(x: Tensor, y_at: Tensor, x_at: Tensor) -> Tensor:
    """Return `x` (pictures, channels, height, width) at points (pictures, points), 0 outside."""
    h, w = x.shape[2:]
    flat, found = x.flatten(2), torch.zeros((), dtype=x.dtype, device=x.device)
    for down in (0, 1):
        for right in (0, 1):
            row, column = y_at.detach().floor() + down, x_at.detach().floor() + right
            inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
            weight = (1 - (y_at - row).abs()) * (1 - (x_at - column).abs()) * inside
            index = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).long()
            pixels = flat.gather(2, index[:, None].expand(-1, x.shape[1], -1))
            found = found + pixels * weight[:, None]
    return found


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past_state: Tensor | None = None,
    *,
    activation: str = "none",
) -> tuple[Tensor, Tensor]:
    """Return the depthwise convolution of `x` (batch, channels, length) with its past, and both.

    The second output is what the next call takes as `past_state`: the last `kernel - 1` elements.
    """
    past = weight.shape[2] - 1
    before = x.new_zeros(*x.shape[:2], past) if past_state is None else past_state
    padded = torch.cat([before, x], 2)
    y = functional.conv1d(padded, weight, bias, groups=x.shape[1])
    if activation in ("silu", "swish"):
        y = functional.silu(y.float() if y.dtype == torch.float16 else y).to(x.dtype)
    return y, padded[:, :, padded.shape[2] - past :]


def col2im(
    x: Tensor,
    image_shape: Tensor,
    block_shape: Tensor,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return pictures (batch, channels, ...) that are sums of blocks: columns of `x`.

    Args:
        x: (batch, channels * elements of a block, blocks).
        image_shape: Lengths of the picture's axes.
        block_shape: Lengths of a block's axes.
        dilations: Distances between elements of a block.
        pads: What lies around the picture, and is cut off.
        strides: Distances between blocks.
    """
    image, block = image_shape.tolist(), block_shape.tolist()
    rank = len(image)
    steps, gaps = strides or [1] * rank, dilations or [1] * rank
    around = list(pads or [0] * (2 * rank))
    index = torch.zeros((), dtype=torch.int64, device=x.device)
    padded = [size + around[i] + around[i + rank] for i, size in enumerate(image)]
    for i in range(rank):  # index: (block elements ..., block positions ...)
        positions = (padded[i] - gaps[i] * (block[i] - 1) - 1) // steps[i] + 1
        element = torch.arange(block[i], device=x.device) * gaps[i]
        position = torch.arange(positions, device=x.device) * steps[i]
        element = element.reshape(-1, *[1] * (2 * rank - 1 - i))
        position = position.reshape(-1, *[1] * (rank - 1 - i))
        index = index * padded[i] + element + position
    columns = x.reshape(x.shape[0], -1, index.numel())
    flat = columns.new_zeros(*columns.shape[:2], math.prod(padded))
    y = flat.index_add(2, index.flatten(), columns).reshape(*columns.shape[:2], *padded)
    return functional.pad(y, [-around[j] for i in reversed(range(rank)) for j in (i, i + rank)])


HANDLERS: Final = (
    Row("ConvTranspose", 1, call(conv_transpose)),
    Row("DeformConv", 19, call(deform_conv)),
    Row("CausalConvWithState", 27, call(causal_conv)),
    Row("Col2Im", 18, call(col2im)),
)
