"""Reading gives what the standard reader gives; writing changes these entries and no other bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import WEIGHT, inline, model_of, outside, sentence, written

from onnx_relief.errors import ModelError, UnsupportedError
from onnx_relief.graph.document import Document, load, parse_file
from onnx_relief.graph.storage import drop_sparse_entries, read, read_sparse, write_entries

NUMBERS = [
    np.float32, np.float64, np.float16, np.int8, np.uint8, np.int16, np.uint16, np.int32,
    np.uint32, np.int64, np.uint64, np.bool_, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
]  # fmt: skip
PACKED = [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float4_e2m1fn]
INDICES = np.array([1, 5, 6], np.int64)


def document_of(*weights):
    return Document(proto=model_of(*weights), folder=None, name="model")


def typed(values):
    """Return a tensor that keeps its values in the typed field of its type."""
    tensor = TensorProto(name="w", dims=values.shape)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
    field = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
    is_small_float = values.dtype.kind not in "biu" and values.dtype.itemsize < 4
    if values.dtype == bool:
        values = values.astype(int)
    if is_small_float:
        values = values.view(f"u{values.dtype.itemsize}")
    field.extend(values.ravel().tolist())
    return tensor


def stored(tensor):
    """Return names of the fields of a tensor that hold something."""
    return {field.name for field, _ in tensor.ListFields()}


def same(left, right):
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and left.tobytes() == right.tobytes()
    )


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("keep", [inline, typed])
def test_write_changes_these_entries_and_keeps_the_field(dtype, keep):
    values = np.arange(1, 13).reshape(4, 3).astype(dtype)
    tensor = keep(values=values)
    document = document_of(tensor)
    tensor = document.proto.graph.initializer[0]
    before = stored(tensor)
    assert same(read(document, tensor), values)
    assert write_entries(document, tensor, np.array([7, 0, 7]), 0) is document
    values.reshape(-1)[[0, 7]] = 0
    assert same(read(document, tensor), values)
    assert same(onnx.numpy_helper.to_array(tensor), values)
    assert stored(tensor) == before


@pytest.mark.parametrize("dtype", NUMBERS)
def test_external_write_is_an_edit_that_reading_shows(tmp_path, dtype):
    values = np.arange(1, 13).reshape(4, 3).astype(dtype)
    path = written(tmp_path, outside(values=values, offset=3), w_bin=b"abc" + values.tobytes())
    document = load(path)
    tensor = document.proto.graph.initializer[0]
    assert same(read(document, tensor), values)
    edited = write_entries(document, tensor, np.array([7, 0, 7]), 0)
    assert same(read(document, tensor), values)
    values.reshape(-1)[[0, 7]] = 0
    assert same(read(edited, tensor), values)
    assert (len(document.edits), len(edited.edits)) == (0, 1)
    assert edited.proto is document.proto
    assert (tmp_path / "w.bin").read_bytes()[:3] == b"abc"


@pytest.mark.parametrize("keep", [inline, typed])
def test_bits_of_other_entries_survive(keep):
    values = np.array([0x7FA00001, 0xFFC12345, 0x80000000, 1], np.uint32).view(np.float32)
    document = document_of(inline())
    tensor = document.proto.graph.initializer[0]
    tensor.CopyFrom(keep(values=values))
    before = tensor.SerializeToString()
    write_entries(document, tensor, np.array([3]), 0.0)
    mark = values[3].tobytes()
    assert tensor.SerializeToString() == before.replace(mark, bytes(4))


def test_negative_zero_and_rounding_of_floats():
    document = document_of(inline(values=np.ones(3, np.float16)))
    tensor = document.proto.graph.initializer[0]
    write_entries(document, tensor, np.array([0]), -0.0)
    write_entries(document, tensor, np.array([1]), 0.1)
    assert read(document, tensor).tobytes() == np.array([-0.0, 0.1, 1], np.float16).tobytes()


@pytest.mark.parametrize("keep", [inline, typed])
def test_writing_nothing_changes_nothing(keep):
    document = document_of(keep(values=WEIGHT))
    before = document.proto.SerializeToString()
    write_entries(document, document.proto.graph.initializer[0], np.array([], int), 0)
    assert document.proto.SerializeToString() == before


def test_writing_nothing_outside_makes_no_edit(tmp_path):
    document = load(written(tmp_path))
    assert write_entries(document, document.proto.graph.initializer[0], np.array([]), 0) is document


@pytest.mark.parametrize("position", [-1, 12])
def test_position_outside_is_a_bug(position):
    document = document_of(inline())
    with pytest.raises(IndexError):
        write_entries(document, document.proto.graph.initializer[0], np.array([0, position]), 0)


def test_mask_instead_of_positions_is_a_bug():
    document = document_of(inline())
    with pytest.raises(TypeError):
        write_entries(document, document.proto.graph.initializer[0], np.ones(12, bool), 0)


@pytest.mark.parametrize("value", [300, -129, 0.5])
def test_integers_take_only_what_they_hold(value):
    document = document_of(inline(values=np.zeros(3, np.int8)))
    with pytest.raises(ValueError, match="int8"):
        write_entries(document, document.proto.graph.initializer[0], np.array([0]), value)


@pytest.mark.parametrize("dtype", PACKED)
def test_packed_types_are_read_but_not_written(tmp_path, dtype):
    values = np.array([0, 1, 2, 3, 4], np.float32).astype(dtype)
    document = document_of(inline(values=values))
    tensor = document.proto.graph.initializer[0]
    assert same(read(document, tensor), values)
    there = outside(values=values)
    document = load(written(tmp_path, there, w_bin=tensor.raw_data))
    assert same(read(document, there), values)
    for packed in (tensor, there):
        with pytest.raises(UnsupportedError, match="--skip"):
            write_entries(document, packed, np.array([0]), 0)


@pytest.mark.parametrize("values", [np.array(["a", "b"], object), np.ones(2, np.complex64)])
def test_strings_and_complex_numbers_are_read_but_not_written(values):
    document = document_of(onnx.numpy_helper.from_array(values, "w"))
    tensor = document.proto.graph.initializer[0]
    assert np.array_equal(read(document, tensor), values)
    with pytest.raises(UnsupportedError):
        write_entries(document, tensor, np.array([0]), 0)


def test_what_is_read_cannot_be_written_to(tmp_path):
    document = parse_file(written(tmp_path, outside(), inline("v"), typed(WEIGHT)))
    edited = write_entries(document, document.proto.graph.initializer[0], np.array([0]), 0)
    for tensor in document.proto.graph.initializer:
        for values in (read(document, tensor), read(edited, tensor)):
            with pytest.raises(ValueError, match="read-only"):
                values[0] = 1


def test_scalars_and_empty_tensors(tmp_path):
    for values in (np.array(2.5, np.float32), np.zeros((0, 3), np.float32)):
        path = written(tmp_path, outside(values=values), w_bin=values.tobytes())
        document = load(path)
        assert same(read(document, document.proto.graph.initializer[0]), values)
        assert same(read(document, inline(values=values)), values)
        assert same(read(document, typed(values)), values)


@pytest.mark.parametrize("keep", [inline, typed])
@pytest.mark.parametrize("size", [3, 5, 2**40])
def test_refuses_data_that_does_not_fit_the_shape(keep, size):
    tensor = keep(values=np.ones(4, np.float32))
    tensor.dims[0] = size
    document = document_of(tensor)
    for act in (lambda: read(document, tensor), lambda: write_entries(document, tensor, [0], 0)):
        with pytest.raises(ModelError) as caught:
            act()
        sentence(caught)


@pytest.mark.parametrize("data_type", [0, 99])
def test_refuses_tensor_without_known_type(data_type):
    tensor = inline()
    tensor.data_type = data_type
    with pytest.raises(ModelError, match="export"):
        read(document_of(), tensor)
    with pytest.raises(UnsupportedError):
        write_entries(document_of(), tensor, np.array([0]), 0)


def test_map_that_fails_is_told(tmp_path, monkeypatch):
    document = load(written(tmp_path))

    def failing(*_args, **_options):
        raise OSError("no memory for maps")

    monkeypatch.setattr(np, "memmap", failing)
    with pytest.raises(ModelError, match="no memory for maps"):
        read(document, document.proto.graph.initializer[0])


def sparse_of(indices, keep=inline, values=None, dims=(2, 4)):
    values = np.array([1, 2, 3], np.float32) if values is None else values
    sparse = helper.make_sparse_tensor(keep(values=values), keep(values=indices), dims)
    return sparse


LAYOUTS = [INDICES, np.stack(np.unravel_index(INDICES, (2, 4)), axis=1)]


@pytest.mark.parametrize("keep", [inline, typed])
@pytest.mark.parametrize("indices", LAYOUTS, ids=["linear", "coordinates"])
def test_dropped_sparse_entries_read_as_zero(keep, indices):
    sparse = sparse_of(indices, keep)
    fields = stored(sparse.values), stored(sparse.indices)
    drop_sparse_entries(sparse, np.array([5, 0]))
    onnx.checker.check_sparse_tensor(sparse)
    assert read_sparse(document_of(), sparse).tolist() == [[0, 1, 0, 0], [0, 0, 3, 0]]
    assert (stored(sparse.values), stored(sparse.indices)) == fields
    assert list(sparse.values.dims) == [2]
    assert list(sparse.indices.dims) == [2, *indices.shape[1:]]


@pytest.mark.parametrize("indices", LAYOUTS, ids=["linear", "coordinates"])
def test_all_sparse_entries_may_go(indices):
    sparse = sparse_of(indices)
    drop_sparse_entries(sparse, np.arange(8))
    assert not read_sparse(document_of(), sparse).any()
    onnx.checker.check_sparse_tensor(sparse)


@given(st.lists(st.integers(0, 7), unique=True), st.lists(st.integers(0, 7)))
def test_dropping_equals_zeroing_the_dense_array(indices, dropped):
    values = np.arange(1, len(indices) + 1, dtype=np.float32)
    sparse = sparse_of(np.array(sorted(indices), np.int64), values=values)
    expected = read_sparse(document_of(), sparse).copy()
    expected.reshape(-1)[dropped] = 0
    before = sparse.SerializeToString()
    drop_sparse_entries(sparse, np.array(dropped, int))
    assert same(read_sparse(document_of(), sparse), expected)
    assert set(indices) & set(dropped) or sparse.SerializeToString() == before


@pytest.mark.parametrize("bad", [[[1, 9]], [1, 2, 8], [-1, 2, 3], [[1, 2, 3]], [1, 2], [[0, -1]]])
def test_refuses_sparse_indices_that_do_not_fit(bad):
    sparse = sparse_of(np.array(bad, np.int64))
    with pytest.raises(ModelError) as caught:
        read_sparse(document_of(), sparse)
    sentence(caught)


def test_sparse_data_in_a_file_is_read_but_not_dropped(tmp_path):
    values = np.array([1, 2, 3], np.float32)
    sparse = sparse_of(INDICES, values=values)
    sparse.values.CopyFrom(outside(values=values))
    document = load(written(tmp_path, w_bin=WEIGHT.tobytes()))
    assert read_sparse(document, sparse).sum() == 6
    with pytest.raises(UnsupportedError):
        drop_sparse_entries(sparse, np.array([1]))
