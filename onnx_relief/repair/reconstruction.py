"""Reconstruction on one screen: train a pruned model towards the dense one's blocks, no labels.

Whatever needs torch is imported where it is used, so that a missing extra is a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.bridge.extra import require_extra
from onnx_relief.comparing.comparable import judged_tensors
from onnx_relief.data import Dataset, first_sample
from onnx_relief.data.held_out import Split
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.cost import layer_costs
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.mask import nonzero_elements
from onnx_relief.graph.taps import block_outputs, with_outputs
from onnx_relief.measuring.positions import positions_on_data
from onnx_relief.progress import ticker
from onnx_relief.repair.stays import Places, Stays
from onnx_relief.results import Progress
from onnx_relief.runtime import open_session
from onnx_relief.settings import DEFAULT_MEMORY, Reconstruction
from onnx_relief.tensors import is_float

if TYPE_CHECKING:
    from onnx_relief.bridge.lessons import Lesson, Point
    from onnx_relief.bridge.reconstruct import Outcome
    from onnx_relief.bridge.train.augment import Augmentation

Array = NDArray[Any]

_MOST = 16
"""So many blocks are compared; of neighbours the one with the smallest output."""
_WORK = 1e13
"""Multiply-accumulates that training may take by default: about ten minutes of one core."""
_EPOCHS = (8, 200)
_STEPS, _SAMPLES = 25, (8, 32)
"""Steps of an epoch, and samples of a step: many small steps learn more from few samples."""
_BY_HEART, _SMALL = 1.5, 0.001
"""From this ratio of mean square errors on, and this size, it is said that samples are too few."""
_PER_SAMPLE = 4
"""Forward, the gradients of activations and of weights, and the dense model."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstructed:
    """What training made.

    Attributes:
        document: The model with other weights; the one before where that is no worse.
        notes: How it went, in sentences.
    """

    document: Document
    notes: tuple[str, ...]


