"""Retraining and iterating from Python: callbacks, results, and own loops."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from classifier import mlp, samples, weights
from text_models import random

import onnx_relief as relief
from onnx_relief.errors import DataError, SettingsError


def masked():
    w1 = random(6, 5, seed=1)
    w1[::2] = 0
    return mlp(w1=w1)


def test_retrain_tells_of_epochs_and_changes_nothing_it_was_given():
    model, rows, stages = masked(), [], set()
    before = model.SerializeToString()
    found = relief.retrain(
        model,
        samples(),
        epochs=3,
        batch_size=8,
        on_epoch=rows.append,
        progress=lambda stage, _done, _total: stages.add(stage),
    )
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert tuple(rows) == found.report.trained.history
    assert {"training", "judging the model as it was", "judging the model"} <= stages
    assert model.SerializeToString() == before
    onnx.checker.check_model(found.model)
    assert not weights(found.model)["w1"][::2].any()
    assert found.report.held == 15
    assert found.report.weights == 30


def test_retrain_with_a_plan_takes_its_masks():
    pruned = relief.prune(mlp(), samples(), alpha=0.6)
    found = relief.retrain(mlp(), samples(), plan=pruned.plan, epochs=1)
    for name, values in weights(pruned.model).items():
        np.testing.assert_array_equal(weights(found.model)[name] == 0, values == 0)


def test_a_teacher_brings_a_damaged_model_nearer():
    dense = mlp()
    damaged = mlp(w1=weights(dense)["w1"] + 0.5 * random(6, 5, seed=5))
    data = samples(200, labelled=False)
    found = relief.retrain(
        damaged, data, teacher=dense, epochs=20, lr=0.02, batch_size=16, metric="error"
    )
    assert found.report.after.value < 0.3 * found.report.before.value


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(SettingsError, match="training has no setting 'learning_rate'; it takes"):
        relief.retrain(masked(), samples(), learning_rate=1)
    with pytest.raises(DataError, match="has no labels"):
        relief.retrain(masked(), samples(labelled=False))


def test_iterate_tells_of_epochs_and_iterations(tmp_path):
    rows, told, model = [], [], mlp()
    before = model.SerializeToString()
    found = relief.iterate(
        model,
        samples(),
        tmp_path / "run",
        iterations=2,
        epochs=2,
        alpha=[0.9, 0.7],
        on_epoch=rows.append,
        on_iteration=told.append,
    )
    assert [row.epoch for row in rows] == [1, 2, 1, 2]
    assert tuple(told) == found.rows
    assert [row.alpha for row in told[1:]] == [(0.9, 0.9), (0.7, 0.7)]
    assert found.met
    assert found.best == told[-1]
    assert weights(found.document.proto).keys() == weights(model).keys()
    assert model.SerializeToString() == before


def test_an_error_in_a_callback_comes_out_and_the_run_goes_on(tmp_path):
    def stop(row):
        if row.iteration == 1:
            raise KeyError("mine")

    options = {"iterations": 2, "epochs": 1, "alpha": 0.8}
    with pytest.raises(KeyError, match="mine"):
        relief.iterate(mlp(), samples(), tmp_path / "run", on_iteration=stop, **options)
    rows = []
    found = relief.iterate(mlp(), samples(), tmp_path / "run", on_epoch=rows.append, **options)
    assert len(found.rows) == 3
    assert len(rows) == 1


def test_a_loop_of_ones_own_keeps_the_zeros():
    model = masked()
    module = relief.to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9)
    arrays = samples()
    x, labels = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["labels"])
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x)["y"], labels).backward()
        optimizer.step()
    found = relief.from_torch(module, model)
    assert not weights(found)["w1"][::2].any()
    assert (weights(found)["w2"] != weights(model)["w2"]).any()
    with pytest.raises(SettingsError, match="a module that to_torch made"):
        relief.from_torch(torch.nn.Linear(2, 2), model)
