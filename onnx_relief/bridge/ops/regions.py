"""Regions of pictures: which to keep, and what lies in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from onnx_relief.bridge.ops.registry import Row, call


def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Tensor | None = None,
    iou_threshold: Tensor | None = None,
    score_threshold: Tensor | None = None,
    *,
    center_point_box: int = 0,
) -> Tensor:
    """Return rows (picture, class, box) of the best boxes that do not overlap a better one.

    Args:
        boxes: (pictures, boxes, 4): two corners y, x; with `center_point_box` x, y, width, height.
        scores: (pictures, classes, boxes).
        max_output_boxes_per_class: How many to keep at most; none by default.
        iou_threshold: Boxes overlap when intersection over union is larger; 0 by default.
        score_threshold: Only better boxes count; all by default.
        center_point_box: How boxes are written.
    """
    most = 0 if max_output_boxes_per_class is None else int(max_output_boxes_per_class.item())
    overlap = 0.0 if iou_threshold is None else float(iou_threshold.item())
    least = -math.inf if score_threshold is None else float(score_threshold.item())
    boxes, scores = boxes.detach(), scores.detach()
    if center_point_box:
        half = boxes[..., 2:] / 2
        low, high = boxes[..., :2] - half, boxes[..., :2] + half
    else:
        low = torch.minimum(boxes[..., :2], boxes[..., 2:])
        high = torch.maximum(boxes[..., :2], boxes[..., 2:])
    rows = [
        [picture, kind, box]
        for picture in range(scores.shape[0])
        for kind in range(scores.shape[1])
        for box in _best(low[picture], high[picture], scores[picture, kind], most, overlap, least)
    ]
    return torch.tensor(rows, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _best(
    low: Tensor, high: Tensor, scores: Tensor, most: int, overlap: float, least: float
) -> list[int]:
    """Return the boxes of one class that are kept, the best first."""
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] > least]
    area = (high - low).prod(-1)
    kept: list[int] = []
    while len(kept) < most and len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        sides = torch.minimum(high[best], high[order]) - torch.maximum(low[best], low[order])
        shared = sides.clamp(min=0).prod(-1)
        order = order[shared <= overlap * (area[best] + area[order] - shared)]
    return kept


def roi_align(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Return regions (regions, channels, height, width) of pictures (Mask R-CNN, arXiv 1703.06870).

    Args:
        x: (pictures, channels, height, width).
        rois: (regions, 4): x and y of one corner, then of the opposite.
        batch_indices: (regions,), of which picture.
        coordinate_transformation_mode: `half_pixel` moves the corners by half a pixel.
        mode: What is taken of the samples in a bin, `avg` or `max`.
        output_height: Bins of a region from top to bottom.
        output_width: Bins from left to right.
        sampling_ratio: Samples of a bin each way; 0 for as many as pixels.
        spatial_scale: Pixels of `x` per unit of `rois`.
    """
    aligned = coordinate_transformation_mode == "half_pixel"
    corners = rois * spatial_scale - (0.5 if aligned else 0.0)
    start, extent = corners[:, :2], corners[:, 2:] - corners[:, :2]
    extent = extent if aligned else extent.clamp(min=1)
    shape = (output_width, output_height)
    bins = extent / extent.new_tensor(shape)
    if sampling_ratio > 0:
        counts = [(sampling_ratio, sampling_ratio)] * len(rois)
    else:
        counts = [(max(int(w), 0), max(int(h), 0)) for w, h in bins.detach().ceil().tolist()]
    y = x.new_zeros(len(rois), x.shape[1], output_height, output_width)
    for count in sorted(set(counts)):
        if 0 in count:
            continue
        some = torch.tensor([c == count for c in counts], device=x.device).nonzero().flatten()
        where = [
            start[some, i, None, None]
            + bins[some, i, None, None]
            * (_steps(shape[i], x)[:, None] + (_steps(count[i], x) + 0.5) / count[i])
            for i in (0, 1)
        ]  # x and y of samples: (regions, bins, samples of a bin)
        found = _sample(x, batch_indices[some], where[1], where[0], mode)
        y = y.index_put((some,), found.to(y.dtype))
    return y


