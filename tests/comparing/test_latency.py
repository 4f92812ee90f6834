"""Latency: who is run how often, never how fast."""

from __future__ import annotations

import numpy as np
import pytest
from classifier import mlp

from onnx_relief.comparing import latency
from onnx_relief.comparing.latency import measure_latency
from onnx_relief.errors import ModelError
from onnx_relief.graph.document import load

FEED = {"x": np.ones((2, 6), np.float32)}


def test_every_model_gets_several_fresh_sessions():
    found = measure_latency([load(mlp()), load(mlp())], FEED, samples=2, threads=1, seconds=0.01)
    assert found.threads == 1
    assert len(found.timings) == 2
    assert found.samples == 2
    assert found.provider == "CPUExecutionProvider"
    for timing in found.timings:
        assert timing.sessions >= 2
        assert timing.runs >= timing.sessions
        assert 0 < timing.median <= timing.slowest


def test_models_take_turns(monkeypatch):
    order = []
    real = latency.open_session
    monkeypatch.setattr(
        latency, "open_session", lambda model, **k: order.append(model) or real(model, **k)
    )
    documents = [load(mlp()), load(mlp())]
    measure_latency(documents, FEED, seconds=0.0)
    assert [document is documents[0] for document in order] == [True, False] * 2


def clock_of(step, monkeypatch):
    """Make every look at the clock find `step` seconds gone by."""
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(latency, "perf_counter", lambda: next(ticks) * step)


def test_a_slow_model_is_run_once_per_session(monkeypatch):
    clock_of(100.0, monkeypatch)
    found = measure_latency([load(mlp())], FEED)
    assert (found.timings[0].sessions, found.timings[0].runs) == (2, 2)


def test_the_best_of_the_medians_counts(monkeypatch):
    clock_of(0.1, monkeypatch)
    found = measure_latency([load(mlp())], FEED, seconds=2.0)
    assert found.timings[0].median == pytest.approx(100.0)


def test_a_feed_that_does_not_fit_is_a_sentence():
    with pytest.raises(ModelError, match="cannot run the model"):
        measure_latency([load(mlp())], {"x": np.ones((1, 5), np.float32)})
