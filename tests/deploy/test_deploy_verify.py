"""One model in many runtimes: those that are here agree, and those that misbehave are rows."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import sys
import time

import numpy as np
import onnx
import pytest
from fake_adapters import runtime
from text_models import build, random

from onnx_relief.deploy.bench import bench
from onnx_relief.deploy.runtimes import RUNTIMES
from onnx_relief.deploy.verify import TOLERANCE, Effort, verify
from onnx_relief.errors import ModelError, UnsupportedError
from onnx_relief.graph.document import load

QUICK = Effort(sessions=1, seconds=0.0)
FEED = {"x": random(1, 2, 8, 8)}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")


def convolution():
    graph = """(float[N,2,8,8] x) => (float[N,5] y) {
        h = Conv <pads = [1, 1, 1, 1]> (x, k)
        r = Relu (h)
        p = GlobalAveragePool (r)
        f = Flatten (p)
        y = Gemm <transB = 1> (f, w, b)
    }"""
    return build(graph, opset=17, ir=8, k=random(4, 2, 3, 3), w=random(5, 4), b=random(5))


def dense():
    graph = """(float[N,6] x) => (float[N,3] y) {
        h = MatMul (x, a)
        t = Tanh (h)
        y = MatMul (t, b)
    }"""
    return build(graph, opset=17, ir=8, a=random(6, 9), b=random(9, 3))


def two_outputs():
    graph = """(float[1,6] x, float[1,6] z) => (float[1,6] y, float[1,6] s) {
        y = Add (x, z)
        s = Sub (x, z)
    }"""
    return build(graph, opset=17, ir=8)


def row_of(name, model=None, feed=FEED, **more):
    """Return the row of a runtime that misbehaves."""
    made = load(model or convolution())
    rows = verify(made, feed, [runtime(name)], effort=Effort(sessions=1, seconds=0, **more))
    assert rows[0].runtime == "onnxruntime"
    assert rows[0].difference == 0
    return rows[1]


def test_waiting_counts_for_the_clock_and_not_for_the_processor():
    by_clock, by_processor = (
        row_of("waits", processor_time=processor).timing.median for processor in (False, True)
    )
    assert by_clock >= 50
    assert 0 < by_processor < 50


@pytest.mark.parametrize("name", ["onnxruntime-web", "chromium"])
def test_under_node_the_processor_can_be_asked_and_in_a_page_the_clock(name):
    (one,) = (one for one in RUNTIMES if one.name == name)
    if not one.installed:
        pytest.skip(f"{name} is not installed")
    effort = Effort(sessions=1, seconds=0, processor_time=True)
    rows = verify(load(convolution()), FEED, [one], effort=effort)
    assert rows[1].error is None
    assert rows[1].timing.median > 0


@pytest.mark.parametrize("name", [one.name for one in RUNTIMES[1:]])
@pytest.mark.parametrize(
    ("model", "feed"),
    [
        (convolution, FEED),
        (dense, {"x": random(2, 6)}),
        (two_outputs, {"x": random(1, 6), "z": random(1, 6, seed=1)}),
    ],
)
def test_every_runtime_that_is_here_agrees(name, model, feed):
    tried = next(one for one in RUNTIMES if one.name == name)
    if not tried.installed:
        pytest.skip(f"{name} is not installed: {tried.remedy}")
    row = verify(load(model()), feed, [tried], effort=QUICK)[1]
    assert row.error is None
    assert row.difference <= 1e-4
    assert row.timing.median > 0
    assert row.version


@POSIX
def test_a_crash_is_a_row_with_its_signal_and_its_last_words():
    row = row_of("crashes")
    assert row.error == "crashed (SIGSEGV): thread panicked at 'no such op'"
    assert (row.difference, row.timing) == (None, None)


@POSIX
def test_a_crash_in_a_later_run_is_no_success():
    assert row_of("crashes_later").error.startswith("crashed (SIGSEGV)")


def test_a_runtime_that_hangs_is_ended_and_is_a_row():
    assert row_of("hangs", limit=15.0).error == "did not end within 15 s"


def test_a_runtime_that_ends_the_process_is_a_row():
    assert row_of("leaves").error == "its process ended with exit code 3"


def test_a_runtime_that_refuses_speaks_without_names_of_temporary_files():
    assert row_of("refuses").error == "cannot read the model second line"


def test_what_a_converter_printed_is_the_reason():
    error = row_of("converter_fails").error
    assert error == "its converter refuses the model: [10:30] These Op Not Support: Foo"


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("agrees", 0),
        ("flattens", 0),
        ("doubles", 1),
        ("forgets", math.inf),
        ("gives_nan", math.inf),
    ],
)
def test_outputs_are_compared_with_those_of_onnx_runtime(name, difference):
    row = row_of(name)
    assert row.error is None
    assert row.difference == difference


def test_what_fails_here_and_passes_there():
    assert row_of("doubles").difference > TOLERANCE > row_of("agrees").difference


def test_the_dense_model_is_timed_in_the_same_runtime_in_turns():
    rows = verify(
        load(convolution()),
        FEED,
        [runtime("agrees"), runtime("refuses")],
        against=load(convolution()),
        effort=Effort(sessions=2, seconds=0),
    )
    assert [row.dense is not None for row in rows] == [True, True, False]
    assert (rows[0].timing.sessions, rows[0].dense.sessions) == (2, 2)
    assert rows[2].dense_error


def test_a_model_that_onnx_runtime_refuses_has_no_reference():
    model = build("(float[1,6] x) => (float[1,6] y) { y = my.Unknown (x) }")
    with pytest.raises(ModelError, match="ONNX Runtime cannot run model"):
        verify(load(model), {"x": random(1, 6)}, [], effort=QUICK)


@pytest.mark.parametrize("words", [np.array(["a"]), np.array(["a"], dtype=object)])
def test_texts_cannot_be_given_to_every_runtime(words):
    model = build("(string[1] x) => (string[1] y) { y = Identity (x) }")
    with pytest.raises(UnsupportedError, match="'x' holds"):
        verify(load(model), {"x": words}, [], effort=QUICK)


def test_outputs_that_are_no_numbers_are_not_compared():
    graph = """(float[2] x) => (string[2] y) {
        y = ai.onnx.ml.LabelEncoder <keys_floats = [1.0], values_strings = ["a"]> (x)
    }"""
    model, feed = build(graph, opset=17, ir=8), {"x": np.ones(2, np.float32)}
    row = verify(load(model), feed, [], effort=QUICK)[0]
    assert (row.error, row.difference) == (None, None)


def test_data_in_other_files_goes_along(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save_model(convolution(), path, save_as_external_data=True, size_threshold=0)
    before = os.listdir(tmp_path)
    here = [one for one in RUNTIMES[1:] if one.installed]
    for row in verify(load(path), FEED, here, effort=QUICK):
        assert row.error is None
        assert row.difference <= 1e-4
    assert len(before) > 1
    assert os.listdir(tmp_path) == before


@POSIX
@pytest.mark.parametrize("name", ["mnn", "mnn-sparse"])
def test_a_converter_installs_nothing(name, tmp_path, monkeypatch):
    tried = next(one for one in RUNTIMES if one.name == name)
    if not tried.installed:
        pytest.skip(f"{name} is not installed (pip install 'onnx-relief[deploy]')")
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\ntouch "$(dirname "$0")/asked"\n')
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert verify(load(convolution()), FEED, [tried], effort=QUICK)[1].error is None
    assert os.listdir(tmp_path) == ["pip"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_page_that_hangs_takes_its_browser_with_it(tmp_path, monkeypatch):
    tried = next(one for one in RUNTIMES if one.name == "chromium")
    if not tried.installed:
        pytest.skip(f"chromium is not installed: {tried.remedy}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    feed = {"x": random(8192, 2, 8, 8)}  # some hundred runs of this take far longer
    effort = Effort(sessions=1, seconds=100.0, limit=2.5)
    found = bench([load(convolution())], [feed], effort=effort, runtime=tried)[0]
    assert found.error == "did not end within 2.5 s"
    deadline = time.monotonic() + 20
    while _browsers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _browsers(tmp_path) == []


def _browsers(folder):
    """Return the processes that were given something in `folder`."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_the_verdict_is_the_same_for_every_order_of_runtimes():
    names = ["agrees", "crashes", "doubles"]
    there = verify(load(dense()), {"x": random(1, 6)}, [*map(runtime, names)], effort=QUICK)
    back = verify(load(dense()), {"x": random(1, 6)}, [*map(runtime, names[::-1])], effort=QUICK)
    verdicts = [(row.error, row.difference) for row in there[1:]]
    assert verdicts == [(row.error, row.difference) for row in back[1:]][::-1]


