"""What tells models apart: the distance of their outputs, against numbers from NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from text_models import build, random

import onnx_relief.divergence
import onnx_relief.repair.guard
from onnx_relief.data import open_data
from onnx_relief.divergence import Divergence
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


def both(dtype, monkeypatch):
    """Return the dense model and another one, whose outputs have a type, and data for them."""
    for module in (onnx_relief.divergence, onnx_relief.repair.guard):
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
    with pytest.raises(UnsupportedError, match="no output that holds floats"):
        Divergence(dense, data, batch_size=7)
