"""Sessions, the choice of providers, and ONNX Runtime's errors in one sentence."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from scored import one_layer

from onnx_relief import runtime
from onnx_relief.errors import ModelError, SettingsError
from onnx_relief.graph.document import load
from onnx_relief.runtime import choose_providers, load_onnxruntime, open_session

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)
X = np.ones((4, 3), np.float32)
MODEL = one_layer("MatMul", ["x", "w"], {"w": WEIGHT}, {"x": X})
CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


# --- running -------------------------------------------------------------------------------------


def test_a_session_runs_a_document_and_a_bare_model() -> None:
    for model in (MODEL, load(MODEL)):
        (result,) = open_session(model, provider="cpu").run({"x": X}).values()
        np.testing.assert_array_equal(result, X @ WEIGHT)


def test_only_the_outputs_that_are_wanted_are_given() -> None:
    model = one_layer("Split", ["x"], {}, {"x": X}, outputs=["a", "b", "c"], axis=1)
    session = open_session(model, provider="cpu")
    assert list(session.run({"x": X})) == ["a", "b", "c"]
    assert list(session.run({"x": X}, ["c"])) == ["c"]


def test_no_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = open_session(MODEL, provider="cpu")
    assert not list(tmp_path.iterdir())
    assert session.run({"x": X})["y"].shape == (4, 2)


@pytest.fixture(name="outside")
def model_with_external_data(tmp_path: Path) -> Path:
    model = onnx.ModelProto.FromString(MODEL.SerializeToString())
    onnx.save_model(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    return tmp_path / "m.onnx"


def test_external_data_is_found(outside: Path) -> None:
    document = load(outside)
    for session in (
        open_session(document, provider="cpu"),
        open_session(document.proto, provider="cpu", folder=outside.parent),
    ):
        np.testing.assert_array_equal(session.run({"x": X})["y"], X @ WEIGHT)


@pytest.mark.parametrize(
    ("feed", "reason"),
    [
        ({}, "x"),
        ({"x": X[:, :2]}, "layer"),
        ({"x": X.astype(np.float64)}, "double"),
        ({"x": X, "z": X}, "z"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused_in_one_line(feed: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"^ONNX Runtime cannot run the model: [^\n]*{reason}"):
        open_session(MODEL, provider="cpu").run(feed)


def test_a_model_that_the_runtime_refuses_is_refused_in_one_line() -> None:
    model = onnx.ModelProto.FromString(MODEL.SerializeToString())
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"^ONNX Runtime refuses the model: [^\n]*NoSuchOperator"):
        open_session(model, provider="cpu")


# --- providers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "available", "chosen"),
    [
        ("auto", [CPU], [CPU]),
        ("auto", [TENSORRT, CUDA, CPU], [CUDA, CPU]),
        ("cpu", [CUDA, CPU], [CPU]),
        ("cuda", [CUDA, CPU], [CUDA, CPU]),
        ("CUDA", [CUDA, CPU], [CUDA, CPU]),
        (CUDA, [CUDA, CPU], [CUDA, CPU]),
        ("tensorrt", [TENSORRT, CUDA, CPU], [TENSORRT, CPU]),
    ],
)
def test_providers_are_chosen_by_short_or_full_name(
    asked: str, available: list[str], chosen: list[str]
) -> None:
    assert choose_providers(asked, available) == chosen


@pytest.mark.parametrize("asked", ["cuda", "gpu", ""])
def test_an_unknown_provider_is_refused_with_those_that_exist(asked: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"^--provider {asked}: .* offers auto, tensorrt, cpu$"
    ):
        choose_providers(asked, [TENSORRT, CPU])


def test_the_real_runtime_refuses_a_provider_that_it_lacks() -> None:
    with pytest.raises(SettingsError, match=r"--provider vitisai: .*cpu"):
        open_session(MODEL, provider="vitisai")


class FakeOptions:
    """Session options that remember what was set."""

    def __init__(self) -> None:
        self.intra_op_num_threads = 0
        self.log_severity_level = 2


@pytest.fixture(name="fake")
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a stand-in for onnxruntime; `behaviour` says what becomes of CUDA there."""
    fake: Any = ModuleType("onnxruntime")
    fake.behaviour, fake.opened = "starts", []
    runtime._warn_once.cache_clear()

    class InferenceSession:
        def __init__(self, _source: Any, options: Any, *, providers: list[str], **_: Any) -> None:
            if fake.behaviour == "no model":
                raise RuntimeError("Load model from /tmp/x/model.onnx failed:it is no model")
            if CUDA in providers and fake.behaviour == "raises":
                raise RuntimeError("CUDA failure 35: driver too old\nand more lines")
            fell_back = fake.behaviour == "falls back"
            self.providers = [CPU] if fell_back else providers
            fake.opened.append((self.providers, options))

        def get_providers(self) -> list[str]:
            return self.providers

    fake.SessionOptions, fake.InferenceSession = FakeOptions, InferenceSession
    fake.get_available_providers = lambda: [CUDA, CPU]
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return fake


@pytest.mark.usefixtures("fake")
def test_auto_takes_the_best_provider(caplog: pytest.LogCaptureFixture) -> None:
    assert open_session(MODEL).provider == CUDA
    assert not caplog.records


@pytest.mark.parametrize("behaviour", ["raises", "falls back"])
def test_auto_falls_back_with_one_warning(
    fake: Any, behaviour: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake.behaviour = behaviour
    with caplog.at_level(logging.WARNING):
        assert open_session(MODEL).provider == CPU
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "CUDAExecutionProvider cannot start" in record.getMessage()
    open_session(MODEL)
    assert len(caplog.records) == 1
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("behaviour", ["raises", "falls back"])
def test_a_provider_that_was_named_and_cannot_start_is_an_error(fake: Any, behaviour: str) -> None:
    fake.behaviour = behaviour
    with pytest.raises(SettingsError, match=r"^--provider cuda cannot start here[^\n]*$"):
        open_session(MODEL, provider="cuda")


def test_threads_are_passed_on_only_if_they_are_given(fake: Any) -> None:
    open_session(MODEL, provider="cpu", threads=3)
    open_session(MODEL, provider="cpu")
    assert [options.intra_op_num_threads for _, options in fake.opened] == [3, 0]


def test_a_missing_runtime_is_said_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for door in (load_onnxruntime, lambda: open_session(MODEL)):
        with pytest.raises(ModelError, match=r"pip install 'onnx-relief\[cpu\]'"):
            door()


@pytest.mark.parametrize("provider", ["auto", "cuda", "cpu"])
def test_a_model_that_is_no_good_is_not_the_providers_fault(fake: Any, provider: str) -> None:
    fake.behaviour = "no model"
    with pytest.raises(ModelError, match=r"^ONNX Runtime refuses the model: it is no model$"):
        open_session(MODEL, provider=provider)