@pytest.mark.parametrize("name", ["../../x", "a b\n\x1b[2J", "--help", "é'\";$(touch hacked)"])
def test_names_of_strangers_stay_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = convolution()
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    model.graph.output[0].name = model.graph.node[-1].output[0] = name + "_out"
    here = [one for one in RUNTIMES[1:] if one.installed and one.name != "chromium"]
    for row in verify(load(model), {name: FEED["x"]}, here, effort=QUICK):
        # A runtime may refuse such a name; it must not give something else.
        assert row.error is not None or row.difference <= 1e-4, row.runtime
    assert os.listdir(tmp_path) == []


def test_bench_gives_every_model_fresh_processes():
    documents = [load(convolution()), load(dense())]
    feeds = [FEED, {"x": random(2, 6)}]
    found = bench(documents, feeds, effort=Effort(sessions=2, seconds=0))
    for one in found:
        assert one.error is None
        assert one.timing.sessions == 2
        assert 0 < one.timing.median <= one.timing.slowest
        if sys.platform == "linux":
            assert one.peak_memory > one.memory_before > 0


def test_bench_goes_on_when_a_model_does_not_run():
    found = bench([load(convolution()), load(dense())], [FEED, FEED], effort=QUICK)
    assert found[0].error is None
    assert found[1].timing is None
    assert found[1].error
