"""Sizes and work, against numbers counted by hand."""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import onnx
import pytest
from classifier import cnn, mlp, written
from small_models import outside
from small_models import written as written_outside
from text_models import build, random

from onnx_relief.errors import ModelError
from onnx_relief.graph.cost import cost_of, total_bytes, zipped_bytes
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.save import save
from onnx_relief.graph.storage import write_entries


def cost(model, **positions):
    return cost_of(find_layers(load(model)), positions)


def test_layers_are_counted_in_connections_weights_and_units():
    conv, linear = cost(cnn()).layers
    assert (conv.connections, conv.weights, conv.units) == (8, 72, 4)
    assert (linear.connections, linear.weights, linear.units) == (12, 12, 3)
    assert (conv.kept, conv.nonzero, conv.alive) == (8, 72, 4)


def test_zeros_are_seen_per_weight_kernel_and_unit():
    model = cnn()
    kernels = random(4, 2, 3, 3, seed=1)
    kernels[0], kernels[1, 0], kernels[2, 0, 0, 0] = 0, 0, 0
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(kernels, "k"))
    conv = cost(model).layers[0]
    assert (conv.kept, conv.nonzero, conv.alive) == (8 - 2 - 1, 72 - 18 - 9 - 1, 3)


def test_macs_are_weights_times_positions():
    found = cost(cnn(), conv=64.0, fc=1.0)
    assert found.macs == 72 * 64 + 12
    assert found.effective_macs == found.macs
    assert found.unmeasured == ()


def test_layers_without_positions_are_named():
    found = cost(cnn(), fc=1.0)
    assert found.macs == 12
    assert found.unmeasured == ("conv",)
    assert cost(cnn()).macs is None


def test_parameters_are_all_floating_point_constants():
    weight = random(6, 5)
    weight[2] = 0
    found = cost(mlp(w1=weight))
    assert (found.parameters, found.nonzero) == (30 + 15, 25 + 15)


def test_a_weight_that_two_layers_share_counts_once():
    model = build(
        "(float[N,4] x) => (float[N,4] y) { h = MatMul (x, w)  y = MatMul (h, w) }", w=random(4, 4)
    )
    assert cost(model).parameters == 16
    assert sum(layer.weights for layer in cost(model).layers) == 32


def test_quantized_weights_are_zero_at_their_zero_point():
    stored = np.array([[3, 3, 5], [1, 3, 0]], dtype=np.uint8)
    model = build(
        """(float[N,2] x) => (float[N,3] y) {
            w = DequantizeLinear (q, scale, zero)  y = MatMul (x, w)
        }""",
        q=stored,
        scale=np.float32(0.5),
        zero=np.uint8(3),
    )
    found = cost(model)
    assert (found.parameters, found.nonzero) == (6 + 1, 3 + 1)
    assert found.layers[0].nonzero == 3


def test_zero_points_of_units_are_looked_at_unit_by_unit():
    graph = """(float[N,2] x) => (float[N,3] y) {
        d = DequantizeLinear <axis = 0> (q, scale, zero)
        w = Transpose <perm = [1, 0]> (d)
        y = MatMul (x, w)
    }"""
    stored = np.array([[1, 2], [2, 2], [0, 3]], dtype=np.int8)
    scale, zero = np.full(3, 0.5, np.float32), np.array([1, 2, 3], np.int8)
    found = cost(build(graph, q=stored, scale=scale, zero=zero))
    assert found.nonzero == 1 + 0 + 1 + 3
    assert found.layers[0].nonzero == 2


def test_a_zero_point_behind_a_transpose_is_found():
    graph = """(float[N,2] x) => (float[N,3] y) {
        t = Transpose <perm = [1, 0]> (q)
        w = DequantizeLinear <axis = 1> (t, scale, zero)
        y = MatMul (x, w)
    }"""
    stored = np.array([[1, 2], [2, 2], [0, 3]], dtype=np.int8)
    scale, zero = np.full(3, 0.5, np.float32), np.array([1, 2, 3], np.int8)
    assert cost(build(graph, q=stored, scale=scale, zero=zero)).nonzero == 2 + 3


def test_weights_of_integer_operators_count_although_they_are_no_layers():
    graph = "(int8[N,2] x) => (int32[N,3] y) { y = MatMulInteger (x, q) }"
    found = cost(build(graph, q=np.array([[0, 1, 2], [3, 4, 0]], dtype=np.int8)))
    assert (found.parameters, found.nonzero, found.layers) == (6, 4, ())


def test_text_and_indices_are_no_parameters():
    graph = """(float[N,6] x) => (float[N,2,3] y, string[1] t) {
        y = Reshape (x, shape)
        t = Constant <value_strings = ["a"]> ()
    }"""
    assert cost(build(graph, shape=np.array([-1, 2, 3]))).parameters == 0


def test_repeated_numbers_are_counted_as_what_they_stand_for():
    model = build(
        """(float[N,4] x) => (float[N,3] y) {
            s = Constant <value_ints = [4, 3]> ()
            w = ConstantOfShape <value = float[1] {0.5}> (s)
            y = MatMul (x, w)
        }"""
    )
    assert (cost(model).parameters, cost(model).nonzero) == (12, 12)
    model.graph.node[1].attribute[0].t.float_data[0] = 0
    assert (cost(model).parameters, cost(model).nonzero) == (12, 0)


def test_bytes_and_digest_are_those_of_the_file(tmp_path):
    path = written(tmp_path, mlp())
    content = path.read_bytes()
    (file,) = cost(path).files
    assert (file.name, file.plain) == ("model.onnx", len(content))
    assert file.zipped == len(zlib.compress(content, 6))
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_data_files_belong_to_the_model(tmp_path):
    path = written_outside(tmp_path / "m", outside())
    found = cost(path)
    assert [file.name for file in found.files] == ["model.onnx", "w.bin"]
    assert found.plain == path.stat().st_size + 48 == total_bytes(load(path))
    assert found.parameters == 12


def test_a_model_in_memory_has_the_size_it_would_have(tmp_path):
    assert cost(mlp()).plain == written(tmp_path, mlp()).stat().st_size


def test_every_byte_is_told(tmp_path):
    told = []
    document = load(written(tmp_path, mlp()))
    cost_of(find_layers(document), {}, tick=told.append)
    assert sum(told) == total_bytes(document)


def test_pending_edits_have_to_be_written_first(tmp_path):
    document = load(written_outside(tmp_path / "m", outside()))
    edited = write_entries(document, document.proto.graph.initializer[0], np.array([1]), 0)
    with pytest.raises(ValueError, match="edits"):
        cost_of(find_layers(edited), {})


def test_a_file_that_vanished_is_named(tmp_path):
    path = written(tmp_path, mlp())
    survey = find_layers(load(path))
    path.unlink()
    with pytest.raises(ModelError, match=r"model\.onnx cannot be read"):
        cost_of(survey, {})


def test_pending_edits_of_data_files_are_zipped_with_the_model(tmp_path):
    weight = random(40, 30)
    path = written_outside(tmp_path / "m", outside(values=weight), w_bin=weight.tobytes())
    document = load(path)
    places = np.arange(0, weight.size, 2)
    edited = write_entries(document, document.proto.graph.initializer[0], places, 0)
    assert zipped_bytes(document) == cost(path).zipped
    save(edited, tmp_path / "edited.onnx")
    assert zipped_bytes(edited) == cost(tmp_path / "edited.onnx").zipped < zipped_bytes(document)