def reconstruct(
    pruned: Document,
    dense: Document,
    stays: Stays,
    samples: Split,
    *,
    provider: str = "auto",
    lesson: Lesson | None = None,
    training: Reconstruction | None = None,
    batch_size: int | None = None,
    memory: int = DEFAULT_MEMORY,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reconstructed:
    """Train a copy of `pruned`, its surviving weights, towards the dense model.

    What is zero stays zero, and nothing but weights, biases and normalisation changes. The outputs
    on samples that are held out are no worse than before.

    Args:
        pruned: The masked or smaller model; it is not changed.
        dense: The model it was made from, with tensors of the same names.
        stays: What is left of the dense model's tensors.
        samples: What is trained on, and what epochs are judged by, which nothing that made
            `pruned` should have been fitted to; labels are not looked at.
        provider: Execution provider of ONNX Runtime, which runs the dense model.
        lesson: How to train, in full; None makes it of what follows.
        training: How often the data is walked through, and what is done to pictures.
        batch_size: Samples per step; by default an epoch has about `_STEPS` of them.
        memory: Bytes that a step may keep for its gradients, about.
        seed: Decides the order of samples.
        progress: Told of every step.

    Raises:
        SettingsError: The `[retrain]` extra is missing, or there are no pictures to mirror or crop.
        UnsupportedError: The model has no faithful torch module, or no output that is a float.
        DataError, ModelError: A model cannot be run on the data.
    """
    require_extra()
    from onnx_relief.bridge.back import write_back
    from onnx_relief.bridge.check import check
    from onnx_relief.bridge.convert import convert, masks_for
    from onnx_relief.bridge.lessons import Lesson
    from onnx_relief.bridge.reconstruct import step_count, train_to_match
    from onnx_relief.bridge.train import open_teacher

    survey = find_layers(pruned)
    feed = first_sample(samples.work).feed
    if lesson is None:
        training = training or Reconstruction()
        lesson = Lesson(
            epochs=training.epochs or default_epochs(survey, samples.work, provider),
            batch_size=batch_size or int(np.clip(samples.work.size // _STEPS, *_SAMPLES)),
            augment=_augmentation(samples.work, training, seed),
            memory=memory,
            seed=seed,
        )
    points, types = points_of_comparison(survey, dense, stays, feed, lesson, provider)
    watched = with_outputs(pruned, types)
    module = convert(watched)
    check(module, watched, feed, provider=provider)
    module.hold(masks_for(module, nonzero_elements(survey)))
    tick = ticker(progress, "reconstructing", step_count(samples, lesson))
    teacher = open_teacher(with_outputs(dense, types), provider=provider, outputs=tuple(points))
    outcome = train_to_match(module, teacher, points, samples, lesson, tick)
    notes = tuple(_told(outcome, lesson, samples, feed))
    if outcome.best_epoch == 0:
        return Reconstructed(document=pruned, notes=notes)
    return Reconstructed(document=write_back(module, pruned), notes=notes)


def _told(
    outcome: Outcome, lesson: Lesson, samples: Split, feed: Mapping[str, Array]
) -> Iterator[str]:
    """Yield how training went, and what would make it better."""
    from onnx_relief.bridge.train.augment import picture_layouts

    epochs = f"{lesson.epochs:,} epoch{'' if lesson.epochs == 1 else 's'}"
    if outcome.best_epoch == 0:
        yield f"{epochs} of training on {samples.work.size:,} samples made nothing better"
    else:
        best = f"number {outcome.best_epoch:,}"
        if outcome.best_epoch == lesson.epochs:
            best = "the last: --repair-epochs gives more"
        yield f"of {epochs} of training on {samples.work.size:,} samples the best is {best}"
    known = outcome.trained
    if samples.same or outcome.after < _SMALL or not 0 < _BY_HEART * known < outcome.after:
        return
    pictures = lesson.augment is None and picture_layouts(samples.work, feed)
    also = ", and with photographs --flip and --crop-scale 0.3" if pictures else ""
    yield (
        f"the outputs' error on held-out samples is {outcome.after / known:.1f} times that on "
        f"those that were trained on: more samples would bring it down{also}"
    )


def check_training(data: Dataset, training: Reconstruction) -> None:
    """Refuse what `reconstruct` would refuse after the long work before it.

    Raises:
        SettingsError: The `[retrain]` extra is missing, or there are no pictures to mirror or crop.
        DataError: A sample cannot be read.
    """
    require_extra()
    _augmentation(data, training, 0)


def _augmentation(data: Dataset, training: Reconstruction, seed: int) -> Augmentation | None:
    from onnx_relief.bridge.train.augment import augmentation

    return augmentation(
        data,
        first_sample(data).feed,
        flip=training.flip,
        crop_padding=training.crop_padding,
        crop_scale=training.crop_scale,
        color_jitter=training.color_jitter,
        cutmix=training.cutmix,
        seed=seed,
    )


def default_epochs(survey: Survey, data: Dataset, provider: str) -> int:
    """Return how often the data is walked through: as often as `_WORK` has room for."""
    positions = positions_on_data(survey, data, provider).by_layer
    macs = sum(cost.macs or 0.0 for cost in layer_costs(survey, positions))
    fewest, most = _EPOCHS
    return int(np.clip(_WORK / max(1.0, _PER_SAMPLE * macs * data.size), fewest, most))


def points_of_comparison(
    survey: Survey,
    dense: Document,
    stays: Stays,
    feed: Mapping[str, Array],
    lesson: Lesson,
    provider: str,
) -> tuple[dict[str, Point], dict[str, int]]:
    """Return where two models are compared, and the element types of these tensors, by name.

    A block whose channels cannot be told apart in the dense model is left out.

    Raises:
        UnsupportedError: No output holds floats.
        ModelError: A model cannot be run.
    """
    from onnx_relief.bridge.lessons import Point

    outputs = judged_tensors(survey.document)
    taps = [name for name in block_outputs(survey) if name not in outputs]
    here = _values(survey.document, [*taps, *outputs], feed, provider)
    there = _values(dense, [*here], feed, provider)
    found: dict[str, Point] = {}
    for name in here:
        if name not in there or here[name].dtype != there[name].dtype:
            continue
        is_output = name in outputs
        point = Point(weight=lesson.output_weight if is_output else 1.0, is_output=is_output)
        if here[name].shape == there[name].shape:
            found[name] = point
        elif (cut := _cut(here[name].shape, there[name].shape, stays.get(name, {}))) is not None:
            found[name] = Point(axis=cut[0], places=cut[1])
    if not any(point.is_output for point in found.values()):
        raise UnsupportedError(
            f"{survey.document.name} has no output of floats to follow; use another --repair"
        )
    chosen = _thinned([name for name in found if not found[name].is_output], here)
    points = {name: found[name] for name in (*chosen, *outputs) if name in found}
    return points, {name: _element_type(here[name]) for name in points}


def _values(
    document: Document, names: list[str], feed: Mapping[str, Array], provider: str
) -> dict[str, Array]:
    """Return the tensors that hold floats, by name, of those that the model has."""
    graph = document.proto.graph
    made = {name for node in graph.node for name in node.output}
    wanted = [name for name in names if name in made]
    proto = onnx.ModelProto()
    proto.CopyFrom(document.proto)
    given = {value.name for value in graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted if n not in given)
    session = open_session(proto, provider=provider, folder=document.folder)
    found = session.run(feed, wanted)
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and is_float(value.dtype)
    }


def _cut(
    here: tuple[int, ...], there: tuple[int, ...], left: Mapping[int, Places]
) -> tuple[int, tuple[int, ...]] | None:
    """Return the axis that lost channels and the places of those that stay, if they are known."""
    if len(here) != len(there):
        return None
    axes = [axis for axis, (one, other) in enumerate(zip(here, there, strict=True)) if one != other]
    if len(axes) != 1 or axes[0] - len(here) not in left:
        return None
    axis, places = axes[0], left[axes[0] - len(here)]
    if len(places) != here[axis] or places.max(initial=-1) >= there[axis]:
        return None
    return axis, tuple(places.tolist())


def _thinned(names: list[str], values: Mapping[str, Array]) -> list[str]:
    """Return at most `_MOST` names: the smallest tensor of each of as many neighbourhoods."""
    if len(names) <= _MOST:
        return names
    parts = np.array_split(np.arange(len(names)), _MOST)
    return [min((names[k] for k in part), key=lambda name: values[name].size) for part in parts]


def _element_type(value: Array) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
