"""Rewinding gives the initial weights, in the dense model's own file."""

from __future__ import annotations

import numpy as np
import pytest
from classifier import cnn, mlp, weights
from text_models import differences, random

import onnx_relief.retraining.iteration
from onnx_relief import iterate
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import load
from onnx_relief.retraining.rewinding import rewound


def initial():
    return mlp(w1=random(6, 5, seed=8), w2=random(5, 3, seed=9))


def test_the_weights_are_theirs_and_the_rest_is_ours():
    model, other = mlp(), initial()
    model.metadata_props.add(key="labels", value="a,b,c")
    other.producer_name = "somebody else"
    before = model.SerializeToString()
    found = rewound(load(model), load(other)).proto
    assert model.SerializeToString() == before
    assert all(path.endswith(".raw_data") for path in differences(model, found))
    for name, values in weights(found).items():
        np.testing.assert_array_equal(values, weights(other)[name])


def test_another_architecture_is_refused():
    with pytest.raises(SettingsError, match="it has no tensor 'w1'; give the same network"):
        rewound(load(mlp()), load(cnn()))


def test_training_begins_at_the_initial_weights_under_the_mask(tmp_path, monkeypatch):
    started = []
    train = onnx_relief.retraining.iteration.retrain

    def watched(document, *arguments, **options):
        started.append(weights(document.proto))
        return train(document, *arguments, **options)

    monkeypatch.setattr(onnx_relief.retraining.iteration, "retrain", watched)
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(40, 6)).astype(np.float32), "labels": rng.integers(0, 3, 40)}
    found = iterate(mlp(), data, tmp_path, iterations=2, epochs=1, alpha=0.8, rewind_to=initial())
    assert len(started) == len(found.rows) - 1 == 2
    for number, begun in enumerate(started, 1):
        kept = weights(tmp_path / f"iteration-{number:02d}" / "model.onnx")
        for name, values in begun.items():
            np.testing.assert_array_equal(
                values, np.where(values == 0, 0, weights(initial())[name])
            )
            assert (values == 0).any()
            np.testing.assert_array_equal(values == 0, kept[name] == 0)
