"""Laws of training: zeros stay zeros, interrupted is uninterrupted, bad input is a sentence."""

from __future__ import annotations

import signal
import warnings
from dataclasses import replace

import nets
import numpy as np
import pytest
import torch
from torch import nn

from onnx_relief.bridge.train import train
from onnx_relief.data import Preprocess, open_data
from onnx_relief.errors import DataError, OutputError, SettingsError, UnsupportedError
from onnx_relief.training import EpochRow, TrainSettings

QUICK = TrainSettings(epochs=3, batch_size=32, lr=1e-2, schedule="constant", devices=1)


class Interruption(BaseException):
    """Not an error: what Ctrl-C may be."""


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_masked_weights_are_zero_after_every_step(tmp_path, optimizer, clip):
    module = nets.mlp(masked=0.5)
    start = nets.state_of(module)
    mask = module.masks["net.0.weight"]
    seen = []

    def look(_stage, done, _total):
        seen.append(done)
        weight = module.get_parameter("net.0.weight").detach()
        assert weight[~mask].eq(0).all()
        assert not weight[~mask].signbit().any()

    settings = replace(QUICK, optimizer=optimizer, weight_decay=0.1, clip=clip, patience=None)
    train(module, nets.points(), settings, folder=tmp_path, progress=look)
    assert seen[-1] == 15
    assert (module.state_dict()["net.0.weight"] != start["net.0.weight"])[mask].all()


def test_training_learns_and_keeps_the_best_epoch(tmp_path):
    weights = {}
    module = nets.mlp()
    data = nets.points(400)

    def keep(row):
        weights[row.epoch] = nets.state_of(module)

    settings = replace(QUICK, epochs=8, lr=3e-2)
    done = train(module, data, settings, folder=tmp_path, on_epoch=keep)
    assert [row.epoch for row in done.history] == list(range(1, 9))
    assert done.history[-1].train_loss < done.history[0].train_loss / 2
    assert done.history[done.best_epoch - 1].validation_accuracy > 90
    nets.assert_same(nets.state_of(module), weights[done.best_epoch])
    assert not module.training


def test_the_start_is_kept_where_no_epoch_is_better(tmp_path):
    module, data = nets.mlp(masked=0.3), nets.points(400)
    train(module, data, replace(QUICK, epochs=8, lr=3e-2), folder=tmp_path / "good")
    good = nets.state_of(module)
    bad = replace(QUICK, epochs=4, lr=5.0, optimizer="sgd", momentum=0.0, patience=2)
    done = train(module, data, bad, folder=tmp_path / "bad")
    assert (done.best_epoch, len(done.history)) == (0, 2)
    assert not any(row.better_than(done.start) for row in done.history)
    nets.assert_same(nets.state_of(module), good)
    again = train(module, data, bad, folder=tmp_path / "bad")
    assert (again.start, again.history, again.best_epoch) == (done.start, done.history, 0)
    nets.assert_same(nets.state_of(module), good)


def test_without_validation_the_last_epoch_counts(tmp_path):
    done = train(nets.mlp(), nets.points(), replace(QUICK, validation=0.0), folder=tmp_path)
    assert done.best_epoch == 3
    assert done.history[0].validation_loss is None
    assert done.history[0].validation_accuracy is None
    assert done.start is None


def test_patience_stops_at_the_best(tmp_path):
    settings = replace(QUICK, epochs=50, lr=1.0, patience=2, optimizer="sgd", momentum=0.0)
    done = train(nets.mlp(), nets.points(), settings, folder=tmp_path)
    assert len(done.history) == done.best_epoch + 2
    assert "--patience" in done.reason
    again = train(nets.mlp(), nets.points(), settings, folder=tmp_path)
    assert (again.history, again.resumed_from) == (done.history, len(done.history))


@pytest.mark.parametrize(("scale", "same"), [(0.5, False), (1.0, True)])
def test_enlarged_parts_come_from_what_the_crop_leaves_out_too(tmp_path, scale, same):
    middle = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 3), dtype=np.uint8)
    made = []
    for frame in (0, 255):
        pictures = np.full((60, 10, 10, 3), frame, np.uint8)
        pictures[:, 2:8, 2:8] = middle
        data = open_data(
            {"x": pictures, "labels": np.arange(60) % 3},
            nets.specs("N", 3, 6, 6),
            preprocess=Preprocess(crop=6, scale=1 / 255),
        )
        torch.manual_seed(0)
        module = nets.Net(nn.Flatten(), nn.Linear(108, 3))
        settings = replace(QUICK, epochs=1, crop_scale=scale)
        train(module, data, settings, folder=tmp_path / str(frame))
        made.append(module.state_dict()["net.1.weight"])
    assert torch.equal(*made) == same


