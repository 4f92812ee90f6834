"""A compacted model is the masked one in OpenVINO, too: nothing rests on one runtime's habits."""

from __future__ import annotations

import numpy as np
import pytest
from test_cut import ALL, feed_for, traced
from text_models import run

from onnx_relief.compaction.compact import compact

openvino = pytest.importorskip("openvino", reason="needs the extra [deploy]")
CORE = openvino.Core()
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def run_elsewhere(model, feed):
    """Return the outputs of a model in OpenVINO's CPU plug-in."""
    compiled = CORE.compile_model(CORE.read_model(model.SerializeToString()), "CPU", SETTINGS)
    found = compiled([feed[value.name] for value in model.graph.input])
    return [np.array(found[at]) for at in range(len(model.graph.output))]


def farthest(first, second):
    """Return the largest difference of two lists of outputs, relative to the largest number."""
    gaps = [0.0]
    for one, other in zip(first, second, strict=True):
        assert one.shape == other.shape
        gap = np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0)
        gaps.append(gap / max(1e-3, np.abs(one).max(initial=0)))
    return max(gaps)


def test_the_measure_notices_a_small_error():
    assert farthest([np.ones(3)], [np.array([1, 1, 1.001])]) > 9e-4


@pytest.mark.parametrize("structure", ALL)
def test_compacted_is_masked_in_openvino(structure):
    traces = traced(structure)
    masked = traces.masked(traces.gone(traces.roots[::2]))
    small = compact(masked, traces.feed, provider="cpu", round_to=1).document.proto
    feed = feed_for(masked.proto, rows=2, seed=1)
    try:
        expected = run_elsewhere(masked.proto, feed)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        pytest.skip(f"OpenVINO does not run the masked model either: {said[-120:]}")
    assert farthest(expected, run_elsewhere(small, feed)) <= 1e-5
    assert farthest(run(small, feed), run_elsewhere(small, feed)) <= 1e-4
