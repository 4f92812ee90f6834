"""What tells models apart: the distance of their outputs, against numbers from NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from text_models import build, random

import onnx_relief.comparing.divergence
import onnx_relief.repair.guard
from onnx_relief.comparing.divergence import Divergence
from onnx_relief.data import open_data
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.repair import Guard

WHOLE = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
TEXT = """(float[N,3] x) => (float[N,3] y) {
    g = Less (x, limit)
    s = Add (x, c)
    y = Where (g, s, none)
}"""


def shifted(by):
    """Return a model that adds a number, and gives NaN for inputs from 100 on."""
    constants = {"limit": np.float32(100), "none": np.float32(np.nan), "c": np.float32([by])}
    return load(build(TEXT, **constants))


@pytest.mark.parametrize("broken", [[], [(0, 0)], [(0, 0), (1, 1), (2, 2), (3, 2)]])
def test_where_the_dense_model_gives_no_number_nothing_counts(broken):
    x = WHOLE.copy()
    for place in broken:
        x[place] = 100
    data = open_data({"x": x}, input_specs(shifted(0).proto))
    found = Divergence(shifted(0), data, batch_size=4).of(shifted(0.5))
    known = np.where(x == 100, np.nan, x)
    apart = known - np.nanmean(known, axis=0)
    assert found == pytest.approx(0.25 / np.nanmean(np.square(apart)), rel=1e-5)


class Giving:
    """A session whose one output is the input in another type, for some multiplied by two."""

    def __init__(self, document, dtype):
        self._factor, self._dtype = (2 if document.proto.doc_string else 1), dtype

    def run(self, feed):
        return {"y": (self._factor * feed["x"]).astype(self._dtype)}

    def anew(self):
        return self


def both(dtype, monkeypatch):
    """Return the dense model and another one, whose outputs have a type, and data for them."""
    for module in (onnx_relief.comparing.divergence, onnx_relief.repair.guard):
        opened = lambda document, **_: Giving(document, dtype)  # noqa: E731
        monkeypatch.setattr(module, "open_session", opened)
    models = [build("(float[N,4] x) => (float[N,4] y) { y = Identity (x) }") for _ in range(2)]
    models[1].doc_string = "twice"
    data = open_data({"x": random(20, 4)}, input_specs(models[0]))
    return *map(load, models), data


# ONNX Runtime hands out bfloat16 through some of its bindings only.
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_outputs_of_all_floats_count(dtype, monkeypatch):
    dense, other, data = both(dtype, monkeypatch)
    guard = Guard(dense, data, batch_size=7, provider="cpu")
    assert guard.error(other) == pytest.approx(1)
    assert Divergence(dense, data, batch_size=7).of(other) == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
def test_outputs_of_nothing_but_integers_tell_nothing(dtype, monkeypatch):
    dense, other, data = both(dtype, monkeypatch)
    assert Guard(dense, data, batch_size=7, provider="cpu").error(other) is None
    with pytest.raises(UnsupportedError, match="no output of real numbers"):
        Divergence(dense, data, batch_size=7)


FOUND = """(float[N,4] x) => (float[N,3] y, float[M] found) {
    y = MatMul (x, w)
    large = Greater (y, bar)
    flat = Reshape (large, all)
    found = Compress (y, flat)
}"""
ALONE = "(float[N,4] x) => (float[N,3] y) { y = MatMul (x, w) }"


def detectors(graph, bar):
    """Return a model, one like it, and one that is twice as far from it."""
    weight, noise = random(4, 3, seed=1), random(4, 3, seed=2)
    more = {"bar": np.float32(bar), "all": np.array([-1])} if graph == FOUND else {}
    return [load(build(graph, w=weight + far * noise, **more)) for far in (0.0, 0.1, 0.2)]


# With the higher bar nothing is found in most batches.
@pytest.mark.parametrize("bar", [0.5, 4.0])
def test_outputs_whose_length_hangs_on_the_data_do_not_count(bar):
    x = {"x": random(40, 4)}
    told = []
    for graph in (FOUND, ALONE):
        dense, near, far = detectors(graph, bar)
        data = open_data(x, input_specs(dense.proto))
        guard = Guard(dense, data, batch_size=5, provider="cpu")
        probe = Divergence(dense, data, batch_size=5)
        told.append([of(model) for of in (guard.error, probe.of) for model in (near, far)])
    assert told[0] == told[1]
    assert 3 * told[0][0] < told[0][1]
    assert 3 * told[0][2] < told[0][3]


def test_a_changed_length_counts_as_silence():
    dense, *_ = detectors(FOUND, 0.5)
    data = open_data({"x": random(5, 4)}, input_specs(dense.proto))  # one batch, so nobody knows
    far = detectors(FOUND, -9.0)[0]
    assert Guard(dense, data, batch_size=5, provider="cpu").error(far) == pytest.approx(0.5)
    assert 0.1 < Divergence(dense, data, batch_size=5).of(far) < 10


def test_answers_are_held_of_as_many_samples_as_fit():
    dense = load(build("(float[N,1000] x) => (float[N,1000] y) { y = Mul (x, c) }", c=random(1000)))
    other = load(build("(float[N,1000] x) => (float[N,1000] y) { y = Mul (x, c) }", c=random(1)))
    data = open_data({"x": random(100, 1000)}, input_specs(dense.proto))
    probe = Divergence(dense, data, batch_size=5, memory=4 * 20 * 8000)
    assert probe.of(other) == Divergence(dense, data.take(20), batch_size=5).of(other) > 0
    assert probe.of(other) != Divergence(dense, data, batch_size=5).of(other)


def test_one_output_can_be_asked_for():
    dense, near, _ = detectors(FOUND, 0.5)
    data = open_data({"x": random(40, 4)}, input_specs(dense.proto))
    asked = Divergence(dense, data, batch_size=5, output="y")
    assert asked.of(near) == Divergence(dense, data, batch_size=5).of(near)
    with pytest.raises(UnsupportedError, match="no output 'found' of real numbers"):
        Divergence(dense, data, batch_size=5, output="found")


ALARM = """(float[N,4] x) => (float[N,3] y, float[N,3] alarm) {
    y = MatMul (x, w)
    over = Sub (y, bar)
    alarm = Relu (over)
}"""


def test_an_output_that_says_nothing_here_does_not_count():
    models = [build(ALARM, w=random(4, 3, seed=1), bar=np.float32(bar)) for bar in (9, 0)]
    models[1].graph.initializer[0].CopyFrom(build(ALONE, w=random(4, 3)).graph.initializer[0])
    alone = [build(ALONE, w=random(4, 3, seed=s)) for s in (1, 0)]
    told = []
    for dense, other in (map(load, models), map(load, alone)):
        data = open_data({"x": random(20, 4)}, input_specs(dense.proto))
        guard = Guard(dense, data, batch_size=5, provider="cpu")
        told.append((guard.error(other), Divergence(dense, data, batch_size=5).of(other)))
    assert told[0] == told[1]
    assert 0 < told[0][0] < 100


DECIDING = {
    "classes": ("int64[N] i", "i = ArgMax <axis = 1, keepdims = 0> (y)"),
    "names": ("string[N] i", "k = ArgMax <axis = 1, keepdims = 0> (y)  i = Gather (names, k)"),
    "alarms": ("bool[N,3] i", "g = Greater (y, zero)  i = Identity (g)"),
}


@pytest.mark.parametrize("kind", DECIDING)
def test_models_that_only_decide_are_told_apart_by_their_scores(kind):
    output, body = DECIDING[kind]
    more = {"names": np.array(["a", "b", "c"], dtype=object), "zero": np.float32(0)}
    more = {name: array for name, array in more.items() if name in body}
    told = []
    for end, text in ((output, body), ("float[N,3] y", "")):
        graph = f"(float[N,4] x) => ({end}) {{ y = MatMul (x, w)  {text} }}"
        used = more if text else {}
        dense, other = (load(build(graph, w=random(4, 3, seed=s), **used)) for s in (1, 2))
        before = dense.proto.SerializeToString()
        data = open_data({"x": random(20, 4)}, input_specs(dense.proto))
        guard = Guard(dense, data, batch_size=5, provider="cpu")
        told.append((guard.error(other), Divergence(dense, data, batch_size=5).of(other)))
        assert dense.proto.SerializeToString() == before
        asked = Divergence(dense, data, batch_size=5, output="i" if text else "y")
        assert asked.of(other) == told[-1][1]
    assert told[0] == told[1]
    assert told[0][0] > 0


BOXES = """(float[N,4] x) => (float[N,2,3] y) {
    b = MatMul (x, large)  s = MatMul (x, w)
    c = Unsqueeze (b, one)  t = Unsqueeze (s, one)  y = Concat <axis = 1> (c, t)
}"""


def test_the_parts_of_a_join_count_alike_whatever_their_size():
    large = 1000 * random(4, 3, seed=3)
    models = [
        load(build(BOXES, w=random(4, 3, seed=s), large=large, one=np.array([1]))) for s in (1, 2)
    ]
    alone = [load(build(ALONE, w=random(4, 3, seed=s))) for s in (1, 2)]
    told = []
    for dense, other in (models, alone):
        data = open_data({"x": random(20, 4)}, input_specs(dense.proto))
        guard = Guard(dense, data, batch_size=5, provider="cpu")
        probe = Divergence(dense, data, batch_size=5)
        asked = Divergence(dense, data, batch_size=5, output="y")
        assert asked.of(other) == probe.of(other)
        told.append((guard.error(other), probe.of(other)))
    assert told[0] == pytest.approx([value / 2 for value in told[1]])


def test_outputs_that_are_no_tensors_are_not_looked_at():
    text = """(float[N,4] x) => (float[N,3] y, seq(float[A,B]) s) {
        y = MatMul (x, w)  z = Relu (x)  s = SequenceConstruct (y, z)
    }"""
    dense, other = (load(build(text, w=random(4, 3, seed=s))) for s in (1, 2))
    data = open_data({"x": random(20, 4)}, input_specs(dense.proto))
    assert Divergence(dense, data, batch_size=5).of(other) > 0
    assert Guard(dense, data, batch_size=5, provider="cpu").error(other) > 0


NOISY = """(float[N,6] x) => (float[N,4] y) {
    h = MatMul (x, w)  z = RandomNormalLike (h)  y = Add (h, z) }"""


@pytest.mark.parametrize("batch_size", [16, 300])
def test_a_model_that_draws_random_numbers_is_no_distance_from_itself(batch_size):
    dense, other = (load(build(NOISY, w=random(6, 4) * scale)) for scale in (1, 1.001))
    data = open_data({"x": random(300, 6, seed=1)}, input_specs(dense.proto))
    probe = Divergence(dense, data, batch_size=batch_size)
    for _ in range(2):
        assert probe.of(dense) == 0
        assert 0 < probe.of(other) < 1e-5