@pytest.mark.parametrize("step", [0, 1, 5, 6, 11, 15])
def test_interrupted_and_started_again_ends_bit_for_bit_the_same(tmp_path, step):
    settings = replace(QUICK, schedule="cosine", warmup=0.2, weight_decay=1e-3, seed=5)

    def fresh():
        return nets.mlp(masked=0.3, dropout=0.5)

    data = nets.points(178)  # 160 for training
    whole = fresh()
    expected = train(whole, data, settings, folder=tmp_path / "whole")

    def interrupt(_stage, done, _total):
        if done == step and done > 0:
            raise Interruption

    if step:
        with pytest.raises(Interruption):
            train(fresh(), data, settings, folder=tmp_path / "cut", progress=interrupt)
    torch.rand(7)  # what the caller draws does not matter
    module = fresh()
    resumed = train(module, data, settings, folder=tmp_path / "cut")
    assert resumed.resumed_from == max(0, step - 1) // 5
    nets.assert_same(nets.state_of(whole), nets.state_of(module))
    same = [replace(row, seconds=0.0) for row in resumed.history]
    assert same == [replace(row, seconds=0.0) for row in expected.history]


def test_ctrl_c_stays_what_it_is(tmp_path):
    def interrupt(_stage, done, _total):
        if done == 7:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(nets.mlp(), nets.points(), QUICK, folder=tmp_path, progress=interrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert (tmp_path / "last.ckpt").exists()


def test_the_random_numbers_of_the_caller_are_left_alone(tmp_path):
    module = nets.mlp(dropout=0.5)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(module, nets.points(), QUICK, folder=tmp_path)
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: replace(s, lr=0.5), r"--lr \(0.01 there, 0.5 now\)"),
        (lambda s: replace(s, epochs=4), "--epochs"),
        (lambda s: replace(s, seed=1), "--seed"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, change, told):
    train(nets.mlp(), nets.points(), QUICK, folder=tmp_path)
    with pytest.raises(SettingsError, match=told):
        train(nets.mlp(), nets.points(), change(QUICK), folder=tmp_path)


def test_a_checkpoint_of_another_model_mask_or_data_is_refused(tmp_path):
    train(nets.mlp(), nets.points(), QUICK, folder=tmp_path)
    for module, data, told in (
        (nets.mlp(hidden=17), nets.points(), "another model"),
        (nets.mlp(seed=1), nets.points(), "another model"),
        (nets.mlp(), nets.points(201), "training data"),
    ):
        with pytest.raises(SettingsError, match=told):
            train(module, data, QUICK, folder=tmp_path)


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    (tmp_path / ".last.ckpt.123.abcd").write_bytes(b"half")
    train(nets.mlp(), nets.points(), QUICK, folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "best.ckpt"}


def test_a_damaged_checkpoint_is_refused(tmp_path):
    train(nets.mlp(), nets.points(), QUICK, folder=tmp_path)
    whole = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SettingsError, match="damaged"):
        train(nets.mlp(), nets.points(), QUICK, folder=tmp_path)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    data = nets.points()
    module = nets.mlp()
    good = {}

    def poison(row):
        good[row.epoch] = (tmp_path / "last.ckpt").read_bytes()
        if row.epoch == 2:
            with torch.no_grad():
                module.get_parameter("net.0.weight")[0, 0] = float("inf")

    with pytest.raises(SettingsError, match=r"step 1 of epoch 3; the checkpoint of epoch 2.*--lr"):
        train(module, data, QUICK, folder=tmp_path, on_epoch=poison)
    assert (tmp_path / "last.ckpt").read_bytes() == good[2]


def test_weights_that_overflow_in_the_last_step_are_not_kept(tmp_path):
    settings = replace(QUICK, batch_size=180, optimizer="sgd", lr=1e38, epochs=1, loss="mse")
    with pytest.raises(SettingsError, match="nothing was written"):
        train(nets.mlp(), nets.points(), settings, folder=tmp_path)
    assert not (tmp_path / "last.ckpt").exists()


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = {}

    def fill(row):
        if row.epoch == 1:
            kept["last"] = (tmp_path / "last.ckpt").read_bytes()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(OutputError, match="--run-folder"):
            train(nets.mlp(), nets.points(), QUICK, folder=tmp_path, on_epoch=fill,
                  flag="--run-folder")  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "last.ckpt").read_bytes() == kept["last"]
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "best.ckpt"}
    done = train(nets.mlp(), nets.points(), QUICK, folder=tmp_path)
    assert done.resumed_from == 1


