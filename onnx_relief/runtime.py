"""ONNX Runtime behind one door: sessions, providers, and its errors in one sentence.

The only importer of onnxruntime. `onnxruntime` and `onnxruntime-gpu` install the same module, so
neither is a hard dependency; what is missing is said with the command that mends it.
"""

from __future__ import annotations

import importlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_relief.errors import ModelError, SettingsError
from onnx_relief.graph.document import Document
from onnx_relief.graph.drawing import draws, with_seeds
from onnx_relief.graph.light import without_weights
from onnx_relief.graph.save import write_to

logger = logging.getLogger(__name__)
Feed = Mapping[str, NDArray[Any]]
_Started = tuple[object, object]
_THREADS: ContextVar[int | None] = ContextVar("threads of a session", default=None)

# Best first. TensorRT is left out of `auto`: it compiles for minutes before the first result.
_BEST_FIRST = (
    "CUDAExecutionProvider",
    "ROCMExecutionProvider",
    "MIGraphXExecutionProvider",
    "DmlExecutionProvider",
    "CoreMLExecutionProvider",
)
_CPU = "CPUExecutionProvider"


class Session:
    """A model that can be run."""

    def __init__(self, start: Callable[[], _Started], *, draws: bool) -> None:
        self._start = start if draws else None  # which holds the whole model
        self._inner: Any
        self._inner, self._kept_alive = start()

    @property
    def provider(self) -> str:
        """Name of the execution provider that was really started."""
        return str(self._inner.get_providers()[0])

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run the model once.

        Args:
            feed: Arrays by input name.
            outputs: Names of the outputs wanted; all of them by default.

        Returns:
            What the model gives, by output name.

        Raises:
            ModelError: The model cannot be run on this feed; the text is the runtime's reason.
        """
        names = list(outputs) if outputs else [out.name for out in self._inner.get_outputs()]
        try:
            results = self._inner.run(names, dict(feed))
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from error
        return dict(zip(names, results, strict=True))

    def anew(self) -> Session:
        """Return a session that draws again what this one drew from its start on.

        It is this one where the model draws no random numbers.
        """
        return self if self._start is None else Session(self._start, draws=True)


def open_session(
    model: Document | onnx.ModelProto,
    *,
    provider: str = "auto",
    folder: Path | None = None,
    threads: int | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
    optimised: bool = True,
) -> Session:
    """Return a session that runs `model`.

    Random numbers that it draws are those that every new session of it and of its other versions
    draws; they go on from run to run.

    Args:
        model: A document, or a graph of our own making.
        provider: `auto`, or a provider's name, short (`cpu`, `cuda`) or as ONNX Runtime has it.
        folder: Where the external data of a bare proto lies.
        threads: Threads within an operator; by default what `threads_per_session` says, else
            ONNX Runtime's choice.
        weights: Initializers that a bare proto names and does not hold.
        optimised: Whether operators may be fused and reordered, which rounds differently.

    Raises:
        ModelError: ONNX Runtime is missing or refuses the model.
        SettingsError: No such provider here, or it was named and cannot start.
    """
    threads = _THREADS.get() if threads is None else threads
    drawn = draws(model.proto if isinstance(model, Document) else model)

    start = partial(
        _started,
        model,
        provider=provider,
        folder=folder,
        threads=threads,
        weights=weights or {},
        optimised=optimised,
        drawn=drawn,
    )
    return Session(start, draws=drawn)


def open_at(document: Document, tensors: Sequence[str], *, provider: str) -> Session:
    """Return a session that gives some tensors of the main graph, and computes no more than these.

    Raises:
        ModelError: The model cannot be run.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(document.proto)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return open_session(replace(document, proto=proto), provider=provider)


