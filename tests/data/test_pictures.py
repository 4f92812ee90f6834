from __future__ import annotations

import os
import shutil
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_relief.data import Preprocess, open_data, pictures
from onnx_relief.data.pictures import FolderFiles, _in_order
from onnx_relief.errors import DataError, SettingsError

RAW = Preprocess(scale=1)


def zipped(folder: Path, **options: Any) -> Any:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", **options) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def break_picture(folder: Path, name: Any = "bee/05.png") -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[:70])


@pytest.mark.parametrize("samples", [None, 1, 5])
def test_folder_zip_and_array_give_the_same(
    folder: Path, pixels: Any, spec: Any, walk: Any, samples: Any
) -> None:
    array = {"x": np.moveaxis(pixels, -1, 1), "labels": np.repeat([0, 1, 2], 4)}
    wanted, classes = walk(open_data(array, [spec("N", 3, 6, 8)], preprocess=RAW).take(samples))
    for make in (
        Path,
        str,
        zipped,
        lambda folder: zipped(folder, compression=zipfile.ZIP_DEFLATED),
    ):
        data = open_data(make(folder), [spec("N", 3, 6, 8)], preprocess=RAW).take(samples)
        fed, labels = walk(data, 3)
        assert np.array_equal(fed["x"], wanted["x"])
        assert labels.tolist() == classes.tolist()


def test_layouts_and_colours(folder: Path, pixels: Any, spec: Any, walk: Any) -> None:
    last, _ = walk(open_data(folder, [spec("N", 6, 8, 3)], preprocess=RAW))
    assert np.array_equal(last["x"], pixels)
    bgr = Preprocess(scale=1, color="bgr", layout="flat")
    flat, _ = walk(open_data(folder, [spec("N", 144)], preprocess=bgr))
    assert np.array_equal(flat["x"], pixels[..., ::-1].reshape(12, 144))
    gray, _ = walk(open_data(folder, [spec("N", 1, 6, 8)], preprocess=RAW))
    assert np.abs(gray["x"][:, 0] - pixels @ [0.299, 0.587, 0.114]).max() < 1


def test_a_description_counts_classes(folder: Path, spec: Any) -> None:
    data = open_data(folder, [spec("N", 3, 6, 8)], preprocess=RAW)
    assert data.description == f"{folder} (12 samples, 3 classes)"


def test_broken_pictures_are_left_out_and_named(
    folder: Path, pixels: Any, spec: Any, walk: Any
) -> None:
    break_picture(folder)
    break_picture(folder, "ant/00.png")
    data = open_data(folder, [spec(4, 3, 6, 8)], preprocess=RAW)
    fed, labels = walk(data)
    assert np.array_equal(fed["x"], np.moveaxis(np.delete(pixels, [0, 5], axis=0), -1, 1))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert list(data.skipped) == ["ant/00.png", "bee/05.png"]
    assert all(data.skipped.values())


def test_only_what_a_dataset_holds_counts_as_skipped(folder: Path, spec: Any, walk: Any) -> None:
    break_picture(folder)
    data = open_data(folder, [spec("N", 3, 6, 8)], preprocess=RAW)
    walk(data)
    assert data.take(1).skipped == {}


@pytest.mark.parametrize("make", [lambda folder: folder, zipped])
def test_strict_stops_at_a_broken_picture(folder: Path, spec: Any, make: Any) -> None:
    break_picture(folder)
    data = open_data(make(folder), [spec("N", 3, 6, 8)], preprocess=RAW, strict=True)
    with pytest.raises(DataError, match=r"bee/05\.png .* is broken .*--strict"):
        list(data.batches(4))


def test_all_pictures_broken(folder: Path, spec: Any) -> None:
    for file in folder.rglob("*.png"):
        file.write_bytes(b"")
    data = open_data(folder, [spec("N", 3, 6, 8)], preprocess=RAW)
    with pytest.raises(
        DataError, match=r"none of the 12 pictures .* ant/00\.png \(the file is empt"
    ):
        list(data.batches(4))


def test_damage_inside_a_zip_breaks_one_picture(folder: Path, spec: Any, walk: Any) -> None:
    path = zipped(folder)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("cat/09.png").header_offset
    data = bytearray(path.read_bytes())
    data[start + 60 : start + 90] = bytes(30)
    path.write_bytes(data)
    opened = open_data(path, [spec("N", 3, 6, 8)], preprocess=RAW)
    assert len(walk(opened)[0]["x"]) == 11
    assert list(opened.skipped) == ["cat/09.png"]


def test_a_picture_that_vanishes_is_skipped(folder: Path, spec: Any, walk: Any) -> None:
    data = open_data(folder, [spec("N", 3, 6, 8)], preprocess=RAW)
    (folder / "ant" / "02.png").unlink()
    assert len(walk(data)[0]["x"]) == 11
    assert "No such file" in data.skipped["ant/02.png"]


def test_a_picture_that_resizing_would_blow_up_is_skipped(
    folder: Path, spec: Any, walk: Any
) -> None:
    Image.fromarray(np.zeros((9000, 1, 3), np.uint8)).save(folder / "ant" / "thin.png")
    said = Preprocess(scale=1, resize=256, crop=4)
    data = open_data(folder, [spec("N", 3, 4, 4)], preprocess=said)
    assert len(walk(data)[0]["x"]) == 12
    assert "256 x 2304000 pixels" in data.skipped["ant/thin.png"]


def test_different_sizes_are_named(folder: Path, spec: Any) -> None:
    Image.new("RGB", (5, 7)).save(folder / "cat" / "odd.png")
    data = open_data(folder, [spec("N", 3, "H", "W")], preprocess=RAW)
    message = r"ant/00\.png 6 x 8 and cat/odd\.png 7 x 5; give .*--resize 6x8"
    for batch_size in (1, 50):
        with pytest.raises(DataError, match=message):
            list(data.batches(batch_size))


