"""Laws of the training order, on every kind of source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.data import Preprocess, open_data
from onnx_relief.data.shuffle import (
    StepPlan,
    epoch_batches,
    epoch_rows,
    labels_of,
    plan_steps,
    split_validation,
)
from onnx_relief.data.unpack import both_seekable, seekable
from onnx_relief.errors import DataError
from onnx_relief.tensors import TensorSpec


def spec(*shape: Any) -> list[TensorSpec]:
    return [TensorSpec(name="x", dtype=np.dtype("float32"), shape=shape)]


def numbers(count: int, *shape: Any) -> Any:
    """Return data whose every sample is its own row number."""
    return open_data(np.arange(count, dtype=np.float32)[:, None], spec(*(shape or ("N", 1))))


plans = st.builds(
    StepPlan,
    share=st.integers(1, 7),
    passes=st.integers(1, 5),
    world=st.integers(1, 4),
)


@given(plans, st.integers(0, 5), st.integers(0, 3), st.integers(0, 9))
def test_processes_share_an_epoch_of_distinct_rows(
    plan: Any, epoch: Any, seed: Any, extra: Any
) -> None:
    rows = 3 * np.arange(plan.passes * plan.share * plan.world + extra)
    parts = [epoch_rows(rows, plan, seed=seed, epoch=epoch, rank=r) for r in range(plan.world)]
    seen = np.concatenate(parts)
    assert len(set(seen.tolist())) == len(seen) == plan.passes * plan.share * plan.world
    assert set(seen.tolist()) <= set(rows.tolist())


@given(plans, st.integers(0, 5))
def test_each_global_batch_is_that_of_one_process(plan: Any, epoch: Any) -> None:
    rows = np.arange(plan.passes * plan.share * plan.world)
    alone = replace(plan, share=plan.share * plan.world, world=1)
    batches = epoch_rows(rows, alone, seed=1, epoch=epoch).reshape(plan.passes, -1)
    parts = [epoch_rows(rows, plan, seed=1, epoch=epoch, rank=r) for r in range(plan.world)]
    together = np.stack([part.reshape(plan.passes, -1) for part in parts], axis=1)
    np.testing.assert_array_equal(together.reshape(plan.passes, -1), batches)


def test_the_order_follows_from_seed_and_epoch() -> None:
    plan, rows = StepPlan(share=50, passes=2), np.arange(100)
    orders = {
        (seed, epoch): tuple(epoch_rows(rows, plan, seed=seed, epoch=epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert orders[0, 1] == tuple(epoch_rows(rows, plan, seed=0, epoch=1))


@pytest.mark.parametrize(
    ("count", "batch", "world", "expected"),
    [(100, 30, 1, (30, 3, 1)), (100, 30, 2, (15, 3, 1)), (7, 30, 2, (3, 1, 1))],
)
def test_incomplete_batches_are_dropped(count: Any, batch: Any, world: Any, expected: Any) -> None:
    plan = plan_steps(numbers(count), batch, world)
    assert (plan.share, plan.passes, plan.accumulate) == expected


def test_a_fixed_batch_collects_gradients() -> None:
    plan = plan_steps(numbers(100, 4, 1), 16)
    assert (plan.share, plan.passes, plan.accumulate, plan.steps) == (4, 24, 4, 6)


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_a_fixed_batch_has_that_size_whatever_there_is(count: Any) -> None:
    data = numbers(count, 4, 1)
    plan = plan_steps(data, 16)
    batches = list(epoch_batches(data, plan, seed=0, epoch=0))
    assert len(batches) == plan.passes
    assert {len(batch.feed["x"]) for _, batch in batches} == {4}


def test_passes_of_one_step_lie_together_in_every_process() -> None:
    plan = StepPlan(share=2, passes=6, accumulate=3, world=2)
    rows = np.arange(24)
    steps = np.random.default_rng([0, 2, 0]).permutation(rows).reshape(2, 12)
    parts = [epoch_rows(rows, plan, seed=0, epoch=0, rank=r).reshape(2, 6) for r in range(2)]
    for step in range(2):
        assert set(np.concatenate([part[step] for part in parts])) == set(steps[step])


def test_fewer_samples_than_processes_are_refused() -> None:
    with pytest.raises(DataError, match="--devices"):
        plan_steps(numbers(2), 30, 3)


def test_complete_feeds_are_one_step_each() -> None:
    feeds = [{"x": np.full((3, 1), index, np.float32)} for index in range(5)]
    data = open_data(feeds, spec(3, 1))
    plan = plan_steps(data, 64)
    seen = [int(batch.feed["x"][0, 0]) for _, batch in epoch_batches(data, plan, seed=0, epoch=0)]
    assert plan.passes == 5
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert seen == [int(rows[0]) for rows, _ in epoch_batches(data, plan, seed=0, epoch=0)]


@pytest.mark.parametrize("form", ["npz", "npy", "memory"])
def test_rows_name_the_samples_of_arrays(tmp_path: Any, form: Any) -> None:
    values = np.arange(500, dtype=np.float32)[:, None]
    source: Any = values
    if form != "memory":
        source = tmp_path / f"a.{form}"
        np.savez_compressed(source, x=values) if form == "npz" else np.save(source, values)
    data = seekable(open_data(source, spec("N", 1)))
    plan = plan_steps(data, 64)
    for rows, batch in epoch_batches(data, plan, seed=3, epoch=2):
        np.testing.assert_array_equal(batch.feed["x"][:, 0], rows)


def test_what_was_unpacked_goes_with_the_dataset(tmp_path: Any, monkeypatch: Any) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((5, 1), np.float32), labels=np.arange(5))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    data = seekable(open_data(tmp_path / "a.npz", spec("N", 1)))
    assert list(scratch.iterdir())
    assert labels_of(data) is not None
    del data
    assert not list(scratch.iterdir())


def test_broken_pictures_are_passed_over_and_rows_still_right(folder: Any, pixels: Any) -> None:
    files = sorted(folder.rglob("*.png"))
    for number in (1, 6):
        files[number].write_bytes(b"no picture")
    data = open_data(folder, spec("N", 3, 6, 8), preprocess=Preprocess(scale=1 / 255))
    plan = plan_steps(data, 4)
    batches = list(epoch_batches(data, plan, seed=0, epoch=0))
    assert [len(rows) for rows, _ in batches] == [4, 4, 4]
    for rows, batch in batches:
        wanted = pixels[rows].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        np.testing.assert_allclose(batch.feed["x"], wanted, rtol=0, atol=1e-6)
        assert not {1, 6} & set(rows.tolist())


@given(st.integers(2, 300), st.floats(0.01, 0.9), st.integers(1, 9), st.integers(0, 3))
def test_validation_takes_its_share_of_each_class(
    count: Any, share: Any, classes: Any, seed: Any
) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, count)
    arrays = {"x": np.zeros((count, 1), np.float32), "labels": labels}
    data = open_data(arrays, spec("N", 1))
    train, held = split_validation(data, share, seed)
    assert held is not None
    assert sorted([*train.rows, *held.rows]) == list(range(count))
    assert held.size == min(max(1, round(share * count)), count - 1)
    for label, total in zip(*np.unique(labels, return_counts=True), strict=True):
        found = int((labels_of(held) == label).sum())
        assert abs(found - total * held.size / count) <= 1 + classes / 2


def test_the_split_follows_from_the_seed() -> None:
    data = numbers(100)
    first, second, other = (split_validation(data, 0.2, seed)[1] for seed in (0, 0, 1))
    assert first is not None
    assert second is not None
    assert other is not None
    np.testing.assert_array_equal(first.rows, second.rows)
    assert first.rows.tolist() != other.rows.tolist()


def test_no_share_and_a_single_sample_leave_no_validation() -> None:
    assert split_validation(numbers(9), 0.0, 0)[1] is None
    assert split_validation(numbers(1), 0.5, 0)[1] is None


def test_two_parts_of_one_file_are_unpacked_once(tmp_path: Any) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(9, dtype=np.float32)[:, None])
    data = open_data(tmp_path / "a.npz", spec("N", 1))
    train, held = split_validation(data, 0.3, 0)
    assert held is not None
    first, second = both_seekable(train, held)
    assert first.source is second.source
    assert first.source is not data.source
    np.testing.assert_array_equal(next(second.batches(9)).feed["x"][:, 0], held.rows)
    other = open_data(tmp_path / "a.npz", spec("N", 1))
    first, second = both_seekable(train, other)
    assert first.source is not second.source
    assert second.source is not other.source
