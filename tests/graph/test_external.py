"""External data is found wherever it is, opened only where it is safe, edited in blocks."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import WEIGHT, inline, model_of, outside, sentence, written

from onnx_relief.errors import ModelError
from onnx_relief.graph import external
from onnx_relief.graph.document import Document, load, parse_file
from onnx_relief.graph.external import ExternalEdit, apply_edits, data_files, shared_bytes, tensors
from onnx_relief.graph.storage import read

SIZE = WEIGHT.nbytes


def refusal(path):
    with pytest.raises(ModelError) as caught:
        load(path)
    text = sentence(caught)
    assert str(path) in text
    assert "'w'" in text
    return text


def test_reads_at_offset(tmp_path):
    tensor = outside(offset=5, length=SIZE)
    document = load(written(tmp_path, tensor, w_bin=b"12345" + WEIGHT.tobytes() + b"tail"))
    assert np.array_equal(read(document, document.proto.graph.initializer[0]), WEIGHT)


LEAVING = ["", ".", "..", "/etc/passwd", "../w.bin", "sub/../../w.bin", "a/../w.bin", "w\0.bin"]
LEAVING_ON_WINDOWS = ["C:\\w.bin", "\\w.bin", "..\\w.bin", "sub\\..\\..\\w.bin", "//host/share/w"]


@pytest.mark.parametrize("location", LEAVING + LEAVING_ON_WINDOWS)
def test_refuses_location_that_may_leave_the_folder(tmp_path, location):
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "in" / "a").mkdir(parents=True)
    path = written(tmp_path / "in", outside(location=location))
    assert "outside the model's folder" in refusal(path)


def test_refuses_link_to_a_file_outside(tmp_path):
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    path = written(tmp_path / "in")
    (tmp_path / "in" / "w.bin").unlink()
    (tmp_path / "in" / "w.bin").symlink_to(tmp_path / "secret")
    assert "outside the model's folder" in refusal(path)


def test_refuses_folder_that_is_a_link_outside(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "w.bin").write_bytes(WEIGHT.tobytes())
    path = written(tmp_path / "in", outside(location="sub/w.bin"))
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "other")
    assert "outside the model's folder" in refusal(path)


def test_refuses_neighbour_folder_whose_name_begins_alike(tmp_path):
    written(tmp_path / "in-secret")
    path = written(tmp_path / "in")
    (tmp_path / "in" / "w.bin").unlink()
    (tmp_path / "in" / "w.bin").symlink_to(tmp_path / "in-secret" / "w.bin")
    assert "outside the model's folder" in refusal(path)


def test_follows_links_inside_the_folder(tmp_path):
    path = written(tmp_path, outside(location="link.bin"), w_bin=WEIGHT.tobytes())
    (tmp_path / "link.bin").symlink_to("w.bin")
    assert load(path).has_external_data


def test_follows_links_of_a_download_cache(tmp_path):
    blob = written(tmp_path / "blobs", outside(location="data"), name="1f", w_bin=b"")
    (tmp_path / "blobs" / "2e").write_bytes(WEIGHT.tobytes())
    snapshot = tmp_path / "snapshots"
    snapshot.mkdir()
    (snapshot / "model.onnx").symlink_to(blob)
    (snapshot / "data").symlink_to("../blobs/2e")
    document = load(snapshot / "model.onnx")
    assert np.array_equal(read(document, document.proto.graph.initializer[0]), WEIGHT)


def test_refuses_missing_file(tmp_path):
    path = written(tmp_path)
    (tmp_path / "w.bin").unlink()
    assert "'w.bin'" in refusal(path)


def test_refuses_what_is_not_a_regular_file(tmp_path):
    path = written(tmp_path)
    (tmp_path / "w.bin").unlink()
    os.mkfifo(tmp_path / "w.bin")
    assert "regular file" in refusal(path)
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").mkdir()
    assert "regular file" in refusal(path)


def test_refuses_links_in_a_circle(tmp_path):
    path = written(tmp_path)
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").symlink_to("w.bin")
    assert "cannot be opened" in refusal(path)


BEYOND = [{"offset": 1}, {"offset": SIZE}, {"offset": 4, "length": SIZE}, {"offset": 10**18}]
WRONG = [{"length": SIZE - 4}, {"length": SIZE + 4}, {"length": 0}]
NOT_NUMBERS = ["-4", "4.0", "0x4", " 4", "1_0", "", "٣", "9" * 5000]


@pytest.mark.parametrize("entries", BEYOND)
def test_refuses_data_beyond_the_end_of_the_file(tmp_path, entries):
    assert "the file ends at" in refusal(written(tmp_path, outside(**entries)))


@pytest.mark.parametrize("entries", WRONG)
def test_refuses_length_that_does_not_match_the_shape(tmp_path, entries):
    assert f"need {SIZE}" in refusal(written(tmp_path, outside(**entries)))


@pytest.mark.parametrize("text", NOT_NUMBERS)
@pytest.mark.parametrize("key", ["offset", "length"])
def test_refuses_numbers_that_are_none(tmp_path, key, text):
    assert "not a number of bytes" in refusal(written(tmp_path, outside(**{key: text})))


def test_refuses_impossible_tensors(tmp_path):
    tensor = outside()
    tensor.dims[0] = -4
    assert "negative size" in refusal(written(tmp_path, tensor))
    for data_type in (TensorProto.STRING, TensorProto.UNDEFINED, 99):
        tensor = outside()
        tensor.data_type = data_type
        assert "element type" in refusal(written(tmp_path, tensor))


def tensors_everywhere():
    """Return a model with one tensor in each place that can hold one, all external."""
    body = helper.make_graph([], "body", [], [], [outside("in body")])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Constant", [], ["c"], value=outside("in constant")),
        helper.make_node("If", ["k"], ["z"], then_branch=body, else_branch=body),
        helper.make_node("Many", [], ["m"], domain="acme", several=[outside("in list")]),
        helper.make_node("Many", [], ["n"], domain="acme", graphs=[body]),
    ]
    proto = model_of(outside("in graph"), nodes=nodes)
    sparse = onnx.SparseTensorProto(values=outside("values"), indices=outside("indices"))
    proto.graph.sparse_initializer.append(sparse)
    for attribute in (helper.make_attribute("s", sparse), helper.make_attribute("t", [sparse])):
        proto.graph.node[1].attribute.append(attribute)
    function = proto.functions.add(name="f", domain="acme")
    function.node.extend([nodes[1]])
    function.attribute_proto.append(helper.make_attribute("d", outside("default")))
    proto.training_info.add().algorithm.initializer.append(outside("in training"))
    return proto


def test_finds_tensors_everywhere():
    proto = tensors_everywhere()
    names = [tensor.name for tensor in tensors(proto)]
    assert names.count("in body") == 3
    assert names.count("values") == names.count("indices") == 3
    assert {"in graph", "in constant", "in list", "default", "in training"} <= set(names)
    assert len(names) == proto.SerializeToString().count(b"w.bin")


def test_checks_references_everywhere(tmp_path):
    proto = model_of(inline(), outside())
    constant = helper.make_node("Constant", [], ["c"], value=outside("hidden", location="../w"))
    body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", 1, None)])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "k"))
    proto.graph.node.append(
        helper.make_node("If", ["k"], ["z"], then_branch=body, else_branch=body)
    )
    path = written(tmp_path)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="'hidden'"):
        load(path)


def test_one_file_under_several_spellings(tmp_path):
    path = written(tmp_path, outside(location="./w.bin"), outside("v"))
    assert data_files(load(path)) == {"w.bin": tmp_path / "w.bin"}


def test_tells_which_tensors_share_bytes(tmp_path):
    half = np.zeros(6, np.float32)
    path = written(
        tmp_path,
        outside("a", half, offset=0),
        outside("b", half, offset=24),
        outside("c", half, offset=40),
        outside("d", half, offset=0, location="v.bin"),
        outside("e", np.zeros(0, np.float32), offset=30),
        outside("f", half, offset=64),
        w_bin=bytes(100),
        v_bin=bytes(24),
    )
    assert shared_bytes(parse_file(path)) == {
        ("w.bin", 24): "'b' and 'c'",
        ("w.bin", 40): "'b' and 'c'",
    }


def test_tensors_with_the_same_bytes_share_them(tmp_path):
    path = written(tmp_path, outside("a"), outside("b", location="./w.bin"))
    assert shared_bytes(parse_file(path)) == {("w.bin", 0): "'a' and 'b'"}


@given(
    st.lists(st.integers(0, 99), max_size=60),
    st.integers(4, 120),
    st.integers(0, 3),
    st.booleans(),
)
def test_edits_change_exactly_what_they_say(positions, block_bytes, offset, each):
    data = np.arange(100, dtype=np.float32) + 1
    expected = data.copy()
    chosen = np.isin(np.arange(100), positions)
    values = -np.arange(chosen.sum()) if each else np.array([-5])
    expected[chosen] = values
    file = io.BytesIO(bytes(offset) + data.tobytes())
    edit = ExternalEdit(
        location="w",
        offset=offset,
        places=np.packbits(chosen),
        size=4,
        value=values.astype(np.float32).tobytes(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "BLOCK_BYTES", block_bytes)
        apply_edits(file, [edit])
    assert file.getvalue() == bytes(offset) + expected.tobytes()


def test_real_path_is_returned_for_relative_model_paths(tmp_path, monkeypatch):
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    document = load(Path("model.onnx"))
    monkeypatch.chdir("/")
    assert np.array_equal(read(document, document.proto.graph.initializer[0]), WEIGHT)


def test_document_of_a_folder_without_a_file(tmp_path):
    written(tmp_path)
    document = Document(proto=model_of(outside()), folder=tmp_path, name="model")
    assert np.array_equal(read(document, document.proto.graph.initializer[0]), WEIGHT)
