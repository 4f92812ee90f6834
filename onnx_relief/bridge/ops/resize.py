"""Resize and Upsample, axis by axis (ONNX spec; what it leaves open is as in ONNX Runtime).

Interpolation is linear in the picture: along each axis that changes, the output is a matrix times
the input, `Y = W X`. Nearest neighbours are picked by index, so that NaN and infinity stay in
their place. What torch does itself exactly in the same way is left to it: it is faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from onnx_relief.bridge.ops.registry import Row, call


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How one axis changes.

    Attributes:
        index: Which axis.
        given: Its length.
        wanted: Its length afterwards.
        scale: How many times longer it becomes, before `wanted` was rounded.
        start: Where the region of interest starts, as a share of the axis.
        end: Where it ends.
    """

    index: int
    given: int
    wanted: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    def is_kept(self, antialias: bool) -> bool:
        """Say whether nothing happens to it."""
        return self.given == self.wanted and (antialias or self.scale == 1)


def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    nearest_mode: str = "round_prefer_floor",
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    keep_aspect_ratio_policy: str = "stretch",
) -> Tensor:
    """Return `x` resized to `sizes`, or by `scales` where there are no sizes."""
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
    crops = coordinate_transformation_mode == "tf_crop_and_resize"
    region = roi.tolist() if crops and roi is not None else []
    if sizes is not None and sizes.numel():
        plan = _by_sizes(x, sizes.tolist(), chosen, keep_aspect_ratio_policy)
    else:
        plan = _by_scales(x, [] if scales is None else scales.tolist(), chosen)
    plan = [_with_region(axis, region, list(chosen)) for axis in plan]
    if not crops:
        # As ONNX Runtime: what keeps its lengths stays as it is, with antialias every such axis.
        if all(axis.given == axis.wanted for axis in plan):
            return x
        plan = [axis for axis in plan if not axis.is_kept(bool(antialias))]
    if not (antialias or exclude_outside or crops):
        way = (mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a)
        if (done := _by_torch(x, plan, way)) is not None:
            return done
    y, outside = x if x.is_floating_point() or mode == "nearest" else x.float(), None
    for axis in plan:
        position = _positions(axis, coordinate_transformation_mode)
        if mode == "nearest":
            picked = _nearest(position, axis, nearest_mode).clamp(0, axis.given - 1)
            y = y.index_select(axis.index, picked.to(y.device))
        else:
            kernel, reach = _kernel(mode, axis, cubic_coeff_a, bool(antialias))
            matrix = _matrix(position, axis, kernel, reach, bool(exclude_outside))
            y = (y.movedim(axis.index, -1) @ matrix.to(y).T).movedim(-1, axis.index)
        if crops:
            beyond = (position < 0) | (position > axis.given - 1)
            beyond = beyond.reshape(-1, *[1] * (x.ndim - 1 - axis.index)).to(y.device)
            outside = beyond if outside is None else outside | beyond
    if outside is not None:
        y = torch.where(outside, extrapolation_value, y)
    return y.to(x.dtype)


def resize_10(x: Tensor, scales: Tensor, *, mode: str = "nearest") -> Tensor:
    """Return `x` resized as opset 10 has it: like Upsample, and it can make smaller, too."""
    return resize(
        x,
        scales=scales,
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="simple",
    )


def upsample_7(x: Tensor, *, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    """Return `x` resized; until opset 8 the scales are an attribute."""
    return resize_10(x, torch.tensor(scales), mode=mode)


def upsample_1(
    x: Tensor, *, height_scale: float, width_scale: float, mode: str = "nearest"
) -> Tensor:
    """Return pictures resized; `mode` is `nearest` or `bilinear`."""
    scales = torch.tensor([1.0, 1.0, height_scale, width_scale])
    return resize_10(x, scales, mode="linear" if mode == "bilinear" else mode)


def _by_scales(x: Tensor, scales: Sequence[float], chosen: Sequence[int]) -> list[Axis]:
    pairs = list(zip(chosen, scales, strict=False))  # without scales nothing changes
    given = [x.shape[i] for i, _ in pairs]
    # In float32, where 10 times 0.7 is 7; of doubles, 10 times the float 0.7 is a bit less.
    wanted = (torch.tensor(given) * torch.tensor(scales)).floor().long().tolist() if pairs else []
    return [
        Axis(index=i, given=length, wanted=size, scale=scale)
        for (i, scale), length, size in zip(pairs, given, wanted, strict=True)
    ]


def _by_sizes(x: Tensor, sizes: Sequence[int], chosen: Sequence[int], policy: str) -> list[Axis]:
    pairs = list(zip(chosen, map(int, sizes), strict=True))
    ratios = [size / x.shape[i] for i, size in pairs]
    if policy == "stretch":
        return [
            Axis(index=i, given=x.shape[i], wanted=size, scale=ratio)
            for (i, size), ratio in zip(pairs, ratios, strict=True)
        ]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [
        Axis(index=i, given=x.shape[i], wanted=math.floor(x.shape[i] * scale + 0.5), scale=scale)
        for i, _ in pairs
    ]


def _with_region(axis: Axis, region: Sequence[float], chosen: list[int]) -> Axis:
    """Return the axis with its part of the region: all starts come first, then all ends."""
    if not region:
        return axis
    place = chosen.index(axis.index)
    start, end = region[place], region[place + len(chosen)]
    return Axis(**{**vars(axis), "start": start, "end": end})


def _positions(axis: Axis, transformation: str) -> Tensor:
    """Return where the output positions lie in the input.

    In float32 and in the order of ONNX Runtime: where a neighbour is picked, rounding decides.
    """
    x = torch.arange(axis.wanted, dtype=torch.float32)
    scale = torch.tensor(axis.scale, dtype=torch.float32)
    half = (x + 0.5) / scale - 0.5
    if transformation == "asymmetric":
        return x / scale
    if transformation == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if transformation == "align_corners":
        # Over the rounded length, as torch and ONNX Runtime; the ONNX reference does not round.
        return x * (axis.given - 1) / max(axis.wanted - 1, 1)
    if transformation == "pytorch_half_pixel":
        return half if axis.wanted > 1 else 0 * x
    if transformation == "half_pixel_symmetric":
        offset = axis.given / 2 * (1 - axis.wanted / (scale * axis.given))
        return offset + (x + 0.5) / scale - 0.5
    if transformation == "tf_crop_and_resize":
        last = axis.given - 1
        if axis.wanted == 1:
            return 0 * x + 0.5 * (axis.start + axis.end) * last
        return axis.start * last + x * (axis.end - axis.start) * last / (axis.wanted - 1)
    return half


# ONNX Runtime takes positions this close to the middle of two pixels to lie there (measured: it is
# not 3e-7 and not 1e-5).
_NEAR: Final = 1e-6
_ROUNDING: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_prefer_floor": lambda position: torch.ceil(position.double() - 0.5 - _NEAR),
    "round_prefer_ceil": lambda position: torch.floor(position.double() + 0.5 + _NEAR),
}


