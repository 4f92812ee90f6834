"""How each runtime is driven from Python: one function per runtime, called in a child process.

An adapter takes a `Task` and returns a function that runs the model once and gives its outputs in
the order of the task's. Each imports its library itself: the others may not be installed. All run
in single precision on the processor with the task's number of threads, 0 being the runtime's
own choice.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.errors import ModelError
from onnx_relief.runtime import load_onnxruntime

Array = NDArray[Any]
Run = Callable[[], Sequence[object]]

_PNNX_REFUSES: Final = re.compile(r"^.*not supported.*$", re.MULTILINE)
_TRACT_TYPES: Final = {"float": "f", "int": "i", "uint": "u"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """What a runtime shall do; whatever it writes goes into the current folder, the child's own.

    Attributes:
        model: Path of the ONNX file, with a harmless name.
        feed: Arrays by input name, in the model's order.
        outputs: Names of the outputs wanted, in the model's order.
        threads: Threads of the runtime.
    """

    model: Path
    feed: Mapping[str, Array]
    outputs: Sequence[str]
    threads: int


def onnx_runtime(task: Task) -> Run:
    """Return a run in ONNX Runtime on the CPU: the reference."""
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = task.threads
    session = runtime.InferenceSession(
        str(task.model), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    names, feed = list(task.outputs), dict(task.feed)

    def run() -> Sequence[object]:
        return list(session.run(names, feed))

    return run


def openvino(task: Task) -> Run:
    """Return a run in OpenVINO's CPU plug-in, which would take bfloat16 if it were let."""
    import openvino

    settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32"}
    if task.threads:
        settings["INFERENCE_NUM_THREADS"] = task.threads
    compiled = openvino.Core().compile_model(str(task.model), "CPU", settings)
    request, values = compiled.create_infer_request(), list(task.feed.values())
    places = range(len(task.outputs))

    def run() -> Sequence[object]:
        request.infer(values)
        return [np.array(request.get_output_tensor(place).data) for place in places]

    return run


def tract(task: Task) -> Run:
    """Return a run in tract, which wants every size of its inputs; it has one thread."""
    import tract

    model = tract.onnx().load(str(task.model))
    for place, array in enumerate(task.feed.values()):
        model.set_input_fact(place, _tract_fact(array))
    runnable = model.into_model().into_runnable()
    values = [tract.Tensor.from_numpy(array) for array in task.feed.values()]

    def run() -> Sequence[object]:
        return [tensor.to_numpy() for tensor in runnable.run(values)]

    return run


def mnn(task: Task) -> Run:
    """Return a run in MNN, of what its own converter makes of the model."""
    return _mnn(task, ())


def mnn_sparse(task: Task) -> Run:
    """Return a run in MNN with its kernels for sparse weights, where it finds enough zeros.

    The graph is simplified first: with this flag the converter has given wrong numbers for
    transformers that compute their shapes.
    """
    return _mnn(replace(task, model=simplified(task)), ("--detectSparseSpeedUp",))


