"""Mean squares of gradients by every weight, one sample at a time or a few.

The gradient of a sum over samples, each with a random sign, has as the mean of its square the sum
of the samples' squares: what two samples have in common cancels. So a batch costs one pass back and
gives the same in expectation as its samples one by one. Where r is a direction of random signs, it
is such a sign already.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnx_relief.bridge.module import OnnxModule
from onnx_relief.bridge.train.batches import Step, make_step
from onnx_relief.bridge.train.losses import class_form, cross_entropy, flat_tail, wide
from onnx_relief.data import Batch, Dataset
from onnx_relief.data.labels import classes_of, output_of_labels
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
        batch_size: Samples per pass; 1 is exact. Where an output that is looked at has no row for
            each sample, they go one by one.
        seed: Of the signs; which sample gets which depends on nothing else but the sample, and on
            how many before it are the same.
        tick: Called with the number of samples after every pass.

    Raises:
        UnsupportedError: The weights move no output of floats.
        DataError: There are no labels, or no output has scores for them.
    """
    module.eval()
    if not _has_rows(module, data, batch_size) and not by_labels:
        batch_size = 1
    parameters = {n: p for n, p in module.named_parameters() if n in module.homes}
    sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    loss = partial(_label_loss, classes_of(data)) if by_labels else _output_loss
    scales = None if by_labels else _scales(module, data, batch_size)
    count = 0
    known: Counter[int] = Counter()
    for batch in data.batches(batch_size):
        step = make_step(batch, None, whole_feeds=data.whole_feeds)
        outputs = _outputs(module, step)
        draws = _draws(_seeds(batch, seed, whole=data.whole_feeds), known)
        value = loss(outputs, step, draws, scales or {})
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                sums[name] += gradient.double().square()
        count += step.count
        tick(step.count)
    return {module.homes[name]: (total / count).numpy() for name, total in sums.items()}


def _has_rows(module: OnnxModule, data: Dataset, batch_size: int) -> bool:
    """Whether every output that can be followed has a row for each sample of a pass."""
    batch = next(data.batches(batch_size))
    outputs = _outputs(module, make_step(batch, None, whole_feeds=data.whole_feeds))
    followed = [values for values in outputs.values() if values.requires_grad]
    if not followed:
        raise UnsupportedError(
            "the model has no output of floats that its weights move, whose gradient could be "
            "taken; use another --criterion"
        )
    return all(values.shape[:1] == (batch.count,) for values in followed)


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
    outputs: Mapping[str, Tensor],
    _step: Step,
    draws: Sequence[np.random.Generator],
    scales: Mapping[str, float],
) -> Tensor:
    """Return <r, y> summed over samples, whose r are random signs."""
    parts = [
        (values * _signs(draws, values.shape).to(values.dtype)).sum() / scales[name]
        for name, values in outputs.items()
    ]
    return torch.stack(parts).sum()


def _label_loss(
    classes: int | None,
    outputs: Mapping[str, Tensor],
    step: Step,
    draws: Sequence[np.random.Generator],
    _scales: Mapping[str, float],
) -> Tensor:
    """Return the cross entropy summed over samples with random signs."""
    if step.labels is None:
        raise DataError("the gradient of the loss needs labels; give labelled data, or none of it")
    count = (step.count,)
    flat = {n: flat_tail(values) for n, values in outputs.items() if values.shape[:1] == count}
    suiting = {n: values for n, values in flat.items() if values.ndim == 2 and values.shape[1] > 1}
    told = {n: values.shape[1] for n, values in suiting.items()}
    scores = suiting[output_of_labels(told, classes)] if suiting else None
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
    signs = _signs(draws, count).tolist()
    return torch.stack([s * one for s, one in zip(signs, losses, strict=True)]).sum()


def _signs(draws: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Tensor:
    """Return random signs: of every row from its sample, where there is one for each.

    Args:
        draws: One for each sample; one for all where it is not known which rows are whose.
        shape: Of the signs.
    """
    if shape[:1] == (len(draws),):
        rows = [draw.choice((-1.0, 1.0), size=shape[1:]) for draw in draws]
        return torch.from_numpy(np.stack(rows))
    return torch.as_tensor(draws[0].choice((-1.0, 1.0), size=shape))


def _scales(module: OnnxModule, data: Dataset, batch_size: int) -> dict[str, float]:
    """Return the standard deviation of every output over some samples."""
    values: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for batch in data.take(64).batches(batch_size):
            step = make_step(batch, None, whole_feeds=data.whole_feeds)
            for name, output in _outputs(module, step).items():
                values.setdefault(name, []).append(output.double().reshape(-1))
    return {name: _spread(torch.cat(parts)) for name, parts in values.items()}


def _spread(values: Tensor) -> float:
    """Return the standard deviation of numbers, 1 where they have none."""
    found = float(values.std()) if len(values) > 1 else 0.0
    return found if found > _TINY else 1.0


def _draws(seeds: Sequence[int], known: Counter[int]) -> list[np.random.Generator]:
    """Return what draws the signs of each sample; `known` counts those that were there before.

    Samples that are the same must not have the same signs, or their gradients would add up.
    """
    draws = []
    for seed in seeds:
        draws.append(np.random.default_rng((seed, known[seed])))
        known[seed] += 1
    return draws


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