def test_labels_without_a_class_are_refused(tmp_path):
    arrays = nets.arrays(classes=4)
    data = open_data(arrays, nets.specs("N", 8))
    with pytest.raises(DataError, match=r"label 3 .* 3 classes \(0 to 2\)"):
        train(nets.mlp(), data, QUICK, folder=tmp_path)


def test_a_label_without_a_class_in_a_late_feed_is_refused(tmp_path):
    arrays = nets.arrays(40)
    feeds = [
        ({"x": arrays["x"][i : i + 4]}, np.array([0, 1, 2, 7 if i == 36 else 0]))
        for i in range(0, 40, 4)
    ]
    data = open_data(feeds, nets.specs("N", 8))
    with pytest.raises(DataError, match="label 7"):
        train(nets.mlp(), data, QUICK, folder=tmp_path)


def test_a_single_class_is_refused(tmp_path):
    arrays = nets.arrays() | {"labels": np.ones(200, np.int64)}
    with pytest.raises(DataError, match=r"have label 1.*--teacher"):
        train(nets.mlp(), open_data(arrays, nets.specs("N", 8)), QUICK, folder=tmp_path)


def test_neither_labels_nor_teacher_is_refused(tmp_path):
    with pytest.raises(DataError, match="--teacher"):
        train(nets.mlp(), nets.points(labels=False), QUICK, folder=tmp_path)


def test_a_model_that_only_decides_is_refused(tmp_path):
    class Decider(nets.Net):
        def forward(self, feed):
            return {"y": self.net(feed["x"]).argmax(1)}

    with pytest.raises(UnsupportedError, match="no output of the model"):
        train(Decider(nn.Linear(8, 3)), nets.points(), QUICK, folder=tmp_path)


def test_complete_feeds_train(tmp_path):
    arrays = nets.arrays(60)
    feeds = [({"x": arrays["x"][i : i + 6]}, arrays["labels"][i : i + 6]) for i in range(0, 60, 6)]
    data = open_data(feeds, nets.specs("N", 8))
    settings = replace(QUICK, epochs=10)
    done = train(nets.mlp(), data, settings, folder=tmp_path)
    assert done.history[-1].train_loss < done.history[0].train_loss


def test_a_fixed_batch_trains_as_larger_batches_do(tmp_path):
    settings = replace(QUICK, optimizer="sgd", batch_size=32)
    arrays = nets.arrays(180)
    states = []
    for size in ("N", 8):
        data = open_data(arrays, nets.specs(size, 8))
        module = nets.mlp()
        train(module, data, settings, folder=tmp_path / str(size))
        states.append(nets.state_of(module))
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)


def test_filled_up_rows_play_no_part(tmp_path):
    arrays = nets.arrays(5)
    settings = replace(QUICK, validation=0.0, optimizer="sgd")
    states = []
    for size in ("N", 8):
        module = nets.mlp()
        data = open_data(arrays, nets.specs(size, 8))
        train(module, data, settings, folder=tmp_path / str(size))
        states.append(nets.state_of(module))
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)


def test_bf16_trains_and_keeps_full_weights(tmp_path):
    module = nets.mlp(masked=0.5)
    settings = replace(QUICK, precision="bf16", epochs=5)
    done = train(module, nets.points(), settings, folder=tmp_path)
    assert module.get_parameter("net.0.weight").dtype is torch.float32
    assert done.history[-1].train_loss < done.history[0].train_loss


def test_nothing_is_said_and_nothing_else_written(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(nets.mlp(), nets.points(), QUICK, folder=tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.rglob("*")} == {"run", "last.ckpt", "best.ckpt"}


def test_better_is_more_accurate_then_less_loss():
    row = EpochRow(
        epoch=1,
        train_loss=1.0,
        validation_loss=1.0,
        validation_accuracy=90.0,
        lr=0.1,
        seconds=1.0,
    )
    assert replace(row, validation_accuracy=91.0, validation_loss=2.0).better_than(row)
    assert replace(row, validation_loss=0.9).better_than(row)
    assert not row.better_than(row)
