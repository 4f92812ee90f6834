from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_relief.data import open_data
from onnx_relief.data.npz import fill
from onnx_relief.errors import DataError


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


def npy(array: Any) -> Any:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def headed(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


def broken_forms() -> Any:
    good = npy(np.arange(4000, dtype=np.float32).reshape(1000, 4))
    objects = np.array([Bomb(), None], dtype=object)
    yield "objects", npy(objects), "pickled Python objects.*save it again"
    yield "pickle", pickle.dumps(Bomb()), "not a .npy array"
    yield "cut short", good[:-100], "cut short"
    yield "only a header", good[:40], "not a .npy array"
    yield "empty", b"", "not a .npy array"
    yield "new version", good[:6] + b"\x09" + good[7:], "not a .npy array|unknown .npy version"
    yield "records", npy(np.zeros(2, dtype=[("a", "f4")])), "not numbers"
    for header in (b"{'descr': (", b"    {\n  1", b"(" * 300, b"{1: 2, 'descr': 3}"):
        yield f"header {header[:9]!r}", headed(header), "not a .npy array"
    shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4), }\n"
    yield "negative", headed(shape), r"not a .npy array .it has shape \(-3, 4\)"
    yield "dates", npy(np.zeros(2, dtype="M8[s]")), "not numbers"


CASES = [pytest.param(data, message, id=name) for name, data, message in broken_forms()]


@pytest.mark.parametrize(("data", "message"), CASES)
def test_damaged_npy_is_named(tmp_path: Path, spec: Any, data: Any, message: Any) -> None:
    (tmp_path / "bad.npy").write_bytes(data)
    with pytest.raises(DataError, match=rf"bad\.npy.*({message})"):
        open_data(tmp_path / "bad.npy", [spec("N", 4)])


@pytest.mark.parametrize(("data", "message"), CASES)
def test_damaged_member_of_npz_is_named(tmp_path: Path, spec: Any, data: Any, message: Any) -> None:
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("pictures.npy", data)
    with pytest.raises(DataError, match=rf"array 'pictures' of .*bad\.npz.*({message})"):
        open_data(tmp_path / "bad.npz", [spec("N", 4)])


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not really", pickle.dumps({"x": Bomb()})])
def test_what_is_no_archive_is_named(tmp_path: Path, spec: Any, data: Any) -> None:
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"bad\.npz is damaged"):
        open_data(tmp_path / "bad.npz", [spec("N", 4)])


def test_an_archive_without_arrays(tmp_path: Path, spec: Any) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(DataError, match="holds no arrays"):
        open_data(tmp_path / "a.npz", [spec("N", 4)])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_in_the_middle_shows_while_walking(tmp_path: Path, spec: Any, save: Any) -> None:
    values = np.random.default_rng(0).integers(0, 100, (5000, 4))
    save(tmp_path / "bad.npz", x=values)
    data = bytearray((tmp_path / "bad.npz").read_bytes())
    data[20000:20064] = bytes(64)
    (tmp_path / "bad.npz").write_bytes(data)
    opened = open_data(tmp_path / "bad.npz", [spec("N", 4, dtype="int64")])
    with pytest.raises(DataError, match=r"bad\.npz is damaged"):
        list(opened.batches(100))


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path: Path, spec: Any) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 99999999999), }\n"
    (tmp_path / "bad.npy").write_bytes(headed(header))
    with pytest.raises(DataError, match="cut short"):
        open_data(tmp_path / "bad.npy", [spec("N", None)])


def test_a_stream_that_ends_early() -> None:
    with pytest.raises(EOFError):
        fill(io.BytesIO(bytes(7)), np.empty(2, np.float32))


def test_a_file_that_vanishes_is_named(tmp_path: Path, spec: Any) -> None:
    np.savez(tmp_path / "gone.npz", x=np.zeros((3, 4), np.float32))
    data = open_data(tmp_path / "gone.npz", [spec("N", 4)])
    (tmp_path / "gone.npz").unlink()
    with pytest.raises(DataError, match=r"gone\.npz is damaged or cannot be read"):
        list(data.batches(1))
