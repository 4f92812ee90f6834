"""Trials as tasks of a Ray cluster; the only importer of ray.

Ray waits long for an address that does not answer, and may end the whole process over it. So the
address is tried first: by a plain connection, then by a process that may fail.
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Final

from onnx_relief.analysis import TrialRow
from onnx_relief.errors import ReliefError, SettingsError
from onnx_relief.trials.trial import Bench, Runner, Task, Tasks
from onnx_relief.trials.workers import packed_bench, processors

LOCAL: Final = "local"
AUTO: Final = "auto"
_KNOCK: Final = 5.0
"""Seconds for a plain connection."""
_ANSWER: Final = 60.0
"""Seconds for Ray to answer; starting it takes a few."""
_TRY: Final = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); ray.shutdown()"
_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


def on_cluster(address: str, jobs: int | None = None) -> Runner:
    """Return what tries tasks on a Ray cluster.

    Args:
        address: ``host:port`` of a running cluster, ``auto`` for the one of this machine, or
            ``local`` to start one on this machine for the time being.
        jobs: Tasks at a time of a cluster that is started; by default one for each processor.

    Raises:
        SettingsError: Ray is missing, or nothing answers at the address.
    """
    ray = _load()
    if address not in (LOCAL, AUTO):
        _knock(address)
    if address != LOCAL:
        _ask(address)

    def run(bench: Bench, tasks: Tasks) -> Iterator[TrialRow]:
        packed = packed_bench(bench, "--jobs instead of --ray")
        with _connected(ray, address, jobs or processors()):
            yield from _results(ray, ray.put((os.getcwd(), packed)), tasks)

    return run


def _results(ray: ModuleType, packed: object, tasks: Tasks) -> Iterator[TrialRow]:
    """Keep twice as many tasks on their way as there are processors, since models are large."""
    remote = ray.remote(num_cpus=1, max_retries=3)(_tried)
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    left, running = iter(tasks), list[Any]()
    while True:
        running += [
            remote.remote(packed, t) for _, t in zip(range(most - len(running)), left, strict=False)
        ]
        if not running:
            return
        ready, running = ray.wait(running)
        for one in ready:
            yield _answer(ray, one)


def _answer(ray: ModuleType, one: object) -> TrialRow:
    try:
        found = ray.get(one)
    except ray.exceptions.RayTaskError as error:
        raise RuntimeError(f"a trial failed on the cluster: {error}") from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(
            f"the Ray cluster lost a trial ({reason}); start again in the same way to go on"
        ) from error
    if isinstance(found, ReliefError):
        raise found
    assert isinstance(found, TrialRow)
    return found


_OPENED: dict[bytes, Bench] = {}


def _tried(sent: tuple[str, bytes], task: Task) -> TrialRow | ReliefError:
    """Try a task in a process of the cluster, which keeps the bench for the next one."""
    folder, packed = sent
    if packed not in _OPENED:
        with suppress(OSError):
            os.chdir(folder)  # that is where names of data files begin
        _OPENED.clear()
        _OPENED[packed] = pickle.loads(packed)
    try:
        return _OPENED[packed].row(task)
    except ReliefError as error:
        return error


@contextmanager
def _connected(ray: ModuleType, address: str, jobs: int) -> Iterator[None]:
    """Be part of a cluster during the block; Ray may not keep our signals."""
    started = {"num_cpus": jobs, "include_dashboard": False} if address == LOCAL else {}
    heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **started)
        _listen(heard)
        yield
    except (ConnectionError, RuntimeError) as error:
        if ray.is_initialized():
            raise
        raise _no_answer(address) from error
    finally:
        ray.shutdown()
        _listen(heard)


def _listen(heard: dict[signal.Signals, Any]) -> None:
    for number, handler in heard.items():
        try:
            signal.signal(number, handler)
        except ValueError:  # only the main thread hears signals
            return


def _load() -> ModuleType:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as missing:
        raise SettingsError(
            "--ray needs Ray: pip install 'onnx-relief[distributed]', or use --jobs"
        ) from missing


def _knock(address: str) -> None:
    """Refuse an address at which nothing listens."""
    found = re.fullmatch(r"(?:ray://)?(\[[^\]]+\]|[^:/]+):(\d{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise SettingsError(
            f"--ray {address!r} is no address; give host:port of a cluster, auto or local"
        )
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=_KNOCK).close()
    except (OSError, UnicodeError) as error:
        raise _no_answer(address) from error


def _ask(address: str) -> None:
    """Refuse an address at which no Ray cluster of this version answers."""
    done = subprocess.Popen(
        [sys.executable, "-c", _TRY, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if done.wait(_ANSWER) == 0:
            return
    except subprocess.TimeoutExpired:
        pass
    finally:
        done.kill()
        done.wait()
    raise _no_answer(address)


def _no_answer(address: str) -> SettingsError:
    return SettingsError(
        f"no Ray cluster answers at --ray {address}; start one with `ray start --head`, with the "
        "same versions of Ray and Python, or use --ray local or --jobs"
    )
