"""How a pruned model is taught, where it is compared with the dense one, and its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from onnx_relief.bridge.train.augment import Augmentation
from onnx_relief.bridge.train.batches import Step, make_step
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.batch import Rows
from onnx_relief.settings import DEFAULT_MEMORY


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How to train.

    Attributes:
        epochs: Walks through the calibration data.
        batch_size: Samples per step.
        lr: Highest learning rate of Adam, as a share of the root mean square of what is left of
            each tensor; it rises at first and then follows a cosine down to 0. None tries some.
        output_weight: What an output of the model counts; a block counts 1. With 4, digits with a
            tenth of the weights end with a tenth less error on other samples than with 1, and
            ResNet-20 with a fifth of them with a hundredth more.
        augment: What is done to the pictures of every epoch; None for nothing. The dense model
            sees the same.
        memory: Bytes that training may keep, about. Half of it is for the gradients of a step,
            which goes through its samples in as many portions as that takes; where the model fixes
            the batch, steps stay whole.
        seed: Decides the order of samples.
    """

    epochs: int
    batch_size: int = 32
    lr: float | None = None
    output_weight: float = 4.0
    augment: Augmentation | None = None
    memory: int = DEFAULT_MEMORY
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """A tensor at which the pruned model is compared with the dense one.

    Attributes:
        axis: Axis of which only some places are left, where that is so.
        places: Which of the dense model's places those are.
        weight: What the point counts.
        is_output: Whether it is an output of the model itself.
    """

    axis: int = 0
    places: tuple[int, ...] | None = None
    weight: float = 1.0
    is_output: bool = False

    def of(self, dense: Tensor) -> Tensor:
        """Return of the dense model's values those that the pruned model has."""
        if self.places is None:
            return dense
        return dense.index_select(self.axis, torch.tensor(self.places))


Points = Mapping[str, Point]


def laid_out(step: Step) -> Step:
    """Return a step whose pictures keep the channels of a pixel together.

    Depthwise convolutions of torch are twice as quick on these, and no other is slower.
    """
    feed = {
        name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in step.feed.items()
    }
    return replace(step, feed=feed)


def portions(rows: Rows | None, batch: Batch, most: int) -> list[tuple[Rows | None, Batch]]:
    """Return a batch, and which rows it has, in portions of at most so many samples.

    It stays as it is where it is no list of samples.
    """
    arrays = batch.feed.values()
    if batch.count <= most or any(a.ndim == 0 or len(a) != batch.count for a in arrays):
        return [(rows, batch)]
    number = -(-batch.count // most)
    ends = [batch.count * place // number for place in range(number + 1)]
    return [
        (None if rows is None else rows[start:end], part_of(batch, start, end))
        for start, end in pairwise(ends)
    ]


def part_of(batch: Batch, start: int, end: int) -> Batch:
    """Return some samples of a batch, without labels."""
    feed = {name: array[start:end] for name, array in batch.feed.items()}
    return Batch(feed=feed, labels=None, count=end - start)


def plain(batch: Batch) -> Batch:
    """Return a batch without labels."""
    return replace(batch, labels=None)


def feed_of(batch: Batch, data: Dataset) -> Step:
    """Return a batch of `data` as tensors, without targets."""
    return laid_out(make_step(batch, None, whole_feeds=data.whole_feeds))
