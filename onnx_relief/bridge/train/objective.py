"""What is minimised: a loss on the labels, a distance to a teacher, or a mixture of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnx_relief.bridge.train.losses import (
    LABEL_LOSSES,
    Form,
    distance_of_either,
    divergence,
    flat_tail,
    relative_error,
    wide,
)
from onnx_relief.errors import DataError, SettingsError

Outputs = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LabelTask:
    """The output that the labels belong to.

    Attributes:
        output: Its name.
        form: What its scores are.
        loss: Key of `LABEL_LOSSES`.
        classes: How many classes it tells apart; 0 where labels are values.
    """

    output: str
    form: Form
    loss: str
    classes: int

    def scores(self, outputs: Outputs) -> Tensor:
        """Return (samples, classes) or (samples,)."""
        return flat_tail(wide(outputs[self.output]))

    def value(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Return the mean loss."""
        return LABEL_LOSSES[self.loss](self.scores(outputs), labels, self.form)

    def hits(self, outputs: Outputs, labels: Tensor) -> int | None:
        """Return how many samples are classified rightly, None where labels are no classes."""
        if not self.classes:
            return None
        scores = self.scores(outputs).detach()
        if scores.numel() == len(labels):
            middle = 0.5 if self.form is Form.PROBABILITIES else 0.0
            chosen = (scores.reshape(-1) > middle).to(labels.dtype)
        else:
            chosen = scores.argmax(1)
        return int((chosen == labels).sum())


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """An output that follows the teacher.

    Attributes:
        output: Its name.
        axis: Where its classes are; None where it has none.
        forms: What the scores of student and teacher are.
        temperature: Of the softening.
        variance: Of the teacher's values, for what has no classes.
        doubtful: Whether its scores may as well be values: neither their sums nor labels tell.
    """

    output: str
    axis: int | None
    forms: tuple[Form, Form]
    temperature: float
    variance: float
    doubtful: bool = False

    def value(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Return the distance to the teacher.

        Raises:
            SettingsError: The teacher gives another shape.
        """
        student, teacher = wide(outputs[self.output]), wide(targets[self.output])
        check_shapes(self.output, student, teacher)
        teacher = teacher.to(student.dtype)
        if self.axis is None:
            return relative_error(student, teacher, self.variance)
        gap = divergence(
            student, teacher, axis=self.axis, forms=self.forms, temperature=self.temperature
        )
        if not self.doubtful:
            return gap
        return distance_of_either(gap, student, teacher, self.variance)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised.

    Attributes:
        task: What the labels belong to, or None.
        own: The user's function of (outputs, labels), in place of the task's loss.
        imitations: Outputs that follow the teacher.
        weight: Share of the teacher.
    """

    task: LabelTask | None
    own: Callable[[Outputs, Tensor | None], Tensor] | None
    imitations: tuple[Imitation, ...]
    weight: float

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that the teacher has to give."""
        return tuple(imitation.output for imitation in self.imitations)

    def loss(self, outputs: Outputs, labels: Tensor | None, targets: Outputs) -> Tensor:
        """Return what is minimised, one number."""
        parts: list[Tensor] = []
        if self.weight < 1:
            parts.append((1 - self.weight) * self._label_loss(outputs, labels))
        if self.imitations:
            distances = [each.value(outputs, targets) for each in self.imitations]
            parts.append(self.weight * torch.stack(distances).mean())
        return torch.stack(parts).sum()

    def _label_loss(self, outputs: Outputs, labels: Tensor | None) -> Tensor:
        if self.own is not None:
            return self.own(outputs, labels)
        if self.task is None or labels is None:
            raise DataError("some of the training data has no labels; add them to all of it")
        return self.task.value(outputs, labels)

    def hits(self, outputs: Outputs, labels: Tensor | None) -> int | None:
        """Return how many samples are classified rightly, or None if that is not known."""
        return None if self.task is None or labels is None else self.task.hits(outputs, labels)


def check_shapes(output: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse a teacher that does not fit.

    Raises:
        SettingsError: Naming both shapes.
    """
    if student.shape != teacher.shape:
        raise SettingsError(
            f"output {output!r} has shape {tuple(teacher.shape)} in the teacher and "
            f"{tuple(student.shape)} in the model; give the dense version of this model with "
            "--teacher, or name the outputs that agree with --distill-output"
        )
