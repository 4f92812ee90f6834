"""Mean and variance of channels, against the same in float64."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from text_models import build

from onnx_relief.data import open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.measuring.moments import Channels, merged, moments, watches

KINDS = {np.float16: 10, ml_dtypes.bfloat16: 16, np.float32: 1}
GRAPH = """({given}[{axes}] x) => (float[{axes}] y) {{
    h = Cast <to = {kind}> (x)
    y = Cast <to = 1> (h)
}}"""


def found(x, kind, where, *, given="float", batch_size=16):
    axes = ",".join(["N", *map(str, x.shape[1:])])
    document = load(build(GRAPH.format(given=given, axes=axes, kind=kind)))
    data = open_data({"x": x}, input_specs(document.proto))
    return moments(document, {"h": where}, data, batch_size=batch_size, provider="cpu")["h"]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(("mean", "spread"), [(0, 1), (50, 1), (0, 1e-4), (0, 1000)])
@pytest.mark.parametrize("where", [Channels(3, 1), Channels(2, 1, 40)])
def test_numbers_of_any_width_have_the_moments_that_they_have_in_float64(
    dtype, mean, spread, where
):
    x = (mean + spread * np.random.default_rng(0).normal(size=(40, 4, 40))).astype(dtype)
    result, wide = found(x.astype(np.float32), KINDS[dtype], where), x.astype(np.float64)
    axes = (0, 2) if where.count is None else (0, 1)
    variance = wide.var(axis=axes)
    np.testing.assert_allclose(result.variance, variance, rtol=1e-4)
    np.testing.assert_allclose(result.mean, wide.mean(axis=axes), rtol=1e-6, atol=1e-6 * spread)


def test_wide_numbers_stay_wide():
    x = 1e6 + np.random.default_rng(0).normal(size=(40, 4, 9)) * 1e-3
    result = found(x, 11, Channels(3, 1, wide=True), given="double")
    np.testing.assert_allclose(result.variance, x.var(axis=(0, 2)), rtol=1e-5)


def test_every_number_counts_the_same_where_samples_have_different_lengths():
    short, long = (
        np.random.default_rng(k).normal(size=(1, 4, length)).astype(np.float32) + k
        for k, length in enumerate((3, 300))
    )
    document = load(build("(float[1,4,L] x) => (float[1,4,L] y) { y = Identity (x) }"))
    data = open_data([{"x": short}, {"x": long}, {"x": short}], input_specs(document.proto))
    result = moments(document, {"x": Channels(3, 1)}, data, batch_size=1, provider="cpu")["x"]
    every = np.concatenate([short, long, short], axis=2).astype(np.float64)
    np.testing.assert_allclose(result.mean, every.mean(axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(result.variance, every.var(axis=(0, 2)), rtol=1e-5)


def test_moments_of_many_batches_take_no_more_memory_than_those_of_few():
    one = dict(zip(watches(["x"]), (np.ones(1000), np.ones(1000), np.array(7000)), strict=False))
    peaks = []
    for count in (10, 1000):
        tracemalloc.start()
        merged(["x"], ({name: value.copy() for name, value in one.items()} for _ in range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