def _started(
    model: Document | onnx.ModelProto,
    *,
    provider: str,
    folder: Path | None,
    threads: int | None,
    weights: Mapping[str, NDArray[Any]],
    optimised: bool,
    drawn: bool,
) -> _Started:
    """Return the runtime's session, and the weights that it reads where they lie in our memory."""
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads:
        options.intra_op_num_threads = threads
    if isinstance(model, Document) and model.edits:
        # What ONNX Runtime maps of the files stays readable when their names are gone, except on
        # Windows, where they stay.
        with tempfile.TemporaryDirectory(
            prefix="onnx-relief-", ignore_cleanup_errors=True
        ) as temporary:
            if drawn:
                model = replace(model, proto=with_seeds(model.proto))
            path = write_to(model, Path(temporary), "model.onnx")
            return _start(runtime, str(path), options, provider), None
    if isinstance(model, Document):
        folder = model.folder if model.has_external_data else None
        model = model.proto
    if folder is not None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(folder.resolve()))
    light = without_weights(model)
    arrays = {**light.weights, **weights}
    values = [runtime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    if arrays:
        options.add_external_initializers(list(arrays), values)
    proto = with_seeds(light.proto) if drawn else light.proto
    return _start(runtime, _serialise(proto), options, provider), (arrays, values)


@contextmanager
def threads_per_session(count: int) -> Iterator[None]:
    """Let the sessions that are opened in the block have so many threads, unless they say more."""
    token = _THREADS.set(count)
    try:
        yield
    finally:
        _THREADS.reset(token)


def load_onnxruntime() -> ModuleType:
    """Return the module onnxruntime.

    Raises:
        ModelError: It is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as missing:
        raise ModelError(
            "running models needs ONNX Runtime: pip install 'onnx-relief[cpu]' (or [gpu])"
        ) from missing


def choose_providers(provider: str, available: Sequence[str]) -> list[str]:
    """Return the providers to start, best first, for what the user asked.

    >>> choose_providers("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    ['CUDAExecutionProvider', 'CPUExecutionProvider']
    >>> choose_providers("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    ['CPUExecutionProvider']

    Raises:
        SettingsError: The installed ONNX Runtime has no such provider.
    """
    if provider == "auto":
        return [name for name in _BEST_FIRST if name in available] + [_CPU]
    wanted = provider.lower().removesuffix("executionprovider")
    for name in available:
        if name.lower().removesuffix("executionprovider") == wanted:
            return [name] if name == _CPU else [name, _CPU]
    names = ", ".join(name.removesuffix("ExecutionProvider").lower() for name in available)
    raise SettingsError(f"--provider {provider}: this ONNX Runtime offers auto, {names}")


def _start(runtime: ModuleType, source: bytes | str, options: object, provider: str) -> object:
    providers = choose_providers(provider, runtime.get_available_providers())
    try:
        session = runtime.InferenceSession(source, options, providers=providers, enable_fallback=0)
    except Exception as error:
        if len(providers) == 1:
            raise ModelError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error
        on_cpu = _start(runtime, source, options, "cpu")  # a model that is no good says so itself
        if provider != "auto":
            reason = _first_line(error)
            raise SettingsError(f"--provider {provider} cannot start here: {reason}") from error
        _warn_once(f"{providers[0]} cannot start ({_first_line(error)}); using the CPU")
        return on_cpu
    started = session.get_providers()[0]
    if started != providers[0]:
        if provider != "auto":
            raise SettingsError(
                f"--provider {provider} cannot start here (missing driver, device or library?); "
                f"leave the flag out to run on {started.removesuffix('ExecutionProvider')}"
            )
        _warn_once(f"{providers[0]} cannot start here; using {started}")
    return session


@lru_cache
def _warn_once(text: str) -> None:
    """Say a thing that is true of the machine once, not for every session."""
    logger.warning("%s", text)


def _serialise(proto: onnx.ModelProto) -> bytes:
    try:
        return bytes(proto.SerializeToString())
    except Exception as error:
        raise ModelError(
            "the model is larger than 2 GB in one piece; save it with external data"
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    line = line.removeprefix("[ONNXRuntimeError] : ")
    # The file that it names is a temporary one of ours.
    return re.sub(r"Load model from \S+ failed: *", "", line).rstrip(". ")
