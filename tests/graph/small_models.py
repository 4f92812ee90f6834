"""Small models for the tests of loading, saving and editing, and a way to run code apart."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_relief.errors
from onnx_relief.errors import OutputError
from onnx_relief.graph.document import load
from onnx_relief.graph.save import save
from onnx_relief.graph.storage import write_entries

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) + 1


def model_of(*weights, nodes=None):
    """Return a model y = x @ w with these tensors as initializers."""
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def inline(name="w", values=WEIGHT):
    return onnx.numpy_helper.from_array(values, name)


def outside(name="w", values=WEIGHT, **entries):
    """Return a tensor that says its data is in a file; entries that are None are left out."""
    tensor = TensorProto(name=name, dims=values.shape, data_location=TensorProto.EXTERNAL)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
    for key, value in {"location": "w.bin", **entries}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def written(folder, *weights, name="model.onnx", **files):
    """Write a model with these initializers, and data files (`w_bin` is w.bin); its path."""
    folder.mkdir(exist_ok=True, parents=True)
    for file, data in (files or {"w_bin": WEIGHT.tobytes()}).items():
        (folder / file.replace("_", ".")).write_bytes(data)
    path = folder / name
    path.write_bytes(model_of(*(weights or [outside()])).SerializeToString())
    return path


@contextmanager
def without_privileges():
    """Become a user that permissions apply to."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def real_files():
    """Return the models that the onnx package brings along, and ours."""
    backend = Path(onnx.__file__).parent / "backend" / "test" / "data"
    ours = Path(__file__).parents[2] / "models"
    return [*sorted(backend.rglob("*.onnx")), *sorted(ours.glob("*.onnx"))]


def in_another_process(code, *arguments, timeout=120):
    """Run Python code with the package importable; returns the finished process."""
    root = Path(onnx_relief.errors.__file__).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(root), str(Path(__file__).parent))),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def sentence(caught):
    """Return the text of an error after checking that it is one line that says what to do."""
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text or "export it" in text
    return text


def weights(path):
    """Return all initializers as an independent reader sees them, after its own check."""
    onnx.checker.check_model(str(path))
    loaded = onnx.load(path)
    return {w.name: onnx.numpy_helper.to_array(w) for w in loaded.graph.initializer}


def edited(path, position=1):
    document = load(path)
    return write_entries(document, document.proto.graph.initializer[0], np.array([position]), 0)


def expected(position=1):
    values = WEIGHT.copy()
    values.reshape(-1)[position] = 0
    return values


def files_in(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def save_refusal(document, path, **options):
    """Return why saving is refused, after checking that nothing has changed in the folder."""
    folder = Path(path).parent
    before = files_in(folder) if folder.is_dir() else None
    with pytest.raises(OutputError) as caught:
        save(document, path, **options)
    assert before is None or files_in(folder) == before
    assert str(path) in str(caught.value) or str(folder) in str(caught.value)
    return sentence(caught)
