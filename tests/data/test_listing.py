from __future__ import annotations

from typing import Any

import pytest

from onnx_relief.data.listing import list_pictures
from onnx_relief.errors import DataError


def listed(entries: Any, split: Any = None) -> Any:
    found = list_pictures(entries, split, "data.zip")
    return list(found.paths), None if found.labels is None else list(found.labels)


def test_folders_are_classes_in_sorted_order() -> None:
    paths, labels = listed(["n02/b.JPEG", "n01/a.jpg", "n02/c.png", "readme.txt"])
    assert paths == ["n01/a.jpg", "n02/b.JPEG", "n02/c.png"]
    assert labels == [0, 1, 1]


def test_without_folders_there_are_no_labels() -> None:
    assert listed(["b.png", "a.png"]) == (["a.png", "b.png"], None)


def test_a_single_folder_is_a_single_class() -> None:
    assert listed(["cats/a.png", "cats/b.png"]) == (["cats/a.png", "cats/b.png"], [0, 0])


@pytest.mark.parametrize(
    "junk", [["set/"], ["__MACOSX/set/a/._1.png"], [".git/x.png", "notes.txt"]]
)
def test_what_wraps_everything_is_passed_over(junk: Any) -> None:
    paths, labels = listed(["set/a/1.png", "set/b/2.png", *junk])
    assert paths == ["set/a/1.png", "set/b/2.png"]
    assert labels == [0, 1]


def test_an_empty_class_keeps_its_number() -> None:
    assert listed(["a/", "b/", "c/", "a/1.png", "c/1.png"])[1] == [0, 2]


def test_pictures_in_deeper_folders_belong_to_the_class_above() -> None:
    assert listed(["a/x/1.png", "a/y/2.png", "b/3.png"])[1] == [0, 0, 1]


SPLIT = ["s/train/a/1.png", "s/train/b/2.png", "s/test/b/3.png", "s/test/b/4.png"]


@pytest.mark.parametrize("wrapping", ["", "s/"])
def test_a_split_has_the_class_numbers_of_all_splits(wrapping: Any) -> None:
    entries = [wrapping + path.removeprefix("s/") for path in SPLIT]
    paths, labels = listed(entries, "test")
    assert paths == [f"{wrapping}test/b/3.png", f"{wrapping}test/b/4.png"]
    assert labels == [1, 1]


def test_a_lone_split_can_be_named_or_not() -> None:
    only = [path for path in SPLIT if "train" in path]
    assert listed(only, "train") == listed(only)


def test_a_split_must_be_chosen() -> None:
    with pytest.raises(DataError, match=r"data\.zip:train or data\.zip:test"):
        listed(SPLIT)


@pytest.mark.parametrize("beside", [[], ["docs/sample.png"], ["sample.png"]])
@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Test")])
def test_splits_are_no_classes(beside: Any, names: Any) -> None:
    train, test = names
    entries = [f"{train}/a/1.png", f"{train}/b/2.png", f"{test}/b/3.png", *beside]
    with pytest.raises(DataError, match=rf"data\.zip:{train} or data\.zip:{test}"):
        listed(entries)
    assert listed(entries, test) == ([f"{test}/b/3.png"], [1])


def test_a_train_may_be_a_class() -> None:
    assert listed(["bus/1.png", "train/2.png"])[1] == [0, 1]


def test_a_split_that_does_not_exist() -> None:
    with pytest.raises(DataError, match=r"no pictures in a folder 'val'; .* test, train"):
        listed(SPLIT, "val")


def test_pictures_beside_class_folders_are_refused() -> None:
    with pytest.raises(DataError, match=r"beside its class folders, loose\.png"):
        listed(["a/1.png", "loose.png"])


@pytest.mark.parametrize("entries", [[], ["a/", "a/notes.txt"], ["dir.png/"]])
def test_no_pictures_are_refused(entries: Any) -> None:
    with pytest.raises(DataError, match=r"data\.zip holds no pictures"):
        listed(entries)