def _nearest(position: Tensor, axis: Axis, nearest_mode: str) -> Tensor:
    if nearest_mode == "simple":  # before opset 11, as ONNX Runtime does it
        nearest_mode = "ceil" if axis.scale < 1 else "floor"
    return _ROUNDING[nearest_mode](position).long()


def _kernel(
    mode: str, axis: Axis, a: float, antialias: bool
) -> tuple[Callable[[Tensor], Tensor], int]:
    """Return the weight of an input at a distance, and how many inputs on a side have one."""
    stretch = min(axis.scale, 1.0) if antialias else 1.0
    if mode == "linear":
        return (lambda d: (1 - (d * stretch).abs()).clamp(min=0)), math.ceil(1 / stretch)

    def cubic(distance: Tensor) -> Tensor:
        d = (distance * stretch).abs()
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))

    return cubic, math.ceil(2 / stretch)


def _matrix(
    position: Tensor,
    axis: Axis,
    kernel: Callable[[Tensor], Tensor],
    reach: int,
    exclude_outside: bool,
) -> Tensor:
    """Return W, one row per output. What lies outside counts as the border, or not at all."""
    taps = position.floor()[:, None] + torch.arange(1 - reach, reach + 1)
    weights = kernel(taps - position[:, None])
    if exclude_outside:
        weights = torch.where((taps < 0) | (taps > axis.given - 1), 0.0, weights)
    weights = weights / weights.sum(1, keepdim=True)
    index = taps.long().clamp(0, axis.given - 1)
    return torch.zeros(axis.wanted, axis.given).scatter_add(1, index, weights)


def _by_torch(x: Tensor, plan: Sequence[Axis], way: tuple[str, str, str, float]) -> Tensor | None:
    """Return what torch itself computes where that is the same, else None."""
    mode, transformation, nearest_mode, a = way
    spatial = x.ndim - 2
    exact = all(axis.index >= 2 and axis.scale == axis.wanted / axis.given for axis in plan)
    if not (plan and exact and 1 <= spatial <= 3 and x.is_floating_point()):
        return None
    size = list(x.shape[2:])
    for axis in plan:
        size[axis.index - 2] = axis.wanted
    options: dict[str, Any] = {}
    if mode == "nearest":
        whole = all(axis.wanted % axis.given == 0 for axis in plan)
        plain = transformation == "asymmetric" and nearest_mode in ("floor", "simple")
        # A whole number of times larger, half pixels never lie in the middle of two.
        rounded = transformation == "half_pixel" and nearest_mode.startswith("round")
        if not (whole and (plain or rounded)):
            return None
        name = "nearest"
    else:
        longer = transformation == "half_pixel" or min(size) > 1
        known = transformation in ("half_pixel", "pytorch_half_pixel", "align_corners")
        if not (known and longer) or (mode == "cubic" and (a != -0.75 or spatial != 2)):
            return None
        name = "bicubic" if mode == "cubic" else ("linear", "bilinear", "trilinear")[spatial - 1]
        options["align_corners"] = transformation == "align_corners"
    return functional.interpolate(x, size=size, mode=name, **options)


HANDLERS: Final = (
    Row("Resize", 11, call(resize)),
    Row("Resize", 10, call(resize_10)),
    Row("Upsample", 9, call(resize_10)),
    Row("Upsample", 7, call(upsample_7)),
    Row("Upsample", 1, call(upsample_1)),
)
