"""Reports, plans and scores: complete or not there at all."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from onnx_relief.errors import OutputError
from onnx_relief.files import (
    aside_of,
    check_distinct,
    check_output,
    check_output_folder,
    remove_asides,
    staged_files,
    write_file,
)
from onnx_relief.scores import write_scores


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(data):
    return lambda file: file.write(data)


def test_a_file_is_written(tmp_path):
    write_file(tmp_path / "a", "-o", write(b"new"))
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_a_failure_while_writing_leaves_what_was_there(tmp_path):
    def full(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a").write_text("old")
    with pytest.raises(OutputError, match=r"a cannot be written \(no space left on device\); cho"):
        write_file(tmp_path / "a", "-o", full, force=True)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_without_commit_nothing_gets_its_name(tmp_path):
    with staged_files(force=False) as files:
        files.add(tmp_path / "a", "-o", write(b"new"))
        assert names(tmp_path) != ["a"]
    assert names(tmp_path) == []


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path):
    with staged_files(force=False) as files:
        files.add(tmp_path / "a", "-o", write(b"new"))
        (tmp_path / "a").write_text("theirs")
        with pytest.raises(OutputError, match="appeared meanwhile"):
            files.commit()
    assert (tmp_path / "a").read_text() == "theirs"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("there", "exists already"),
        ("folder", "is a folder; name a file in it with --x"),
        ("no/a", "the folder .*no does not exist"),
        ("there/a", "the folder .*there does not exist"),
    ],
)
def test_a_place_that_will_not_do_is_said_before(tmp_path, place, sentence):
    (tmp_path / "there").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=sentence):
        check_output(tmp_path / place, "--x", force=False)


def test_checking_leaves_no_trace(tmp_path):
    check_output(tmp_path / "a", "-o", force=False)
    check_output_folder(tmp_path / "b", "-o", force=False)
    assert names(tmp_path) == []


def test_a_folder_to_fill_has_to_be_empty_or_forced(tmp_path):
    check_output_folder(tmp_path, "--x", force=False)
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match="is not empty"):
        check_output_folder(tmp_path, "--x", force=False)
    check_output_folder(tmp_path, "--x", force=True)
    with pytest.raises(OutputError, match="is not a folder"):
        check_output_folder(tmp_path / "a", "--x", force=True)


def test_two_outputs_need_two_names(tmp_path):
    check_distinct([("-o", tmp_path / "a"), ("--report", tmp_path / "b")])
    with pytest.raises(OutputError, match="-o and --report both name"):
        check_distinct([("-o", tmp_path / "a"), ("--report", tmp_path / "x" / ".." / "a")])


def test_leftovers_of_this_process_are_swept(tmp_path):
    target = tmp_path / "[m].onnx"
    aside_of(target).mkdir()
    aside_of(target).write_text("")
    other = tmp_path / f".[m].onnx.{os.getpid() + 1}.abcd"
    other.write_text("")
    remove_asides([target])
    assert names(tmp_path) == [other.name]


def test_scores_are_the_same_bytes_and_come_back(tmp_path):
    scores = {"file": np.eye(2), "a/b": np.ones(3), "../c\0d": np.zeros((1, 2), np.float32)}
    for name in ("1.npz", "2.npz"):
        write_file(tmp_path / name, "-o", lambda file: write_scores(file, scores))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz") as loaded:
        assert sorted(loaded) == ["../c_d", "a/b", "file"]
        np.testing.assert_array_equal(loaded["file"], np.eye(2))
