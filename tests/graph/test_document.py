"""Loading refuses what is not a model in one sentence, and keeps everything of what is one."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import EncodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import (
    WEIGHT,
    inline,
    model_of,
    outside,
    real_files,
    sentence,
    without_privileges,
    written,
)
from text_models import build, function, random, run

import onnx_relief
from onnx_relief.errors import ModelError
from onnx_relief.graph import document as document_module
from onnx_relief.graph.document import check, input_specs, load, opset, output_specs, serialise


def refusal(source):
    with pytest.raises(ModelError) as caught:
        load(source)
    return sentence(caught)


def test_real_files_load_and_pass_the_checker():
    assert len(real_files()) >= 100
    for path in real_files():
        document = load(path)
        assert document.proto == onnx.load(path, load_external_data=False)
        assert document.folder == path.parent


def test_document_knows_its_file_and_name(tmp_path, monkeypatch):
    written(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    document = load("in/model.onnx")
    assert document.name == "in/model.onnx"
    assert document.folder == tmp_path / "in"
    assert document.has_external_data


def test_given_model_is_copied_and_not_changed():
    proto = model_of(inline())
    before = proto.SerializeToString()
    document = load(proto)
    document.proto.graph.name = "changed"
    assert proto.SerializeToString() == before
    assert (document.name, document.folder, document.has_external_data) == ("model", None, False)


def test_copy_can_be_changed_alone():
    document = load(model_of(inline()))
    copied = document.copy()
    assert copied.proto == document.proto
    copied.proto.graph.name = "changed"
    assert document.proto.graph.name == "graph"


NOT_MODELS = {
    "empty": (b"", "is empty"),
    "text": (b"epoch,loss\n1,0.5\n2,0.4\n", "not an ONNX model"),
    "random": (np.random.default_rng(0).bytes(5000), "not an ONNX model"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip archive"),
    "hdf5": (b"\x89HDF\r\n" + bytes(100), "HDF5"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "TensorFlow Lite"),
    "ort": (b"\x1c\0\0\0ORTM" + bytes(100), "ONNX Runtime"),
    "tensor": (inline().SerializeToString(), "not an ONNX model"),
    "no graph": (helper.make_opsetid("", 17).SerializeToString(), "not an ONNX model"),
}


@pytest.mark.parametrize(("data", "reason"), NOT_MODELS.values(), ids=NOT_MODELS)
def test_refuses_what_is_not_a_model(tmp_path, data, reason):
    path = tmp_path / "thing.onnx"
    path.write_bytes(data)
    text = refusal(path)
    assert reason in text
    assert str(path) in text


@pytest.mark.parametrize("field", ["graph", "opset_import"])
def test_refuses_model_without_its_essence(field):
    proto = model_of(inline())
    proto.ClearField(field)
    assert f"has no {field}" in refusal(proto)


def test_refuses_graph_without_nodes():
    proto = model_of(inline())
    del proto.graph.node[:]
    assert "has no node" in refusal(proto)


def test_refuses_truncated_file_wherever_it_ends(tmp_path):
    data = model_of(inline()).SerializeToString()
    path = tmp_path / "model.onnx"
    for size in range(1, len(data) - len(b"\x42\x04\x0a\x00\x10\x11")):
        path.write_bytes(data[:size])
        refusal(path)


def test_refuses_folder_missing_file_and_pipe(tmp_path):
    assert "is a folder" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "none.onnx")
    assert "does not exist" in refusal("")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))
    assert "cannot be read" in refusal("model\0.onnx")


def test_refuses_file_without_permission():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = written(Path(folder), inline())
        path.chmod(0)
        with without_privileges():
            assert "may not be read" in refusal(path)


def test_refuses_file_over_two_gigabytes_without_reading_it(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert "2 GB" in refusal(path)


def test_refuses_memory_model_with_external_data():
    assert "give the path" in refusal(model_of(outside()))


def test_tells_the_first_sentence_of_the_checker():
    proto = model_of(inline())
    proto.graph.node[0].input[1] = "nowhere"
    text = refusal(proto)
    assert "model is not a valid ONNX model" in text
    assert "topologically sorted" in text
    assert "Context" not in text


def test_checks_model_with_external_data_and_leaves_it_as_it_is(tmp_path):
    document = load(written(tmp_path))
    before = document.proto.SerializeToString()
    check(document)
    assert document.proto.SerializeToString() == before
    document.proto.graph.node[0].input[1] = "nowhere"
    with pytest.raises(ModelError, match="topologically"):
        check(document)


def test_refuses_model_from_the_future():
    proto = model_of(inline())
    proto.ir_version = 999
    assert "ir_version" in refusal(proto)


def test_loads_unknown_operator_domains():
    proto = model_of(inline(), nodes=[helper.make_node("Magic", ["x", "w"], ["y"], domain="acme")])
    proto.opset_import.append(helper.make_opsetid("acme", 3))
    assert opset(load(proto).proto) == 17


@pytest.mark.parametrize("version", [6, 7, 8, 9])
def test_loads_old_model_with_weights_among_inputs(version):
    proto = model_of(inline())
    proto.ir_version = 3
    proto.opset_import[0].version = version
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    document = load(proto)
    assert [spec.name for spec in input_specs(document.proto)] == ["x"]
    assert opset(document.proto) == version


def test_refuses_names_that_are_not_text(tmp_path):
    path = written(tmp_path, inline())
    path.write_bytes(path.read_bytes().replace(b"fc", b"\xff\xfe"))
    assert "UTF-8" in refusal(path)


def test_specs_tell_type_and_shape():
    proto = model_of(inline())
    optional = helper.make_optional_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT16, [2])
    )
    sequence = helper.make_sequence_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    proto.graph.input.extend(
        [
            helper.make_value_info("maybe", optional),
            helper.make_value_info("list", sequence),
            helper.make_tensor_value_info("any", TensorProto.BFLOAT16, None),
            helper.make_tensor_value_info("free", TensorProto.INT64, [None, -1, "T", 5]),
            helper.make_tensor_value_info("unknown", TensorProto.UNDEFINED, []),
        ]
    )
    x, maybe, listed, anything, free, unknown = input_specs(proto)
    assert (x.dtype, x.shape, x.optional) == (np.float32, ("N", 4), False)
    assert (maybe.dtype, maybe.shape, maybe.optional) == (np.float16, (2,), True)
    assert (listed.dtype, listed.shape) == (None, None)
    assert (anything.dtype.name, anything.shape) == ("bfloat16", None)
    assert free.shape == (None, None, "T", 5)
    assert (unknown.dtype, unknown.shape) == (None, ())
    assert output_specs(proto)[0].describe() == "float32 (N, 3)"


def test_inputs_backed_by_sparse_initializers_are_not_fed():
    proto = model_of(inline())
    sparse = helper.make_sparse_tensor(
        inline("s", np.ones(1, np.float32)), inline("i", np.zeros(1, np.int64)), [4]
    )
    proto.graph.sparse_initializer.append(sparse)
    proto.graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [4]))
    assert [spec.name for spec in input_specs(proto)] == ["x"]


def test_opset_of_either_spelling_or_none():
    proto = model_of(inline())
    proto.opset_import[0].domain = "ai.onnx"
    assert opset(proto) == 17
    proto.opset_import[0].domain = "ai.onnx.ml"
    assert opset(proto) == 0


class FullProto:
    def SerializeToString(self, deterministic):
        raise EncodeError(f"Failed to serialize proto (deterministic={deterministic})")


def test_model_that_protobuf_cannot_write_is_a_clear_error():
    with pytest.raises(ModelError, match="2 GB"):
        serialise(FullProto(), "model")


def test_too_large_a_model_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(document_module, "MAX_PROTO_BYTES", 100)
    with pytest.raises(ModelError, match="save_as_external_data") as caught:
        serialise(model_of(inline()), "model")
    sentence(caught)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_file_loads_or_is_refused(tmp_path_factory, data):
    good = bytearray(model_of(inline(values=WEIGHT[:1])).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(good)
    with suppress(ModelError):
        document = load(path)
        assert document.proto.graph.node
        input_specs(document.proto)


def test_an_output_without_a_shape_is_taken_as_runtimes_take_it():
    model = build("(float[N,4] x) => (float[N,3] y) { y = MatMul (x, w) }", w=random(4, 3))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    before = model.SerializeToString()
    found = onnx_relief.prune(model, random(20, 4), sparsity=0.5, criterion="wanda").model
    assert not found.graph.output[0].type.tensor_type.HasField("shape")
    assert run(found, {"x": random(5, 4)})[0].shape == (5, 3)
    assert model.SerializeToString() == before


GROUPS = "GroupNormalization <num_groups = 2>"


@pytest.mark.parametrize(
    ("body", "functions"),
    [
        (f"y = {GROUPS} (x, s, s)", ""),
        ("y = my.norm (x, s)", function("norm", "(x, s) => (y)", f"y = {GROUPS} (x, s, s)", 18)),
        (
            f"c = Constant <value = bool {{1}}> ()  y = If (c) <"
            f"then_branch = a () => (float[N,4,6] t) {{ t = {GROUPS} (x, s, s) }},"
            "else_branch = b () => (float[N,4,6] e) { e = Neg (x) }>",
            "",
        ),
    ],
)
def test_an_operator_that_onnx_took_back_is_left_to_the_runtime(body, functions):
    model = build(
        f"(float[N,4,6] x) => (float[N,4,6] y) {{ {body} }}",
        functions=functions,
        opset=18,
        ir=9,
        s=np.ones(2, np.float32),
    )
    with pytest.raises(onnx.checker.ValidationError, match="deprecated"):
        onnx.checker.check_model(model)
    assert load(model).proto == model
    assert run(model, {"x": np.ones((1, 4, 6), np.float32)})[0].shape == (1, 4, 6)


def test_what_else_is_wrong_beside_such_an_operator_is_refused():
    model = build(
        f"(float[N,4,6] x) => (float[N,4,6] y) {{ z = {GROUPS} (x, s, s) y = Relu (z, z) }}",
        opset=18,
        s=np.ones(2, np.float32),
    )
    with pytest.raises(ModelError, match="is not a valid ONNX model"):
        load(model)


def test_a_graph_without_a_name_is_read():
    model = build("(float[N,4] x) => (float[N,3] y) { y = MatMul (x, w) }", w=np.ones((4, 3), "f4"))
    model.graph.name = ""
    with pytest.raises(onnx.checker.ValidationError, match="name"):
        onnx.checker.check_model(model)
    assert load(model).proto == model
    assert run(model, {"x": np.ones((1, 4), np.float32)})[0].shape == (1, 3)


def test_what_an_optimiser_added_to_an_old_file_need_not_be_an_input():
    text = "(float[N,4] x) => (float[N,3] y) { y = MatMul (x, w) }"
    model = build(text, ir=3, opset=7, w=np.ones((4, 3), np.float32))
    with pytest.raises(onnx.checker.ValidationError, match="not in graph input"):
        onnx.checker.check_model(model)
    assert load(model).proto == model
    assert run(model, {"x": np.ones((1, 4), np.float32)})[0].shape == (1, 3)
