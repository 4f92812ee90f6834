"""What `retrain` and `iterate` need opened and tried before any long work: model, data, teacher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnx_relief.comparing.evaluation import try_out
from onnx_relief.comparing.judge import Judge
from onnx_relief.data import Dataset, Preprocess, open_data
from onnx_relief.data.shuffle import split_validation
from onnx_relief.data.unpack import seekable
from onnx_relief.errors import DataError, SettingsError
from onnx_relief.graph.document import Document, input_specs, load, output_specs
from onnx_relief.graph.origin import find_dense, noted_name
from onnx_relief.job import NO_PREPROCESSING
from onnx_relief.training import TrainSettings

JUDGING_BATCH = 64
"""Samples per run where a model is only judged."""


@dataclass(frozen=True, kw_only=True)
class TrainingSources:
    """What the user calls the data.

    Attributes:
        data: Training samples.
        eval_data: What models are judged on; None for the part that training splits off.
        samples: At most so many training samples, evenly spread; None for all.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.
    """

    data: object
    eval_data: object | None = None
    samples: int | None = None
    preprocess: Preprocess = NO_PREPROCESSING
    strict: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingJob:
    """Everything that training needs, opened and tried.

    Attributes:
        document: The model.
        training: Samples to train on.
        validation: Samples to choose the best epoch by, split off the training data; or None.
        judge: How models are judged.
        teacher: The model whose outputs are followed, or None.
        settings: How to train.
        freeze: Patterns of weights that stay as they are.
        provider: Execution provider of ONNX Runtime.
    """

    document: Document
    training: Dataset
    validation: Dataset | None
    judge: Judge
    teacher: Document | None
    settings: TrainSettings
    freeze: tuple[str, ...] = ()
    provider: str = "auto"


def open_training(
    document: Document,
    sources: TrainingSources,
    settings: TrainSettings,
    *,
    teacher: Document | None = None,
    dense: Document | None = None,
    distil: bool = False,
    metric: str | None = None,
    output: str | None = None,
    freeze: Sequence[str] = (),
    provider: str = "auto",
) -> TrainingJob:
    """Return a job after trying the model on a first sample.

    Args:
        document: The model.
        sources: The data.
        settings: How to train.
        teacher: The model to learn from; by default, where there are no labels or `distil` is set,
            the dense one.
        dense: The dense model; by default the one that `prune` noted.
        distil: Whether the teacher is wanted beside labels.
        metric: How models are judged.
        output: The output that the metric looks at.
        freeze: Patterns of weights that stay as they are.
        provider: Execution provider of ONNX Runtime.

    Raises:
        SettingsError, DataError, ModelError: Something is missing or does not go together.
    """
    inputs = input_specs(document.proto)
    data = open_data(
        sources.data, inputs, preprocess=sources.preprocess, strict=sources.strict
    ).take(sources.samples)
    dense = dense or noted_dense(document) or teacher
    learned_from = teacher or dense
    if teacher is None and data.has_labels and not distil:
        learned_from = None
    elif learned_from is None:
        raise _no_teacher(document, data)
    else:
        _check_teacher(learned_from, document, settings.distill_outputs)
    training, validation = split_validation(seekable(data), settings.validation, settings.seed)
    judged = validation or training
    if sources.eval_data is not None:
        judged = open_data(
            sources.eval_data, inputs, preprocess=sources.preprocess, strict=sources.strict
        )
    judge = Judge(
        data=judged,
        dense=dense,
        metric=metric,
        output=output,
        batch_size=JUDGING_BATCH,
        provider=provider,
    )
    try_out(document, judged, metric=metric, output=output, provider=provider)
    return TrainingJob(
        document=document,
        training=training,
        validation=validation,
        judge=judge,
        teacher=learned_from,
        settings=settings,
        freeze=tuple(freeze),
        provider=provider,
    )


def noted_dense(document: Document) -> Document | None:
    """Return the dense model that `document` was pruned from, if it can be found."""
    path = find_dense(document)
    return None if path is None else load(path)


def _no_teacher(document: Document, data: Dataset) -> SettingsError | DataError:
    noted = noted_name(document)
    if noted is not None:
        return SettingsError(
            f"{document.name} was pruned from {noted}, which is neither beside it nor in this "
            "folder; give its path with --teacher"
        )
    if data.has_labels:
        return SettingsError("--distill needs somebody to learn from; give --teacher DENSE.onnx")
    return DataError(
        f"{data.name} has no labels, so there is nothing to train on; add 'labels' or class "
        "folders, or give the model to learn from with --teacher DENSE.onnx"
    )


def _check_teacher(teacher: Document, document: Document, followed: Sequence[str]) -> None:
    """Refuse another model's teacher before anything runs; `followed` are outputs, empty for all.

    Raises:
        SettingsError: With what differs.
    """
    for verb, specs in (("takes", input_specs), ("gives", output_specs)):
        ours, theirs = ({spec.name: spec for spec in specs(m.proto)} for m in (document, teacher))
        if verb == "gives":  # it may give more, and other things beside what is followed
            ours = {name: ours[name] for name in ours if not followed or name in followed}
            theirs = {name: theirs[name] for name in theirs if name in ours}
        if ours.keys() != theirs.keys():
            raise SettingsError(
                f"the teacher {teacher.name} {verb} "
                f"{_listed(spec.name for spec in specs(teacher.proto))}, {document.name} "
                f"{_listed(ours)}; give another version of the same model"
            )
        for name, spec in ours.items():
            if not spec.may_be(theirs[name], with_type=verb == "takes"):
                raise SettingsError(
                    f"the teacher {teacher.name} {verb} {name!r} as {theirs[name].describe()}, "
                    f"{document.name} as {spec.describe()}; give another version of the same model"
                )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