@pytest.mark.parametrize(
    ("shape", "said", "error", "message"),
    [
        (("N", 3, 9, 9), {}, DataError, r"shape \(6, 8, 3\), .*--resize 9x9 makes it fit"),
        (("N", 3, 9, 9), {"crop": 4}, DataError, "--resize 9x9 --crop 9x9 makes it fit"),
        (("N", 3, 6, 8), {"scale": None}, DataError, "--scale 1/255 or --preset"),
        (("N", 3, 9, 9), {"scale": None}, DataError, "--resize 9x9 makes it fit, with --scale 1/"),
        (("N", "C", "H", "W"), {}, SettingsError, "--layout nchw, --layout nhwc or"),
        (("N", 144), {}, SettingsError, "--layout flat"),
        (("N", 144), {"layout": "flat"}, DataError, "--color rgb makes it fit"),
        (("N", 64), {"layout": "flat"}, DataError, "--resize 8x8 makes it fit"),
        (("N", 1, 6, 8), {"color": "bgr"}, SettingsError, "bgr have 3.*--color gray"),
        (("N", 3, 6, 8), {"crop": 7}, DataError, r"ant/00\.png .* 6 x 8 .*--resize 7 or more"),
    ],
)
def test_pictures_that_do_not_suit_the_model(
    folder: Path, spec: Any, shape: Any, said: Any, error: Any, message: Any
) -> None:
    with pytest.raises(error, match=message):
        open_data(folder, [spec(*shape)], preprocess=Preprocess(**({"scale": 1} | said)))


def test_pictures_feed_one_input(folder: Path, spec: Any) -> None:
    with pytest.raises(DataError, match="the model takes 'a', 'b'"):
        open_data(folder, [spec("N", 3, 6, 8, name="a"), spec("N", name="b")], preprocess=RAW)


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "ant").symlink_to(folder / "ant")
    (tmp_path / "linked" / "ant" / "circle").symlink_to(tmp_path / "linked")
    entries = FolderFiles(tmp_path / "linked").entries()
    assert sorted(entry for entry in entries if entry.endswith(".png")) == [
        f"ant/{index:02}.png" for index in range(4)
    ]


def test_two_classes_may_link_to_one_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    for name in ("a", "b"):
        (tmp_path / "linked" / name).symlink_to(folder / "ant")
    pictures = [e for e in FolderFiles(tmp_path / "linked").entries() if e.endswith(".png")]
    assert sorted(pictures) == [f"{name}/{index:02}.png" for name in "ab" for index in range(4)]


@pytest.mark.parametrize("named", [lambda path: path.replace("/", "\\"), lambda path: f"./{path}"])
def test_members_of_a_zip_have_classes_however_their_paths_are_written(
    folder: Path, spec: Any, walk: Any, named: Any
) -> None:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("./", b"")
        for file in sorted(folder.rglob("*.png")):
            archive.writestr(named(file.relative_to(folder).as_posix()), file.read_bytes())
    data = open_data(path, [spec("N", 3, 6, 8)], preprocess=RAW)
    fed, labels = walk(data)
    assert np.array_equal(
        fed["x"], walk(open_data(folder, [spec("N", 3, 6, 8)], preprocess=RAW))[0]["x"]
    )
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_split_of_a_folder_and_of_its_zip(folder: Path, spec: Any, walk: Any) -> None:
    root = folder.parent / "both"
    shutil.copytree(folder, root / "train")
    shutil.copytree(folder / "cat", root / "test" / "cat")
    for path in (root, zipped(root)):
        _, labels = walk(open_data(f"{path}:test", [spec("N", 3, 6, 8)], preprocess=RAW))
        assert labels.tolist() == [2, 2, 2, 2]
        with pytest.raises(DataError, match=f"{path}:train or {path}:test"):
            open_data(path, [spec("N", 3, 6, 8)])
        with pytest.raises(DataError, match="no pictures in a folder 'val'; its folders are test"):
            open_data(f"{path}:val", [spec("N", 3, 6, 8)])


@pytest.mark.parametrize("make", [lambda folder: folder, zipped])
def test_a_huge_file_is_not_read(
    folder: Path, spec: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "ant" / "huge.png").write_bytes(bytes(5000))
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 4000)
    data = open_data(make(folder), [spec("N", 3, 6, 8)], preprocess=RAW)
    assert sum(batch.count for batch in data.batches(5)) == 12
    assert "5000 bytes" in data.skipped["ant/huge.png"]


def test_a_pipe_among_pictures_is_skipped(folder: Path, spec: Any) -> None:
    os.mkfifo(folder / "ant" / "pipe.png")
    data = open_data(folder, [spec("N", 3, 6, 8)], preprocess=RAW)
    assert sum(batch.count for batch in data.batches(5)) == 12
    assert data.skipped["ant/pipe.png"] == "it is no file"


def test_a_folder_that_vanishes_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone is damaged or cannot be read"):
        FolderFiles(tmp_path / "gone").entries()


def test_work_is_done_a_bounded_number_of_rows_ahead() -> None:
    asked = []

    def rows() -> Any:
        for row in range(1000):
            asked.append(row)
            yield row

    results: Any = _in_order(lambda row: row * 2, rows())
    assert [next(results) for _ in range(5)] == [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8)]
    assert len(asked) <= 5 + 2 * 8
    results.close()


def test_an_unfinished_walk_stops_its_threads(folder: Path, spec: Any) -> None:
    walk: Any = open_data(folder, [spec("N", 3, 6, 8)], preprocess=RAW).batches(2)
    next(walk)
    walk.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]
