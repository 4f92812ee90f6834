"""Mean squares of gradients by every weight, one sample at a time or a few.

The gradient of a sum over samples, each with a random sign, has as the mean of its square the sum
of the samples' squares: what two samples have in common cancels. So a batch costs one pass back and
gives the same in expectation as its samples one by one. Where r is a direction of random signs, it
is such a sign already.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnx_relief.bridge.module import OnnxModule
from onnx_relief.bridge.train.batches import Step, make_step
from onnx_relief.bridge.train.losses import class_form, cross_entropy, flat_tail, wide
from onnx_relief.data import Batch, Dataset
from onnx_relief.errors import DataError, UnsupportedError
from onnx_relief.graph.walk import TensorHome

_TINY = 1e-12


def squared_gradients(
    module: OnnxModule,
    data: Dataset,
    *,
    by_labels: bool,
    batch_size: int,
    seed: int,
    tick: Callable[[int], None],
) -> dict[TensorHome, NDArray[np.float64]]:
    """Return the mean over samples of the squared gradient, in the shape that is stored, by home.

    Args:
        module: The model; it is not changed.
        data: Samples, labelled where labels are wanted.
        by_labels: Take the gradient of the cross entropy; otherwise of the outputs, each divided by
            its standard deviation, along random signs.
        batch_size: Samples per pass; 1 is exact.
        seed: Of the signs; which sample gets which depends on nothing else but the sample.
        tick: Called with the number of samples after every pass.

    Raises:
        UnsupportedError: The weights move no output of floats.
        DataError: There are no labels, or no output has scores for them.
    """
    module.eval()
    _check_followed(module, data, batch_size)
    parameters = {n: p for n, p in module.named_parameters() if n in module.homes}
    sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    loss = _label_loss if by_labels else _output_loss
    scales = None if by_labels else _scales(module, data, batch_size)
    count = 0
    for batch in data.batches(batch_size):
        step = make_step(batch, None, whole_feeds=data.whole_feeds)
        outputs = _outputs(module, step)
        seeds = _seeds(batch, seed, whole=data.whole_feeds)
        value = loss(outputs, step, seeds, scales or {})
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                sums[name] += gradient.double().square()
        count += step.count
        tick(step.count)
    return {module.homes[name]: (total / count).numpy() for name, total in sums.items()}


def _check_followed(module: OnnxModule, data: Dataset, batch_size: int) -> None:
    """Refuse a model none of whose outputs has a gradient by its weights."""
    batch = next(data.batches(batch_size))
    outputs = _outputs(module, make_step(batch, None, whole_feeds=data.whole_feeds))
    if not any(values.requires_grad for values in outputs.values()):
        raise UnsupportedError(
            "the model has no output of floats that its weights move, whose gradient could be "
            "taken; use another --criterion"
        )


def _outputs(module: OnnxModule, step: Step) -> dict[str, Tensor]:
    """Return what a pass gives in floats, without the rows that only fill up a batch."""
    found = module.run(step.feed)
    floats = {
        name: values
        for name, values in found.items()
        if isinstance(values, Tensor) and values.is_floating_point()
    }
    return step.real(floats)


def _output_loss(
    outputs: Mapping[str, Tensor], step: Step, seeds: list[int], scales: Mapping[str, float]
) -> Tensor:
    """Return <r, y> summed over samples, whose r are random signs."""
    draws = [np.random.default_rng(seed) for seed in seeds]
    parts = []
    for name, values in outputs.items():
        by_sample = len(seeds) > 1 or (values.ndim > 0 and len(values) == step.count == 1)
        shape = tuple(values.shape[1:]) if by_sample else tuple(values.shape)
        signs = np.stack([draw.choice((-1.0, 1.0), size=shape) for draw in draws])
        direction = torch.from_numpy(signs).to(values.dtype).reshape(values.shape)
        parts.append((values * direction).sum() / scales[name])
    return torch.stack(parts).sum()


def _label_loss(
    outputs: Mapping[str, Tensor], step: Step, seeds: list[int], _scales: Mapping[str, float]
) -> Tensor:
    """Return the cross entropy summed over samples with random signs."""
    if step.labels is None:
        raise DataError("the gradient of the loss needs labels; give labelled data, or none of it")
    suiting = [flat_tail(values) for values in outputs.values() if len(values) == step.count]
    scores = next((s for s in suiting if s.ndim == 2 and s.shape[1] > 1), None)
    if scores is None or int(step.labels.max()) >= scores.shape[1]:
        raise DataError(
            "no output has a score for every class of the labels; leave them out, and the outputs "
            "themselves are looked at"
        )
    form = class_form(scores, 1)
    losses = [
        cross_entropy(wide(scores[k : k + 1]), step.labels[k : k + 1], form)
        for k in range(step.count)
    ]
    signs = [float(np.random.default_rng(seed).choice((-1.0, 1.0))) for seed in seeds]
    return torch.stack([s * one for s, one in zip(signs, losses, strict=True)]).sum()


def _scales(module: OnnxModule, data: Dataset, batch_size: int) -> dict[str, float]:
    """Return the standard deviation of every output over some samples."""
    values: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for batch in data.take(64).batches(batch_size):
            step = make_step(batch, None, whole_feeds=data.whole_feeds)
            for name, output in _outputs(module, step).items():
                values.setdefault(name, []).append(output.double().reshape(-1))
    spreads = {name: float(torch.cat(parts).std()) for name, parts in values.items()}
    return {name: spread if spread > _TINY else 1.0 for name, spread in spreads.items()}


def _seeds(batch: Batch, seed: int, *, whole: bool) -> list[int]:
    """Return a number for each sample that follows from what is in it."""
    if whole or len({len(a) if a.ndim else 0 for a in batch.feed.values()}) != 1:
        return [_digest([np.asarray(a) for a in batch.feed.values()], seed)]
    return [_digest([a[k] for a in batch.feed.values()], seed) for k in range(batch.count)]


def _digest(arrays: list[NDArray[np.generic]], seed: int) -> int:
    found = seed
    for array in arrays:
        found = zlib.crc32(np.ascontiguousarray(array).tobytes(), found & 0xFFFFFFFF)
    return found
