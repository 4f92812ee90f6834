from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_relief import data
from onnx_relief.data import open_data
from onnx_relief.data.sources import is_same_data
from onnx_relief.errors import DataError


def test_the_public_names_are_these() -> None:
    names = {"PRESETS", "Batch", "Dataset", "Preprocess", "first_sample", "open_data"}
    assert set(data.__all__) == names


@pytest.mark.parametrize(
    "name", ["missing.npz", "missing", "missing:train", "a.npz:train:x", "a" * 5000]
)
def test_what_does_not_exist_is_named(tmp_path: Path, spec: Any, name: Any) -> None:
    with pytest.raises(DataError, match=f"{name} does not exist; give a folder"):
        open_data(tmp_path / name, [spec("N", 2)])


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.csv", "none of the forms of data"), ("a.png", "single picture has to lie in a folder")],
)
def test_other_files_are_refused(tmp_path: Path, spec: Any, name: Any, message: Any) -> None:
    (tmp_path / name).write_bytes(b"1,2,3")
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / name, [spec("N", 2)])


def test_an_empty_folder_is_named(tmp_path: Path, spec: Any) -> None:
    (tmp_path / "calib").mkdir()
    with pytest.raises(DataError, match="calib is empty; give"):
        open_data(tmp_path / "calib", [spec("N", 3, 4, 4)])


def test_a_folder_without_pictures_is_named(tmp_path: Path, spec: Any) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="holds no pictures"):
        open_data(tmp_path, [spec("N", 3, 4, 4)])


def test_a_colon_in_a_file_name_is_no_split(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "a:train.npy", np.zeros((2, 3), np.float32))
    assert open_data(tmp_path / "a:train.npy", [spec("N", 3)]).size == 2


def test_a_split_of_a_folder_may_hold_feeds(tmp_path: Path, spec: Any) -> None:
    for split, length in (("train", 1), ("test", 2)):
        (tmp_path / split).mkdir()
        np.savez(tmp_path / split / "0.npz", x=np.zeros((length, 3), np.float32))
    (batch,) = open_data(f"{tmp_path}:test", [spec("N", 3)]).batches(1)
    assert batch.feed["x"].shape == (2, 3)


def test_the_same_data_by_other_paths_is_the_same(tmp_path: Path) -> None:
    array = np.zeros((2, 3), np.float32)
    np.savez(tmp_path / "a.npz", x=array)
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    one = tmp_path / "a.npz"
    for same in (None, one, str(one), f"{tmp_path}/./a.npz", tmp_path / "link.npz"):
        assert is_same_data(one, same)
    assert is_same_data(f"{one}:test", f"{tmp_path}/link.npz:test")
    assert is_same_data(array, array)
    for other in (f"{one}:test", tmp_path / "b.npz", array):
        assert not is_same_data(one, other)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.zip", "feeds/0.npz", "test/input_0.pb"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, spec: Any, name: Any) -> None:
    pipe = tmp_path / name
    pipe.parent.mkdir(exist_ok=True)
    os.mkfifo(pipe)
    source = pipe if pipe.parent == tmp_path else pipe.parent
    with pytest.raises(DataError, match=f"{name} is a pipe, .*; give a file"):
        open_data(source, [spec("N", 3, 4, 4)])


def test_hidden_files_are_no_feeds(tmp_path: Path, spec: Any) -> None:
    np.savez(tmp_path / "0.npz", x=np.zeros((2, 3), np.float32))
    (tmp_path / "._0.npz").write_bytes(b"left by a Mac")
    assert open_data(tmp_path, [spec("N", 3)]).size == 1
    (tmp_path / "0.npz").unlink()
    with pytest.raises(DataError, match="holds no pictures"):
        open_data(tmp_path, [spec("N", 3, 4, 4)])


@pytest.mark.parametrize("source", [3, None, 2.5, b"abc"])
def test_what_is_no_data_is_refused(spec: Any, source: Any) -> None:
    with pytest.raises(DataError, match=r"data cannot be a|is a int; give"):
        open_data(source, [spec("N", 3)])


def test_a_model_without_inputs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave --data out"):
        open_data(tmp_path, [])
