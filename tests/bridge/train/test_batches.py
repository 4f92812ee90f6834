"""Batches as tensors: what is real, what is refused, and that working ahead changes nothing."""

from __future__ import annotations

import threading

import ml_dtypes
import nets
import numpy as np
import pytest
import torch

from onnx_relief.bridge.train.batches import Ahead, ValidationWalk, as_tensor, make_step
from onnx_relief.data import Batch, open_data
from onnx_relief.errors import DataError


def test_working_ahead_keeps_order_and_runs_in_another_thread():
    threads = set()

    def items():
        for number in range(10):
            threads.add(threading.current_thread())
            yield number

    assert list(Ahead(items())) == list(range(10))
    assert threading.current_thread() not in threads


def test_what_goes_wrong_ahead_comes_at_its_place():
    def items():
        yield 1
        yield 2
        raise DataError("broken")

    walk = iter(Ahead(items()))
    assert [next(walk), next(walk)] == [1, 2]
    with pytest.raises(DataError, match="broken"):
        next(walk)


def test_stopping_early_makes_no_more_than_a_few():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    walk = iter(Ahead(items()))
    assert next(walk) == 0
    walk.close()
    assert len(made) < 10


def test_rows_that_fill_up_a_batch_are_cut_off():
    feed = {"x": np.arange(8, dtype=np.float32).reshape(4, 2)}
    batch = Batch(feed=feed, labels=np.array([1, 0, 2]), count=3)
    step = make_step(
        batch, lambda given: {"y": 2 * given["x"], "n": np.zeros(3)}, whole_feeds=False
    )
    assert {name: tuple(value.shape) for name, value in step.targets.items()} == {
        "y": (3, 2),
        "n": (3,),
    }
    outputs = {"y": torch.zeros(4, 2), "size": torch.zeros(()), "other": torch.zeros(5)}
    found = {name: tuple(value.shape) for name, value in step.real(outputs).items()}
    assert found == {"y": (3, 2), "size": (), "other": (5,)}


def test_a_complete_feed_is_whole():
    batch = Batch(feed={"x": np.zeros((4, 2), np.float32)}, labels=np.array([1, 0]), count=2)
    step = make_step(batch, None, whole_feeds=True)
    assert step.real({"y": torch.zeros(4)})["y"].shape == (4,)


def test_what_the_teacher_gives_besides_numbers_is_left_out():
    batch = Batch(feed={"x": np.zeros((2, 2), np.float32)}, labels=None, count=2)
    given = {"y": np.ones(2), "names": np.array(["a", "b"]), "maps": [{0: 1.0}, {0: 2.0}]}
    assert set(make_step(batch, lambda _feed: given, whole_feeds=False).targets) == {"y"}


def test_types_of_onnx_become_those_of_torch():
    brain = np.array([1.5, -2.0]).astype(ml_dtypes.bfloat16)
    assert as_tensor(brain, "x").dtype is torch.bfloat16
    assert as_tensor(brain, "x").tolist() == [1.5, -2.0]
    assert as_tensor(np.float32(3.0).reshape(()), "x").shape == ()
    assert as_tensor(np.arange(6).reshape(2, 3).T, "x").tolist() == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(DataError, match="input 'x' takes"):
        as_tensor(np.array(["text"]), "x")


@pytest.mark.parametrize(("count", "world"), [(7, 1), (7, 2), (3, 4)])
def test_processes_judge_every_sample_equally_often(count, world):
    data = open_data(np.arange(count, dtype=np.float32)[:, None], nets.specs("N", 1))
    seen = []
    for rank in range(world):
        walk = ValidationWalk(
            data=data,
            batch_size=2,
            teacher=None,
            check=lambda _labels: None,
            place=lambda rank=rank: (rank, world),
        )
        seen += [int(value) for step in walk for value in step.feed["x"][:, 0]]
    assert sorted(seen) == sorted(list(range(count)) * (len(seen) // count))
