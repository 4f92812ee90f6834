"""Learning from a model in ONNX Runtime or torch, without labels, through the bridge itself."""

from __future__ import annotations

import nets
import numpy as np
import pytest
from text_models import build, random

from onnx_relief.bridge.convert import convert
from onnx_relief.bridge.train import open_teacher, train
from onnx_relief.data import open_data
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import load
from onnx_relief.training import TrainSettings

GRAPH = """(float[N, 4, 6, 6] x) => (float[N, 3] p, float[N, 5, 6, 6] map)
{ c = Conv<pads = [1, 1, 1, 1]>(x, w) n = BatchNormalization(c, scale, bias, mean, var)
  map = Relu(n) pooled = GlobalAveragePool(map) flat = Flatten(pooled)
  y = Gemm(flat, v, b) p = Softmax(y) }"""


def model(seed=0, **others):
    constants = {
        "w": random(5, 4, 3, 3, seed=seed),
        "scale": np.ones(5, np.float32),
        "bias": random(5, seed=seed + 1),
        "mean": np.zeros(5, np.float32),
        "var": np.ones(5, np.float32),
        "v": random(5, 3, seed=seed + 2),
        "b": random(3, seed=seed + 3),
    }
    return load(build(GRAPH, **(constants | others)))


def pictures(count=80):
    return open_data({"x": random(count, 4, 6, 6, seed=7)}, nets.specs("N", 4, 6, 6))


def changed(module, before):
    """Return the names in the file of what is not as it was."""
    now = module.state_dict()
    return {
        str(home.name) for name, home in module.homes.items() if not now[name].equal(before[name])
    }


@pytest.mark.parametrize("kind", ["session", "module"])
@pytest.mark.parametrize("outputs", [(), ("map",)])
def test_the_student_comes_closer_without_labels(tmp_path, kind, outputs):
    dense = model()
    teacher = open_teacher(dense, provider="cpu") if kind == "session" else convert(dense)
    before = None if kind == "session" else nets.state_of(teacher)
    student = convert(model(w=random(5, 4, 3, 3, seed=0) + 0.3 * random(5, 4, 3, 3, seed=9)))
    settings = TrainSettings(
        epochs=12, batch_size=8, lr=2e-2, distill_outputs=outputs, freeze_bn=True
    )
    done = train(student, pictures(), settings, teacher=teacher, folder=tmp_path)
    assert done.history[-1].validation_loss < done.history[0].validation_loss / 2
    assert done.history[0].validation_accuracy is None
    if before is not None:
        nets.assert_same(before, nets.state_of(teacher))


@pytest.mark.parametrize(
    ("batch", "freeze", "moves"),
    [(8, None, False), (16, None, True), (8, False, True), (16, True, False)],
)
def test_running_statistics_move_in_batches_that_are_large_enough(tmp_path, batch, freeze, moves):
    student = convert(model())
    before = nets.state_of(student)
    settings = TrainSettings(epochs=1, batch_size=batch, freeze_bn=freeze, validation=0.0)
    train(student, pictures(), settings, teacher=open_teacher(model(5)), folder=tmp_path)
    found = changed(student, before)
    assert {"w", "scale", "bias", "v", "b"} <= found
    assert ({"mean", "var"} <= found) is moves
    assert bool({"mean", "var"} & found) is moves


def test_a_teacher_with_other_outputs_is_refused(tmp_path):
    graph = "(float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] other) { other = Relu(x) }"
    teacher = open_teacher(load(build(graph)))
    with pytest.raises(SettingsError, match="--teacher"):
        train(convert(model()), pictures(), TrainSettings(), teacher=teacher, folder=tmp_path)
