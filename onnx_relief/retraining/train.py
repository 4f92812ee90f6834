"""Retraining on one screen: ONNX to torch, train with the zeros held, back into the same ONNX.

Whatever needs torch is imported where it is used, so that a missing extra is a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.bridge.extra import require_extra
from onnx_relief.contents import digest_of_data, digest_of_model
from onnx_relief.data import Dataset, first_sample
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import nonzero_elements
from onnx_relief.graph.walk import TensorHome
from onnx_relief.results import Progress
from onnx_relief.training import OnEpoch, Trained, TrainSettings

if TYPE_CHECKING:
    from onnx_relief.bridge.train import Teacher

Kept = Mapping[TensorHome, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Retrained:
    """What `retrain` made.

    Attributes:
        document: The model with the trained weights.
        trained: How training went.
        weights: Numbers that were trained, those held at zero left out.
        held: Numbers that were held at zero.
        differences: How far torch and ONNX Runtime lie apart on a real input, by output, before.
    """

    document: Document
    trained: Trained
    weights: int
    held: int
    differences: Mapping[str, float]


def retrain(
    document: Document,
    training: Dataset,
    settings: TrainSettings,
    *,
    folder: Path,
    validation: Dataset | None = None,
    kept: Kept | None = None,
    teacher: Document | None = None,
    freeze: tuple[str, ...] = (),
    provider: str = "auto",
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
) -> Retrained:
    """Return a copy of `document` whose surviving weights were trained.

    Args:
        document: The masked model; it is not changed.
        training: Samples to train on.
        settings: How to train.
        folder: Where checkpoints go; a run that was stopped goes on from them.
        validation: Samples to choose the best epoch by; None keeps the last.
        kept: True where a stored element stays, by home; None holds the zeros of the file.
        teacher: A model whose outputs to follow; without it labels are needed.
        freeze: Patterns of weights that stay as they are.
        provider: Execution provider of ONNX Runtime, for the checks and the teacher.
        progress: Told how far the work has come.
        on_epoch: Called after each epoch.

    Raises:
        SettingsError: The `[retrain]` extra is missing, or settings and data do not go together.
        UnsupportedError: The model has no faithful torch module.
        DataError: A label has no class, and the like.
    """
    require_extra()
    from onnx_relief.bridge.back import write_back
    from onnx_relief.bridge.check import check
    from onnx_relief.bridge.convert import convert, masks_for
    from onnx_relief.bridge.train import train

    module = convert(document, freeze=freeze)
    sample = first_sample(training).feed
    differences = check(module, document, sample, provider=provider)
    module.hold(
        masks_for(module, nonzero_elements(find_layers(document)) if kept is None else kept)
    )
    check(module, write_back(module, document), sample, provider=provider)
    trained = train(
        module,
        training,
        settings,
        validation=validation,
        teacher=None if teacher is None else _teacher(teacher, settings, sample, provider),
        folder=folder,
        progress=progress,
        on_epoch=on_epoch,
        contents=_contents(training, validation, teacher, freeze),
    )
    retrained = write_back(module, document)
    check(module, retrained, sample, provider=provider)
    held = sum(int((~mask).sum()) for mask in module.masks.values())
    return Retrained(
        document=retrained,
        trained=trained,
        weights=sum(parameter.numel() for parameter in module.parameters()) - held,
        held=held,
        differences=differences,
    )


def _teacher(
    teacher: Document, settings: TrainSettings, sample: Mapping[str, Any], provider: str
) -> Teacher:
    """Return who is followed, in the runtime that was asked for."""
    from onnx_relief.bridge.train import module_teacher, open_teacher

    if settings.teacher_runtime == "torch":
        return module_teacher(teacher, sample, settings, provider=provider)
    return open_teacher(teacher, provider=provider)


def _contents(
    training: Dataset,
    validation: Dataset | None,
    teacher: Document | None,
    freeze: tuple[str, ...],
) -> dict[str, str]:
    """Return what a checkpoint has to agree with besides the model and the settings."""
    none = "none"
    return {
        "set of training samples": digest_of_data(training),
        "set of validation samples": none if validation is None else digest_of_data(validation),
        "kind of teacher": none if teacher is None else digest_of_model(teacher),
        "--freeze": ", ".join(sorted(set(freeze))) or none,
    }
