from __future__ import annotations

import gc
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_relief.data import Preprocess, open_data
from onnx_relief.data.feeds import FeedSource
from onnx_relief.errors import DataError, OutputError, SettingsError


@pytest.fixture
def inputs(spec: Any) -> Any:
    return [spec("T", 1, 4, name="frames"), spec(name="rate", dtype="int64")]


@pytest.fixture
def feeds() -> Any:
    rng = np.random.default_rng(0)
    return [
        {"frames": rng.normal(size=(length, 1, 4)).astype(np.float32), "rate": np.array(length)}
        for length in (3, 5, 2, 7, 1, 4, 6, 2, 3, 9, 8, 1)
    ]


def as_test_data(root: Any, feeds: Any, names: Any) -> Any:
    for index, feed in enumerate(feeds):
        folder = root / f"test_data_set_{index}"
        folder.mkdir(parents=True)
        for position, name in enumerate(names):
            tensor = onnx.numpy_helper.from_array(np.asarray(feed[name]), "any_name")
            (folder / f"input_{position}.pb").write_bytes(tensor.SerializeToString())
        (folder / "output_0.pb").write_bytes(b"not looked at")
    return root


def as_npz(root: Any, feeds: Any) -> Any:
    root.mkdir()
    for index, feed in enumerate(feeds):
        np.savez(root / f"{index:03}.npz", **feed)
    return root


@pytest.mark.parametrize("samples", [None, 5])
def test_every_form_gives_the_same_feeds(
    tmp_path: Path, inputs: Any, feeds: Any, samples: Any
) -> None:
    forms = [
        feeds,
        tuple(feeds),
        iter(feeds),
        as_npz(tmp_path / "npz", feeds),
        as_test_data(tmp_path / "onnx", feeds, ["frames", "rate"]),
    ]
    for form in forms:
        data = open_data(form, inputs).take(samples)
        for _ in range(2):
            batches = list(data.batches(7))
            assert len(batches) == data.size == (samples or 12)
            for row, batch in zip(data.rows, batches, strict=True):
                assert batch.feed.keys() == feeds[row].keys()
                assert all(np.array_equal(batch.feed[k], feeds[row][k]) for k in batch.feed)
                assert (batch.count, batch.labels) == (1, None)


def test_feeds_say_that_they_are_whole(inputs: Any, feeds: Any) -> None:
    data = open_data(feeds, inputs)
    assert data.whole_feeds
    assert not data.has_labels
    assert data.description == "the data (12 complete feeds)"


def test_one_folder_of_test_data_is_one_feed(tmp_path: Path, inputs: Any, feeds: Any) -> None:
    root = as_test_data(tmp_path / "node", feeds, ["frames", "rate"])
    assert open_data(root / "test_data_set_3", inputs).size == 1


def test_inputs_are_ordered_by_number_not_by_name(tmp_path: Path, spec: Any) -> None:
    names = [f"x{index}" for index in range(12)]
    feed = {name: np.float32(index) for index, name in enumerate(names)}
    root = as_test_data(tmp_path / "many", [feed], names)
    (batch,) = open_data(root, [spec(name=name) for name in names]).batches(1)
    assert {name: float(value) for name, value in batch.feed.items()} == feed


def test_labels_come_with_feeds(tmp_path: Path, spec: Any) -> None:
    feeds: list[Any] = [
        ({"x": np.ones((3, 2), np.float32)}, [0, 1, 2]),
        ({"x": np.ones((1, 2))}, 4),
    ]
    stored = [feed | {"labels": labels} for feed, labels in feeds]
    for form in (feeds, iter(feeds), stored, as_npz(tmp_path / "npz", stored)):
        data = open_data(form, [spec("N", 2)])
        first, second = (vars(batch) for batch in data.batches(1))
        assert data.has_labels
        assert (first["labels"].tolist(), first["count"]) == ([0, 1, 2], 3)
        assert (second["labels"].tolist(), second["count"]) == ([4], 1)


def test_arrays_alone_feed_a_single_input(spec: Any) -> None:
    array = np.ones((3, 2), np.float32)
    for feed in (array, (array, np.zeros(3, int))):
        (batch,) = open_data([feed], [spec("N", 2)]).batches(1)
        assert np.array_equal(batch.feed["x"], array)


def test_feeds_are_cast_and_optional_inputs_may_be_missing(spec: Any) -> None:
    inputs = [spec("N", 2, name="a"), spec(name="b", optional=True)]
    (batch,) = open_data([{"a": np.ones((1, 2))}], inputs).batches(1)
    assert batch.feed["a"].dtype == np.float32
    assert batch.feed.keys() == {"a"}


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"frames": np.ones((3, 1, 5)), "rate": 1}, r"'frames' of feed 0 has shape \(3, 1, 5\)"),
        ({"frames": np.ones((3, 4)), "rate": 1}, r"takes float32 \(T, 1, 4\)"),
        ({"frames": np.ones((3, 1, 4))}, "holds 'frames', but the model takes 'frames', 'rate'"),
        ({"frames": np.ones((3, 1, 4)), "rate": 1, "c": 1}, "holds 'frames', 'rate', 'c'"),
        ({"frames": np.ones((3, 1, 4), np.uint8), "rate": 1}, "store it as float32"),
        ({"frames": np.full((3, 1, 4), np.nan), "rate": 1}, "NaN or Inf .* in this feed"),
        ({"frames": np.ones((3, 1, 4)), "rate": 1.5}, "takes int64"),
        ({"frames": np.ones((3, 1, 4)), "rate": 1, "labels": 0.5}, "labels of feed 0 are float64"),
        ("frames", "feed 0 is a str; give a mapping"),
        (({"frames": 1}, 2, 3), "feed 0 is a tuple"),
    ],
)
def test_a_feed_that_does_not_suit_the_model(inputs: Any, feed: Any, message: Any) -> None:
    for form in ([feed], iter([feed])):
        with pytest.raises(DataError, match=message):
            open_data(form, inputs)


