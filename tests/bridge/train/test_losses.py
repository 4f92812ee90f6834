"""Losses against closed forms, whatever an output's numbers are."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.bridge.train.losses import (
    Form,
    binary_cross_entropy,
    binary_form,
    class_form,
    cross_entropy,
    divergence,
    own_loss,
    relative_error,
    squared_error,
)
from onnx_relief.errors import SettingsError


def logits(*shape, seed=0, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * spread


LABELS = torch.tensor([0, 3, 2, 2, 1])
AS = {
    Form.LOGITS: lambda values: values,
    Form.PROBABILITIES: lambda values: values.softmax(1),
    Form.LOG_PROBABILITIES: lambda values: values.log_softmax(1),
}


@pytest.mark.parametrize("form", AS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_form_is_seen_in_the_numbers(form, dtype):
    assert class_form(AS[form](logits(8, 5)).to(dtype), 1) is form
    assert class_form(AS[form](logits(8, 5)).to(dtype).T, 0) is form


@pytest.mark.parametrize("form", AS)
def test_cross_entropy_is_minus_the_log_of_the_labels_probability(form):
    scores = logits(5, 4)
    expected = -np.mean([math.log(scores.softmax(1)[i, k]) for i, k in enumerate(LABELS)])
    assert float(cross_entropy(AS[form](scores), LABELS, form)) == pytest.approx(expected)


@pytest.mark.parametrize("form", AS)
def test_gradients_reach_the_scores_and_agree(form):
    scores = logits(5, 4).requires_grad_()
    cross_entropy(AS[form](scores), LABELS, form).backward()
    expected = (scores.softmax(1) - torch.nn.functional.one_hot(LABELS, 4)) / 5
    torch.testing.assert_close(scores.grad, expected.detach())


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy])
def test_a_probability_of_zero_keeps_loss_and_gradient_finite(loss):
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    value = loss(scores, torch.tensor([1, 0]), Form.PROBABILITIES)
    value.backward()
    assert value.isfinite()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_binary_cross_entropy_of_logits_is_that_of_probabilities(shape):
    labels = torch.tensor([0, 1, 1, 0, 1])
    scores = logits(*shape)
    p = scores.sigmoid().reshape(-1)
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    for given_scores, form in ((scores, Form.LOGITS), (scores.sigmoid(), Form.PROBABILITIES)):
        torch.testing.assert_close(binary_cross_entropy(given_scores, labels, form), expected)
        assert binary_form(given_scores) is form


def test_squared_error_to_values_and_to_classes():
    labels = torch.tensor([2, 0])
    single = torch.tensor([[1.5], [1.0]])
    assert float(squared_error(single, labels, Form.VALUES)) == pytest.approx((0.25 + 1) / 2)
    rows = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert float(squared_error(rows, labels, Form.VALUES)) == pytest.approx(2 / 6)


@given(st.floats(0.5, 10.0), st.sampled_from(list(AS)), st.sampled_from(list(AS)))
def test_divergence_is_kullback_and_leiblers_times_the_temperature_squared(t, mine, theirs):
    student, teacher = logits(5, 4, seed=1), logits(5, 4, seed=2)
    p, q = (teacher / t).softmax(1), (student / t).softmax(1)
    expected = t**2 * (p * (p / q).log()).sum(1).mean()
    found = divergence(
        AS[mine](student), AS[theirs](teacher), axis=1, forms=(mine, theirs), temperature=t
    )
    torch.testing.assert_close(found, expected)


def test_divergence_of_sequences_is_the_mean_over_steps():
    student, teacher = logits(2, 3, 4, seed=1), logits(2, 3, 4, seed=2)
    forms = (Form.LOGITS, Form.LOGITS)
    whole = divergence(student, teacher, axis=2, forms=forms, temperature=2.0)
    flat = [part.reshape(6, 4) for part in (student, teacher)]
    torch.testing.assert_close(whole, divergence(*flat, axis=1, forms=forms, temperature=2.0))
    zero = divergence(teacher, teacher, axis=2, forms=forms, temperature=2.0)
    assert float(zero) == pytest.approx(0, abs=1e-12)


def test_relative_error_of_the_mean_is_one():
    teacher = logits(50, 3)
    guess = torch.full_like(teacher, float(teacher.mean()))
    assert float(relative_error(guess, teacher, float(teacher.var(correction=0)))) == pytest.approx(
        1
    )


def test_a_function_of_the_users_own(monkeypatch):
    module = ModuleType("mine")
    module.good = lambda outputs, labels: (outputs["y"].sum() * labels.sum()).reshape(1)
    module.bad = lambda outputs, _labels: outputs["y"]
    module.number = 3
    monkeypatch.setitem(sys.modules, "mine", module)
    value = own_loss("mine:good")({"y": torch.ones(2)}, torch.tensor([2, 3]))
    assert value.shape == ()
    assert float(value) == 10
    with pytest.raises(SettingsError, match=r"mine:bad gave \(2,\)"):
        own_loss("mine:bad")({"y": torch.ones(2)}, None)
    for name, told in (("mine:none", "imported"), ("no_such:f", "imported"), ("mine:number", "no")):
        with pytest.raises(SettingsError, match=told):
            own_loss(name)


def test_a_function_in_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "losses_beside_the_data.py").write_text("def f(outputs, labels): return labels\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert float(own_loss("losses_beside_the_data:f")({}, torch.ones(1))) == 1
    assert sys.path == path
