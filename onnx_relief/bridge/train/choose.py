"""Which outputs labels and teacher belong to, found out from a first batch."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from onnx_relief.bridge.train.batches import Step
from onnx_relief.bridge.train.losses import (
    Form,
    binary_form,
    class_form,
    flat_tail,
    own_loss,
    wide,
)
from onnx_relief.bridge.train.objective import (
    Imitation,
    LabelTask,
    Objective,
    Outputs,
    check_shapes,
)
from onnx_relief.data import Dataset
from onnx_relief.data.labels import classes_of, output_of_labels
from onnx_relief.data.shuffle import labels_of
from onnx_relief.errors import DataError, SettingsError, UnsupportedError
from onnx_relief.training import LOSSES, TrainSettings


def choose_objective(
    outputs: Outputs, step: Step, data: Dataset, settings: TrainSettings
) -> Objective:
    """Return what to minimise.

    Args:
        outputs: What the model gives for a first batch, with gradients.
        step: That batch, with what the teacher gave, if there is one.
        data: The training data.
        settings: The choices.

    Raises:
        SettingsError: An option does not suit the model, or the teacher does not.
        DataError: There are neither labels nor a teacher, or the labels do not suit the model.
        UnsupportedError: No output depends on the weights by numbers.
    """
    trained = {name: value for name, value in outputs.items() if _can_learn(value)}
    if not trained:
        raise UnsupportedError(
            f"no output of the model ({', '.join(map(repr, outputs))}) has a gradient, so it "
            "cannot be trained; give a model whose scores are an output, not only its decisions"
        )
    weight = _teachers_share(step, data, settings)
    own = own_loss(settings.loss) if weight < 1 and settings.loss not in LOSSES else None
    task = None
    if step.labels is not None and own is None:
        task = _task(trained, step.labels, data, settings, needed=weight < 1)
    if task is not None and weight < 1:
        check_classes(task, step.labels, data)
    imitations = _imitations(trained, step, settings) if weight > 0 else ()
    return Objective(task=task, own=own, imitations=imitations, weight=weight)


def unused_parameters(module: nn.Module, objective: Objective, step: Step) -> bool:
    """Return whether some weights get no gradient from the objective; gradients are cleared.

    Raises:
        UnsupportedError: None gets one.
    """
    outputs = module(step.feed)
    loss = objective.loss(step.real(outputs), step.labels, step.targets)
    if not loss.requires_grad:
        raise UnsupportedError("the loss does not depend on the model's weights; choose another")
    loss.backward()
    missing = [weight.grad is None for weight in module.parameters() if weight.requires_grad]
    module.zero_grad(set_to_none=True)
    if all(missing):
        raise UnsupportedError("the loss does not depend on the model's weights; choose another")
    return any(missing)


def check_classes(task: LabelTask, labels: Tensor | None, data: Dataset) -> None:
    """Refuse labels that the output has no class for, and data of a single class.

    Raises:
        DataError: Naming the label.
    """
    known = labels_of(data)
    if known is None and labels is not None:
        check_range(task, labels, data.name)
    if known is None or not task.classes:
        return
    check_range(task, torch.from_numpy(known), data.name)
    if (known == known[0]).all():
        raise DataError(
            f"all {data.size} training samples of {data.name} have label {known[0]}, and training "
            "on a single class makes the model answer nothing else; give samples of all classes, "
            "or a --teacher and --distill 1"
        )


def check_range(task: LabelTask, labels: Tensor, name: str) -> None:
    """Refuse labels that the output has no class for.

    Raises:
        DataError: Naming the first of them.
    """
    if not task.classes or not labels.numel() or int(labels.max()) < task.classes:
        return
    first = int((labels >= task.classes).nonzero()[0, 0])
    raise DataError(
        f"{name} has label {int(labels[first])} (training sample {first}), but output "
        f"{task.output!r} has {task.classes} classes (0 to {task.classes - 1}); correct the "
        "labels, name another output with --output, or use a --teacher and --distill 1"
    )


def _can_learn(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.requires_grad


def _teachers_share(step: Step, data: Dataset, settings: TrainSettings) -> float:
    has_own = settings.loss not in LOSSES
    if not step.targets:
        if step.labels is None and not has_own:
            raise DataError(
                f"{data.name} has no labels and there is no teacher, so there is nothing to learn; "
                "add 'labels' or class folders, or give the dense model with --teacher"
            )
        return 0.0
    if step.labels is None and not has_own:
        if settings.loss != "auto":
            raise SettingsError(
                f"--loss {settings.loss} needs labels, and {data.name} has none; leave it out to "
                "follow the teacher alone"
            )
        return 1.0
    return settings.distill


def _task(
    outputs: Outputs, labels: Tensor, data: Dataset, settings: TrainSettings, *, needed: bool
) -> LabelTask | None:
    """Return the output that the labels belong to."""
    chosen = settings.label_output
    if chosen is not None and chosen not in outputs:
        raise SettingsError(
            f"--output {chosen!r} is no output that can be trained; there are "
            f"{', '.join(map(repr, outputs))}"
        )
    losses = [settings.loss]
    if settings.loss == "auto":
        losses = ["cross-entropy", "bce"]
    elif settings.loss not in LOSSES:
        losses = ["cross-entropy"]
    names = list(outputs) if chosen is None else [chosen]
    tasks: dict[str, LabelTask] = {}
    for loss, name in product(losses, names):
        task = _task_of(name, outputs[name], labels, loss)
        if task is not None:
            tasks.setdefault(name, task)
    if tasks:
        told = {name: task.classes for name, task in tasks.items()}
        return tasks[output_of_labels(told, classes_of(data))]
    if not needed and chosen is None:
        return None
    shapes = ", ".join(f"{name!r} {tuple(outputs[name].shape)}" for name in names)
    raise SettingsError(
        f"labels of shape {tuple(labels.shape)} suit none of the outputs {shapes} with --loss "
        f"{settings.loss}; name another output with --output or another --loss, or follow "
        "a --teacher with --distill 1"
    )


def _task_of(name: str, output: Tensor, labels: Tensor, loss: str) -> LabelTask | None:
    scores = flat_tail(wide(output.detach()))
    if scores.ndim not in (1, 2) or len(scores) != len(labels) or not scores.numel():
        return None
    single = scores.numel() == len(labels)
    if single and loss == "cross-entropy":
        return None
    if loss == "mse":
        return LabelTask(
            output=name, form=Form.VALUES, loss=loss, classes=0 if single else scores.shape[1]
        )
    form = binary_form(scores) if loss == "bce" else class_form(scores, 1)
    return LabelTask(output=name, form=form, loss=loss, classes=2 if single else scores.shape[1])


def _imitations(outputs: Outputs, step: Step, settings: TrainSettings) -> tuple[Imitation, ...]:
    unknown = [name for name in settings.distill_outputs if name not in outputs]
    if unknown:
        raise SettingsError(
            f"--distill-output {unknown[0]!r} is no output that can be trained; there are "
            f"{', '.join(map(repr, outputs))}"
        )
    names = settings.distill_outputs or tuple(outputs)
    missing = [name for name in names if name not in step.targets]
    if missing:
        raise SettingsError(
            f"the teacher gives {', '.join(map(repr, step.targets))} and not {missing[0]!r}; give "
            "the dense version of this model with --teacher, or name outputs of both with "
            "--distill-output"
        )
    labelled = step.labels is not None
    return tuple(
        _imitation(name, outputs[name], step.targets[name], settings, labelled=labelled)
        for name in names
    )


def _imitation(
    name: str, output: Tensor, target: Tensor, settings: TrainSettings, *, labelled: bool
) -> Imitation:
    student, teacher = wide(output.detach()), wide(target)
    check_shapes(name, student, teacher)
    if not target.is_floating_point() or not bool(teacher.isfinite().all()):
        raise SettingsError(
            f"the teacher's output {name!r} has NaN, Inf or no fractions; name other outputs with "
            "--distill-output"
        )
    axis = _class_axis(teacher)
    forms = (Form.VALUES, Form.VALUES)
    if axis is not None:
        forms = (class_form(student, axis), class_form(teacher, axis))
    variance = float(teacher.double().var(correction=0)) or float(teacher.double().square().mean())
    return Imitation(
        output=name,
        axis=axis,
        forms=forms,
        temperature=settings.temperature,
        variance=variance or 1.0,
        doubtful=not labelled and axis is not None and forms[1] is Form.LOGITS,
    )


def _class_axis(teacher: Tensor) -> int | None:
    """Return where the classes of an output are, None where it has none.

    (samples, classes) are scores of classes, except rows of length 1, which are embeddings. Of
    (samples, steps, classes) each step is a distribution, or they are something else.
    """
    if flat_tail(teacher).ndim == 2 and teacher.shape[1] >= 2:
        lengths = teacher.double().flatten(1).norm(dim=1)
        is_embedding = bool(((lengths - 1).abs() < 1e-4).all())
        is_certain = class_form(teacher, 1) is Form.PROBABILITIES  # (0, 1, 0) has length 1, too
        return None if is_embedding and not is_certain else 1
    if teacher.ndim == 3 and teacher.shape[2] >= 2 and class_form(teacher, 2) is not Form.LOGITS:
        return 2
    return None
