"""Two processes see the batches of one, and killed is as good as never interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nets
import pytest
import torch
import training_child

from onnx_relief.bridge.train.processes import find_world, together
from onnx_relief.errors import ReliefError, SettingsError
from onnx_relief.training import TrainSettings

HERE = Path(__file__).parent


def run(*command):
    paths = [
        str(HERE),
        str(HERE.parents[1]),
        str(HERE.parents[2]),
        os.environ.get("PYTHONPATH", ""),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def result(folder):
    return torch.load(folder / "result.pt", weights_only=True)


@pytest.fixture(name="alone")
def one_process(tmp_path):
    training_child.main(tmp_path / "alone", 1)
    return result(tmp_path / "alone")


@pytest.mark.parametrize(
    ("launcher", "devices"),
    [
        ((), 2),
        (("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"), 1),
    ],
    ids=["lightning", "torchrun"],
)
def test_two_processes_are_one(tmp_path, alone, launcher, devices):
    if sys.platform == "win32":
        pytest.skip("gloo over two processes is tested on Linux and macOS")
    done = run(*launcher, HERE / "training_child.py", tmp_path / "two", devices)
    assert done.returncode == 0, done.stderr
    two = result(tmp_path / "two")
    for name, value in alone["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        torch.tensor(two["history"]), torch.tensor(alone["history"]), rtol=1e-6, atol=1e-6
    )


def test_killed_at_once_and_started_again_ends_the_same(tmp_path, alone):
    killed = run(HERE / "training_child.py", tmp_path / "killed", 1, "kill", 13)
    assert killed.returncode in (-signal.SIGKILL, 1)
    assert not (tmp_path / "killed" / "result.pt").exists()
    assert (tmp_path / "killed" / "last.ckpt").exists()
    training_child.main(tmp_path / "killed", 1)
    again = result(tmp_path / "killed")
    nets.assert_same(alone["weights"], again["weights"])
    assert alone["history"] == again["history"]


def test_batches_that_cannot_be_shared_are_refused(monkeypatch):
    with pytest.raises(SettingsError, match=r"--batch-size 9 .* --devices 2"):
        TrainSettings(batch_size=9, devices=2)
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(SettingsError, match="2 processes"):
        find_world(TrainSettings(batch_size=9))
    world = find_world(TrainSettings(batch_size=8))
    assert (world.size, world.is_main) == (2, False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_says_so():
    with pytest.raises(SettingsError, match="--device cuda"):
        find_world(TrainSettings(device="cuda"))
    with pytest.raises(SettingsError, match="--precision 16"):
        find_world(TrainSettings(precision="16"))


def test_a_cluster_around_us_changes_nothing(tmp_path, monkeypatch, alone):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    training_child.main(tmp_path / "cluster", 1)
    nets.assert_same(alone["weights"], result(tmp_path / "cluster")["weights"])


def test_a_process_that_is_left_alone_says_so(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    world = find_world(TrainSettings())
    with pytest.raises(ReliefError, match="another of the processes"), together(world):
        raise RuntimeError("gloo: Connection closed by peer [127.0.0.1]")
    with pytest.raises(RuntimeError, match="shape"), together(world):
        raise RuntimeError("a wrong shape")
