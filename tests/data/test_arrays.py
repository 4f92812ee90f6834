from __future__ import annotations

import logging
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnx_relief.data import open_data
from onnx_relief.data.arrays import NpzColumn
from onnx_relief.data.npz import read_headers
from onnx_relief.errors import DataError


@pytest.fixture
def values() -> Any:
    return np.random.default_rng(1).normal(size=(37, 3, 4)).astype(np.float32)


def as_forms(folder: Path, values: Any) -> Any:
    fortran = np.asfortranarray(values)
    np.savez(folder / "stored.npz", any_name=values)
    np.savez_compressed(folder / "small.npz", x=values)
    np.savez_compressed(folder / "fortran.npz", x=fortran)
    np.save(folder / "plain.npy", values)
    np.save(folder / "fortran.npy", fortran)
    np.savez(folder / "split.npz", train_images=values, test_images=values[::-1])
    np.savez(folder / "named.npz", train_x=values, test_x=values[::-1])
    files = sorted(str(file) for file in folder.iterdir())
    files = [
        f"{file}:train" if file.endswith(("split.npz", "named.npz")) else file for file in files
    ]
    return [*files, values, {"x": values}, values.astype(">f4"), values.astype(np.float64)]


@pytest.mark.parametrize("samples", [None, 1, 10, 36])
def test_every_form_gives_the_same_samples(
    tmp_path: Path, spec: Any, walk: Any, values: Any, samples: Any
) -> None:
    wanted, _ = walk(open_data(values, [spec("N", 3, 4)]).take(samples), 37)
    for form in as_forms(tmp_path, values):
        fed, _ = walk(open_data(form, [spec("N", 3, 4)]).take(samples), 5)
        assert fed["x"].dtype == np.float32
        assert np.array_equal(fed["x"], wanted["x"]), form


@given(hnp.arrays(np.int16, hnp.array_shapes(max_dims=3, max_side=30)), st.data())
def test_any_rising_rows_come_out_of_a_stream(
    tmp_path_factory: pytest.TempPathFactory, array: Any, data: Any
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.npz"
    np.savez_compressed(path, a=array)
    chosen = data.draw(st.sets(st.integers(0, len(array) - 1), min_size=1))
    rows = np.array(sorted(chosen), dtype=np.int64)
    chunks = np.array_split(rows, min(3, len(rows)))
    read = NpzColumn(path, "a", read_headers(path)["a"]).read(chunks)
    assert np.array_equal(np.concatenate(list(read)), array[rows])


def test_labels_of_a_split_belong_to_its_images(tmp_path: Path, spec: Any, walk: Any) -> None:
    images = np.arange(10, dtype=np.float32)[:, None]
    np.savez(
        tmp_path / "a.npz",
        train_images=images,
        train_labels=np.arange(10),
        test_images=images[:2],
        test_labels=np.array([8, 9]),
    )
    fed, labels = walk(open_data(f"{tmp_path}/a.npz:train", [spec("N", 1)]).take(4))
    assert fed["x"].ravel().tolist() == labels.tolist()
    assert walk(open_data(f"{tmp_path}/a.npz:test", [spec("N", 1)]))[1].tolist() == [8, 9]


@pytest.mark.parametrize("name", ["big.npz", "big.npy"])
@pytest.mark.parametrize("samples", [None, 50])
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, spec: Any, name: Any, samples: Any
) -> None:
    values = np.zeros((4000, 1000), np.float32)  # 16 MB
    save = np.save if name.endswith("npy") else np.savez_compressed
    save(tmp_path / name, values)
    data = open_data(tmp_path / name, [spec("N", 1000)]).take(samples)
    tracemalloc.start()
    count = sum(batch.count for batch in data.batches(50))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == data.size
    assert peak < 4e6


def test_an_unfinished_walk_leaves_no_file_open(tmp_path: Path, spec: Any) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((10, 2), np.float32))
    walk: Any = open_data(tmp_path / "a.npz", [spec("N", 2)]).batches(1)
    next(walk)
    walk.close()
    (tmp_path / "a.npz").unlink()
    with pytest.raises(StopIteration):
        next(walk)


@pytest.mark.parametrize("split", ["", ":val"])
def test_splits_are_named(tmp_path: Path, spec: Any, split: Any) -> None:
    np.savez(tmp_path / "a.npz", train_images=np.zeros((1, 2)), test_images=np.zeros((1, 2)))
    with pytest.raises(DataError, match=r"a\.npz:train or .*a\.npz:test"):
        open_data(f"{tmp_path}/a.npz{split}", [spec("N", 2)])


def test_a_split_of_what_has_none(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 2)))
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 2)))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=r"without splits|no 'train_' arrays, it holds 'x'"):
            open_data(f"{tmp_path}/{name}:train", [spec("N", 2)])


def test_several_inputs_come_from_one_file(tmp_path: Path, spec: Any, walk: Any) -> None:
    inputs = [spec("N", 4, 4, name="image", dtype="uint8"), spec("N", name="state")]
    arrays: dict[str, Any] = {
        "image": np.arange(96, dtype=np.uint8).reshape(6, 4, 4),
        "state": np.arange(6.0),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    fed, _ = walk(open_data(tmp_path / "a.npz", inputs), 4)
    assert all(np.array_equal(fed[name], arrays[name]) for name in arrays)


def test_samples_may_be_empty(tmp_path: Path, spec: Any, walk: Any) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 0), np.float32))
    assert walk(open_data(tmp_path / "a.npz", [spec("N", 0)]))[0]["x"].shape == (3, 0)


def test_other_members_of_an_npz_are_passed_over(tmp_path: Path, spec: Any) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 2), np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("README.txt", "hello")
    assert open_data(tmp_path / "a.npz", [spec("N", 2)]).size == 1


@pytest.mark.parametrize(
    ("name", "inputs", "said"),
    [("z", 1, True), ("x", 1, False), ("train_images:train", 1, False), ("y", 2, True)],
)
def test_an_array_of_another_name_is_taken_aloud(
    tmp_path: Path, spec: Any, caplog: pytest.LogCaptureFixture, name: str, inputs: int, said: bool
) -> None:
    name, *split = name.split(":")
    path = tmp_path / "a.npz"
    np.savez(path, **{name: np.zeros((3, 2), np.float32)})
    specs = [spec("N", 2), spec("N", 2, name="maybe", optional=True)]
    with caplog.at_level(logging.WARNING):
        assert open_data(":".join([str(path), *split]), specs[:inputs]).size == 3
    sentence = f"{path} has no array 'x', so {name!r} is taken for that input of the model"
    assert caplog.messages == ([sentence] if said else [])