def simplified(task: Task) -> Path:
    """Write the model for inputs of just these shapes, with everything computed that can be.

    ONNX Runtime's basic optimisations, which leave a model of standard operators: constants are
    folded, and so are the sizes that a graph computes from its inputs.
    """
    runtime = load_onnxruntime()
    path = task.model.with_name("simplified.onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    inputs = onnx.load(task.model, load_external_data=False).graph.input
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, np.shape(task.feed.get(value.name, ())), strict=False):
            if dim.dim_param:
                options.add_free_dimension_override_by_name(dim.dim_param, size)
    runtime.InferenceSession(
        str(task.model), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    return path


def opencv(task: Task) -> Run:
    """Return a run in OpenCV's dnn module."""
    import cv2

    if task.threads:
        cv2.setNumThreads(task.threads)
    network = cv2.dnn.readNetFromONNX(str(task.model))
    names = list(task.outputs)

    def run() -> Sequence[object]:
        for name, array in task.feed.items():
            network.setInput(array, name)
        return list(network.forward(names))

    return run


def ncnn(task: Task) -> Run:
    """Return a run in ncnn, of what pnnx makes of the model for inputs of just these shapes."""
    import ncnn

    converted = _by_pnnx(task)
    network = ncnn.Net()
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = False
    network.opt.use_fp16_arithmetic = network.opt.use_bf16_storage = False
    if task.threads:
        network.opt.num_threads = task.threads
    if network.load_param(f"{converted}.param") or network.load_model(f"{converted}.bin"):
        raise ModelError("ncnn refuses what pnnx made of the model")
    values = [ncnn.Mat(array, batch_index=0).clone() for array in task.feed.values()]
    names = [f"out{place}" for place in range(len(task.outputs))]

    def run() -> Sequence[object]:
        extractor = network.create_extractor()
        for place, value in enumerate(values):
            extractor.input(f"in{place}", value)
        found = [extractor.extract(name) for name in names]
        if any(failed for failed, _ in found):
            raise ModelError("ncnn cannot run what pnnx made of the model")
        return [np.array(mat.numpy(batch_index=0)) for _, mat in found]

    return run


def _by_pnnx(task: Task) -> Path:
    """Return what the names of ncnn's two files begin with."""
    # Its Python module imports torch; the program inside needs nothing.
    spec = importlib.util.find_spec("pnnx")
    program = Path(((spec and spec.submodule_search_locations) or [""])[0], "pnnx")
    shapes = [
        f"[{','.join(map(str, array.shape))}]{array.dtype.kind}{8 * array.dtype.itemsize}"
        for array in task.feed.values()
    ]
    # It reads no data files, and writes beside the model.
    onnx.save_model(onnx.load(task.model), "whole.onnx")
    line = [str(program), "whole.onnx", f"inputshape={','.join(shapes)}", "fp16=0"]
    said = subprocess.run(line, capture_output=True, text=True, check=False, errors="replace")
    made = Path("whole.ncnn").absolute()
    refused = _PNNX_REFUSES.search(said.stdout + said.stderr)
    if said.returncode or refused or not Path(f"{made}.bin").exists():
        why = refused.group().strip() if refused else f"it ended with exit code {said.returncode}"
        raise RuntimeError(f"pnnx cannot convert the model: {why}")
    return made


def _mnn(task: Task, flags: Sequence[str]) -> Run:
    # Never the script `mnnconvert` nor MNN.tools: they run `pip install` and send logs away.
    import _tools
    import MNN.expr
    import MNN.nn

    converted = os.path.abspath("converted.mnn")
    line = ["mnnconvert", "-f", "ONNX", "--modelFile", str(task.model), "--MNNModel", converted]
    _tools.mnnconvert([*line, "--bizCode", "MNN", *flags])
    if not Path(converted).exists():
        raise ModelError("MNN's converter refuses the model")
    network = MNN.nn.load_module_from_file(
        converted,
        list(task.feed),
        list(task.outputs),
        precision_mode=MNN.expr.PrecisionMode.High,
        thread_num=task.threads or 4,
    )
    values = [_mnn_constant(MNN.expr, array) for array in task.feed.values()]

    def run() -> Sequence[object]:
        found = network.forward(values)
        results = found if isinstance(found, (list, tuple)) else [found]
        ordered = [MNN.expr.convert(one, MNN.expr.data_format.NCHW) for one in results]
        return [np.array(one.read()) for one in ordered]  # nothing is computed before it is read

    return run


def _mnn_constant(expr: Any, array: Array) -> object:  # noqa: ANN401 - a module of MNN
    if array.dtype.kind == "f":
        kind, values = expr.float, array.astype(np.float32)
    elif array.dtype == np.uint8:
        kind, values = expr.uint8, array
    else:
        kind, values = expr.int, array.astype(np.int32)  # it computes whole numbers in 32 bits
    return expr.const(np.ascontiguousarray(values), list(array.shape), expr.data_format.NCHW, kind)


def _tract_fact(array: Array) -> str:
    """Return shape and type as tract writes them.

    >>> _tract_fact(np.ones((1, 3), np.float32)), _tract_fact(np.array(2))
    ('1,3,f32', 'i64')
    """
    kind = array.dtype.name
    letters = kind.rstrip("0123456789")
    short = _TRACT_TYPES.get(letters, letters) + kind.removeprefix(letters)
    return ",".join([*map(str, array.shape), short])
