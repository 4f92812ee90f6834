"""The distance of two models' outputs, against numbers from NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build

from onnx_relief.data import open_data
from onnx_relief.divergence import Divergence
from onnx_relief.graph.document import input_specs, load

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
