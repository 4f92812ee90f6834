"""Which outputs labels and teacher go to, and what is refused."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch

from onnx_relief.bridge.train.batches import Step
from onnx_relief.bridge.train.choose import choose_objective
from onnx_relief.bridge.train.losses import Form
from onnx_relief.errors import SettingsError
from onnx_relief.training import TrainSettings


def step(labels=None, **targets):
    return Step(feed={}, labels=labels, targets=targets, count=6, filled=None)


def values(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def outputs(**given):
    return {name: value.requires_grad_() for name, value in given.items()}


LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
DATA = nets.points(6)


def choose(found, a_step, **options):
    return choose_objective(found, a_step, DATA, TrainSettings(**options))


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 1, 1)])
def test_labels_go_to_the_first_output_with_a_row_of_scores_for_each(shape):
    found = outputs(map=values(6, 3, 4, 4), pooled=values(1, 3), y=values(*shape), z=values(6, 3))
    found["classes"] = torch.zeros(6, dtype=torch.int64)
    task = choose(found, step(LABELS)).task
    assert (task.output, task.loss, task.classes, task.form) == (
        "y",
        "cross-entropy",
        3,
        Form.LOGITS,
    )
    assert choose(found, step(LABELS), label_output="z").task.output == "z"


@pytest.mark.parametrize(
    ("shapes", "chosen"),
    [
        ({"embedding": (6, 20), "scores": (6, 3)}, "scores"),
        ({"embedding": (6, 20), "scores": (6, 4)}, "embedding"),
        ({"embedding": (6, 20), "one": (6, 3), "other": (6, 3)}, "embedding"),
        ({"scores": (6, 3), "embedding": (6, 20)}, "scores"),
    ],
)
def test_labels_go_to_the_only_output_with_as_many_classes(shapes, chosen):
    found = outputs(**{name: values(*shape) for name, shape in shapes.items()})
    assert choose(found, step(LABELS)).task.output == chosen


def test_two_classes_may_be_one_number():
    found = outputs(embedding=values(6, 20), y=values(6, 1).sigmoid())
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    task = choose_objective(found, step(labels), nets.points(6, classes=2), TrainSettings()).task
    assert (task.output, task.loss) == ("y", "bce")


def test_single_scores_are_binary():
    probabilities = values(6, 1).sigmoid()
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    data = nets.points(6, classes=2)
    found = outputs(y=probabilities)
    objective = choose_objective(found, step(labels), data, TrainSettings())
    assert (objective.task.loss, objective.task.form) == ("bce", Form.PROBABILITIES)
    hits = int(((probabilities.reshape(-1) > 0.5).long() == labels).sum())
    assert objective.hits(found, labels) == hits


def test_hits_count_the_highest_score():
    found = outputs(y=values(6, 3))
    expected = int((found["y"].argmax(1) == LABELS).sum())
    assert choose(found, step(LABELS)).hits(found, LABELS) == expected


def test_values_have_no_accuracy():
    found = outputs(y=values(6, 1))
    objective = choose(found, step(LABELS), loss="mse")
    assert objective.hits(found, LABELS) is None
    expected = (found["y"].reshape(-1) - LABELS).square().mean()
    torch.testing.assert_close(objective.loss(found, LABELS, {}), expected)


@pytest.mark.parametrize(
    ("teacher", "axis"),
    [
        (values(6, 5), 1),
        (values(6, 5).softmax(1), 1),
        (torch.nn.functional.one_hot(LABELS, 5).float(), 1),
        (torch.nn.functional.normalize(values(6, 5)), None),
        (values(6, 7, 5).softmax(2), 2),
        (values(6, 7, 5).log_softmax(2), 2),
        (values(6, 7, 5), None),
        (values(6, 1, 8, 8).sigmoid(), None),
        (values(6), None),
    ],
    ids=[f"{n}" for n in range(9)],
)
def test_outputs_of_any_kind_follow_the_teacher(teacher, axis):
    found = outputs(y=values(*teacher.shape, seed=1))
    objective = choose(found, step(y=teacher))
    (imitation,) = objective.imitations
    assert (imitation.axis, objective.weight) == (axis, 1.0)
    loss = objective.loss(found, None, {"y": teacher})
    loss.backward()
    assert float(loss.detach()) > 0
    assert found["y"].grad.abs().sum() > 0
    same = objective.loss({"y": teacher.clone().requires_grad_()}, None, {"y": teacher})
    if axis is None:
        assert float(same.detach()) == 0


@pytest.mark.parametrize(
    ("teacher", "labels", "seen"),
    [
        (values(6, 5), None, True),
        (values(6, 5), LABELS, False),
        (values(6, 5).log_softmax(1), None, False),
    ],
)
def test_what_softmax_does_not_see_counts_where_scores_may_be_values(teacher, labels, seen):
    found = outputs(y=teacher + 1)
    objective = choose(found, step(labels, y=teacher), distill=1.0)
    assert (float(objective.loss(found, labels, {"y": teacher}).detach()) > 0.01) == seen


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e2])
def test_values_of_any_size_are_followed(size):
    teacher = size * values(6, 3)
    student = torch.zeros(6, 3, requires_grad=True)
    objective = choose({"y": student}, step(y=teacher))
    optimizer = torch.optim.Adam([student], lr=0.03 * size)
    for _ in range(300):
        optimizer.zero_grad()
        objective.loss({"y": student}, None, {"y": teacher}).backward()
        optimizer.step()
    gap = student.detach() - teacher
    assert float(gap.square().mean()) < 0.01 * float(teacher.var())


def test_labels_and_teacher_share_by_weight():
    found, teacher = outputs(y=values(6, 3)), values(6, 3, seed=4)
    loss = {
        share: float(choose(found, step(LABELS, y=teacher), distill=share).loss(
            found, LABELS, {"y": teacher}).detach())
        for share in (0.0, 0.25, 1.0)
    }  # fmt: skip
    assert loss[0.25] == pytest.approx(0.75 * loss[0.0] + 0.25 * loss[1.0])
    assert choose(found, step(LABELS, y=teacher), distill=1.0).hits(found, LABELS) is not None


def test_the_outputs_named_follow_and_no_others():
    found = outputs(a=values(6, 3), b=values(6, 9))
    objective = choose(found, step(a=values(6, 3), b=values(6, 9)), distill_outputs=("b",))
    assert objective.outputs == ("b",)


@pytest.mark.parametrize(
    ("targets", "options", "told"),
    [
        ({"z": values(6, 3)}, {}, r"gives 'z' and not 'y'"),
        ({"y": values(6, 4)}, {}, r"\(6, 4\) in the teacher and \(6, 3\)"),
        ({"y": torch.full((6, 3), float("nan"))}, {}, "NaN"),
        ({"y": values(6, 3)}, {"distill_outputs": ("q",)}, "--distill-output 'q'"),
        ({"y": values(6, 3)}, {"loss": "mse"}, "needs labels"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(targets, options, told):
    with pytest.raises(SettingsError, match=told):
        choose(outputs(y=values(6, 3)), step(**targets), **options)


@pytest.mark.parametrize(
    ("found", "options", "told"),
    [
        ({"y": values(6, 3)}, {"label_output": "q"}, "--output 'q'"),
        ({"y": values(5, 3)}, {}, r"suit none of the outputs 'y' \(5, 3\)"),
        ({"y": values(6, 3, 2)}, {}, "--output"),
        ({"y": values(6, 1)}, {"loss": "cross-entropy"}, "suit none"),
    ],
)
def test_labels_that_suit_no_output_are_refused(found, options, told):
    with pytest.raises(SettingsError, match=told):
        choose(outputs(**found), step(LABELS), **options)


def test_labels_that_suit_no_output_do_not_disturb_a_teacher():
    teacher = values(6, 3, 2)
    found = outputs(y=values(6, 3, 2))
    objective = choose(found, step(LABELS, y=teacher), distill=1.0)
    assert objective.task is None
    assert np.isfinite(float(objective.loss(found, LABELS, {"y": teacher}).detach()))
