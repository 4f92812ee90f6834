"""A pruned model finds the dense one it came from, and nothing else."""

from __future__ import annotations

import logging
from dataclasses import replace

import onnx
import pytest
from text_models import build, random

from onnx_relief.graph.document import load
from onnx_relief.graph.origin import DIGEST_KEY, FILE_KEY, find_dense, note_dense, noted_name


def model():
    return build("(float[N,6] x) => (float[N,3] y) { y = MatMul (x, w) }", w=random(6, 3))


@pytest.fixture
def dense(tmp_path):
    path = tmp_path / "dense.onnx"
    onnx.save_model(model(), path)
    return load(path)


@pytest.fixture
def pruned(tmp_path, dense):
    path = tmp_path / "dense.pruned.onnx"
    onnx.save_model(note_dense(dense, dense).proto, path)
    return load(path)


def test_the_dense_model_is_found_beside_the_pruned_one(pruned, dense):
    assert find_dense(pruned) == dense.path


def test_the_dense_model_itself_stays_as_it_is(dense):
    before = dense.proto.SerializeToString()
    assert noted_name(note_dense(dense, dense)) == "dense.onnx"
    assert dense.proto.SerializeToString() == before


def test_the_first_dense_model_counts(pruned):
    assert noted_name(note_dense(pruned, pruned)) == "dense.onnx"


def test_another_file_of_that_name_is_not_taken(pruned, dense, caplog):
    dense.path.write_bytes(dense.path.read_bytes() + b"\0")
    with caplog.at_level(logging.WARNING):
        assert find_dense(pruned) is None
    assert "is not the model" in caplog.text


@pytest.mark.parametrize("name", ["../dense.onnx", "/etc/passwd", "", "gone.onnx"])
def test_a_note_leads_nowhere_else(pruned, name):
    for entry in pruned.proto.metadata_props:
        if entry.key == FILE_KEY:
            entry.value = name
    assert find_dense(pruned) is None


def test_a_model_from_memory_leaves_no_note():
    found = load(model())
    assert not note_dense(found, found).proto.metadata_props


def test_a_name_that_is_not_utf8_leaves_no_note(dense):
    found = replace(dense, path=dense.path.with_name("n\udcff.onnx"))
    assert not note_dense(found, found).proto.metadata_props


def test_only_name_and_digest_are_noted(pruned):
    assert {entry.key for entry in pruned.proto.metadata_props} == {FILE_KEY, DIGEST_KEY}
    assert "/" not in noted_name(pruned)