def roi_align_10(x: Tensor, rois: Tensor, batch_indices: Tensor, **options: object) -> Tensor:
    """Return regions as until opset 15: corners are not moved."""
    mode = "output_half_pixel"
    return roi_align(x, rois, batch_indices, coordinate_transformation_mode=mode, **options)  # type: ignore[arg-type]


def max_roi_pool(
    x: Tensor, rois: Tensor, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    """Return the largest pixel in every bin of regions (Fast R-CNN, arXiv 1504.08083).

    Args:
        x: (pictures, channels, height, width).
        rois: (regions, 5): which picture, x and y of one corner, and of the opposite.
        pooled_shape: Bins from top to bottom and from left to right.
        spatial_scale: Pixels of `x` per unit of `rois`.
    """
    regions = []
    corners = (rois[:, 1:] * spatial_scale + 0.5).floor().long()
    for picture, (left, top, right, bottom) in zip(
        rois[:, 0].tolist(), corners.tolist(), strict=True
    ):
        rows = _bins(top, bottom, pooled_shape[0], x.shape[2])
        columns = _bins(left, right, pooled_shape[1], x.shape[3])
        bins = [x[int(picture), :, row, column] for row in rows for column in columns]
        largest = [b.amax((1, 2)) if b.numel() else x.new_zeros(x.shape[1]) for b in bins]
        regions.append(torch.stack(largest, 1).unflatten(1, tuple(pooled_shape)))
    return torch.stack(regions)


def _bins(start: int, end: int, count: int, length: int) -> list[slice]:
    """Return the pixels from `start` to `end`, both included, in overlapping bins."""
    size = max(end - start + 1, 1) / count
    bounds = [
        (math.floor(i * size) + start, math.ceil((i + 1) * size) + start) for i in range(count)
    ]
    return [slice(min(max(a, 0), length), min(max(b, 0), length)) for a, b in bounds]


def _steps(count: int, x: Tensor) -> Tensor:
    return torch.arange(count, dtype=x.dtype, device=x.device)


def _sample(x: Tensor, picture: Tensor, y_at: Tensor, x_at: Tensor, mode: str) -> Tensor:
    """Return the mean or the largest of the samples of every bin.

    As ONNX has it, the largest is that of the four weighted pixels, not of their sum.
    """
    rows, columns = _corners(y_at, x.shape[2]), _corners(x_at, x.shape[3])
    at = picture.to(x.device, torch.int64)[:, None, None]
    parts = []
    for row, vertical in rows:
        for column, horizontal in columns:
            pixels = x.movedim(1, -1)[at, row.flatten(1)[:, :, None], column.flatten(1)[:, None]]
            weight = vertical.flatten(1)[:, :, None] * horizontal.flatten(1)[:, None]
            parts.append(pixels * weight[..., None])
    bins = (len(at), y_at.shape[1], y_at.shape[2], x_at.shape[1], x_at.shape[2], x.shape[1])
    if mode == "max":
        found = torch.stack(parts).amax(0).reshape(bins).amax((2, 4))
    else:
        found = torch.stack(parts).sum(0).reshape(bins).mean((2, 4))
    return found.movedim(-1, 1)


def _corners(at: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """Return the two pixels around positions, and their weights; both are 0 far outside."""
    inside = ((at >= -1) & (at <= length)).to(at.dtype)
    clamped = at.clamp(0, length - 1)
    low = clamped.detach().floor()
    share = clamped - low
    high = (low + 1).clamp(max=length - 1)
    return [(low.long(), (1 - share) * inside), (high.long(), share * inside)]


HANDLERS: Final = (
    Row("NonMaxSuppression", 10, call(non_max_suppression)),
    Row("MaxRoiPool", 1, call(max_roi_pool)),
    Row("RoiAlign", 16, call(roi_align)),
    Row("RoiAlign", 10, call(roi_align_10)),
)
