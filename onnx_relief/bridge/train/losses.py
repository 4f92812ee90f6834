"""Losses on outputs whose meaning the file does not tell: logits, probabilities, or their logs.

An ONNX classifier may end in Softmax, in LogSoftmax, or before either. Which of them, the numbers
of a first batch say. All losses are computed in float32 or wider, whatever the model's width.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional

from onnx_relief.errors import SettingsError

LabelLoss = Callable[[Tensor, Tensor, "Form"], Tensor]
_NEARLY = 1e-3
_OF_SCORES = 100.0
"""Scores of classes have less variance (digits: 40). Of more, softmax sees only the largest."""
_BESIDE = 0.3
"""What the squared error counts beside classes. With 1 it may hold up short trainings of
classifiers; with this, they end as with classes alone, and values are followed nearly as well."""


class Form(Enum):
    """What the numbers of an output are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log-probabilities"
    VALUES = "values"


def wide(values: Tensor) -> Tensor:
    """Return values in float32 or wider."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def flat_tail(values: Tensor) -> Tensor:
    """Drop axes of length 1 at the end: classifiers may give (samples, classes, 1, 1)."""
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    return values


def class_form(values: Tensor, axis: int) -> Form:
    """Return what scores of classes along `axis` are."""
    values = wide(values.detach())
    if values.min() >= 0 and ((values.sum(axis) - 1).abs() < _NEARLY).all():
        return Form.PROBABILITIES
    if values.max() <= _NEARLY and (values.logsumexp(axis).abs() < _NEARLY).all():
        return Form.LOG_PROBABILITIES
    return Form.LOGITS


def binary_form(values: Tensor) -> Form:
    """Return what single scores are: in [0, 1] they are probabilities."""
    values = values.detach()
    inside = bool(values.min() >= 0) and bool(values.max() <= 1)
    return Form.PROBABILITIES if inside else Form.LOGITS


def log_of(probabilities: Tensor) -> Tensor:
    """Return the logarithm, finite at 0 and with a gradient that is finite, too."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def cross_entropy(scores: Tensor, labels: Tensor, form: Form) -> Tensor:
    """Return the mean over samples of -log p(label), for scores (samples, classes)."""
    if form is Form.PROBABILITIES:
        return functional.nll_loss(log_of(scores), labels)
    if form is Form.LOG_PROBABILITIES:
        return functional.nll_loss(scores, labels)
    return functional.cross_entropy(scores, labels)


def binary_cross_entropy(scores: Tensor, labels: Tensor, form: Form) -> Tensor:
    """Return the mean binary cross entropy.

    Args:
        scores: One per sample, (samples,) or (samples, 1), of label 1; or (samples, classes), each
            class for itself.
        labels: Class of each sample, (samples,).
        form: What the scores are.
    """
    target = _targets(scores, labels)
    if form is Form.PROBABILITIES:
        # Written out, because torch refuses its own under mixed precision.
        return -(target * log_of(scores) + (1 - target) * log_of(1 - scores)).mean()
    return functional.binary_cross_entropy_with_logits(scores, target)


def squared_error(scores: Tensor, labels: Tensor, _form: Form) -> Tensor:
    """Return the mean squared distance to the label, or to 1 for its class and 0 for others."""
    return functional.mse_loss(scores, _targets(scores, labels))


def _targets(scores: Tensor, labels: Tensor) -> Tensor:
    if scores.numel() == len(labels):
        return labels.to(scores.dtype).reshape(scores.shape)
    return functional.one_hot(labels, scores.shape[1]).to(scores.dtype)


LABEL_LOSSES: Mapping[str, LabelLoss] = {
    "cross-entropy": cross_entropy,
    "bce": binary_cross_entropy,
    "mse": squared_error,
}


def divergence(
    student: Tensor, teacher: Tensor, *, axis: int, forms: tuple[Form, Form], temperature: float
) -> Tensor:
    """Return T^2 KL(teacher || student), the mean over all distributions.

    Both are softened by T, and T^2 keeps the size of the gradient (Hinton, Vinyals and Dean, arXiv
    1503.02531).

    Args:
        student: Scores of classes along `axis`.
        teacher: Likewise, of the same shape.
        axis: Of the classes.
        forms: What the scores of student and teacher are.
        temperature: T.
    """
    logs = [
        torch.log_softmax((log_of(scores) if form is Form.PROBABILITIES else scores) / temperature,
                          axis)
        for scores, form in zip((student, teacher), forms, strict=True)
    ]  # fmt: skip
    gap = functional.kl_div(logs[0], logs[1], reduction="none", log_target=True)
    return gap.sum(axis).mean() * temperature**2


def relative_error(student: Tensor, teacher: Tensor, variance: float) -> Tensor:
    """Return the mean squared distance to the teacher in units of the teacher's variance."""
    return functional.mse_loss(student, teacher) / variance


def distance_of_either(
    of_classes: Tensor, student: Tensor, teacher: Tensor, variance: float
) -> Tensor:
    """Return the distance to the teacher of what may be logits, values or an embedding.

    Softmax does not see what is added to all scores of a sample, and next to nothing of values that
    are very large or small; the squared error does.

    Args:
        of_classes: What `divergence` gives for them.
        student: (samples, numbers).
        teacher: Likewise.
        variance: Of the teacher's values.
    """
    share = min(1.0, _OF_SCORES / variance)
    return share * of_classes + _BESIDE * relative_error(student, teacher, variance)


def own_loss(name: str) -> Callable[[Mapping[str, Tensor], Tensor | None], Tensor]:
    """Return the function that ``module:function`` names.

    Raises:
        SettingsError: There is none.
    """
    module, _, function = name.rpartition(":")
    try:
        with _current_folder_importable():
            found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"--loss {name} cannot be imported ({error}); give module:function of a module in the "
            "current folder, or installed"
        ) from error
    if not callable(found):
        raise SettingsError(f"--loss {name} is no function; name one of (outputs, labels)")

    def loss(outputs: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
        try:
            value = found(outputs, labels)
        except Exception as error:  # whatever somebody else's function may raise
            raise SettingsError(
                f"--loss {name} failed with {type(error).__name__}: {error}; it is called with "
                "the outputs by name and the labels"
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            kind = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise SettingsError(f"--loss {name} gave {kind}; it must return a tensor of one number")
        return value.reshape(())

    return loss


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Find modules beside the data, as `python -m` does and an installed command does not."""
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path.pop()