def test_a_fixed_first_axis_counts(spec: Any) -> None:
    with pytest.raises(DataError, match=r"shape \(2, 4\), but .* \(1, 4\)"):
        open_data([{"x": np.ones((2, 4))}], [spec(1, 4)])


def test_labels_in_some_feeds_only(spec: Any) -> None:
    feeds = [{"x": np.ones((1, 2)), "labels": 1}, {"x": np.ones((1, 2))}]
    with pytest.raises(DataError, match="feed 1 has no 'labels'"):
        list(open_data(feeds, [spec("N", 2)]).batches(1))


@pytest.mark.parametrize("said", [{"scale": 2.0}, {"preset": "unit", "layout": "nchw"}])
def test_complete_feeds_are_not_preprocessed(inputs: Any, feeds: Any, said: Any) -> None:
    with pytest.raises(SettingsError, match=", ".join(f"--{name}" for name in said)):
        open_data(feeds, inputs, preprocess=Preprocess(**said))


@pytest.mark.parametrize("feeds", [[], iter([])])
def test_no_feeds(inputs: Any, feeds: Any) -> None:
    with pytest.raises(DataError, match="holds no samples"):
        open_data(feeds, inputs)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_stream_is_kept_on_disk_until_its_dataset_goes(scratch: Path, spec: Any) -> None:
    stream = ({"x": np.zeros((1, 100_000), np.float32)} for _ in range(40))  # 16 MB
    tracemalloc.start()
    data = open_data(stream, [spec(1, 100_000)])
    count = len([None for _ in data.batches(1)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, data.size) == (40, 40)
    assert peak < 4e6
    assert len(list(scratch.iterdir())) == 1
    del data
    gc.collect()
    assert not list(scratch.iterdir())


def test_a_stream_that_breaks_leaves_nothing_behind(scratch: Path, spec: Any) -> None:
    def stream() -> Any:
        yield {"x": np.zeros((1, 4))}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_data(stream(), [spec(1, 4)])
    assert not list(scratch.iterdir())


def test_a_full_disk_is_said(scratch: Path, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match=r"No space left on device.*TMPDIR"):
        open_data(iter([{"x": np.zeros((1, 4))}]), [spec(1, 4)])
    assert not list(scratch.iterdir())


def test_bfloat16_survives_a_stream(spec: Any) -> None:
    kind = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    feeds = [{"x": np.full((2, 3), 1.5, kind)}]
    (batch,) = open_data(iter(feeds), [spec("N", 3, dtype=kind)]).batches(1)
    assert batch.feed["x"].dtype == kind
    assert np.all(batch.feed["x"] == feeds[0]["x"])


def test_text_survives_a_stream(spec: Any) -> None:
    feeds = iter([{"x": np.array(["a", "bcd"], dtype=object)}])
    (batch,) = open_data(feeds, [spec("N", dtype="object")]).batches(1)
    assert batch.feed["x"].tolist() == ["a", "bcd"]


def external() -> Any:
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    return tensor.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff",
        onnx.numpy_helper.from_array(np.ones(4)).SerializeToString()[:-9],
        external(),
    ],
)
def test_a_damaged_tensor_is_named(tmp_path: Path, spec: Any, data: Any) -> None:
    (tmp_path / "input_0.pb").write_bytes(data)
    with pytest.raises(DataError, match=r"input_0\.pb holds no tensor that can be read"):
        open_data(tmp_path, [spec(4)])


def test_more_tensors_than_inputs(tmp_path: Path, inputs: Any, feeds: Any) -> None:
    root = as_test_data(tmp_path / "node", feeds[:1], ["frames", "rate"])
    with pytest.raises(DataError, match=r"holds input_1\.pb, but the model takes 1 input;"):
        open_data(root, inputs[:1])


def test_nothing_is_skipped_or_counted_in_feeds(inputs: Any, feeds: Any) -> None:
    source = open_data(feeds, inputs).source
    assert isinstance(source, FeedSource)
    assert (source.skipped, source.class_count) == ({}, 0)


def test_a_damaged_feed_file_is_named(tmp_path: Path, inputs: Any, feeds: Any) -> None:
    root = as_npz(tmp_path / "npz", feeds)
    (root / "003.npz").write_bytes(b"PK")
    data = open_data(root, inputs)
    with pytest.raises(DataError, match=r"003\.npz is damaged"):
        list(data.batches(1))
