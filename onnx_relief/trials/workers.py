"""Trials in several processes of this machine, each with one thread.

The processes are started anew (spawned), so nothing of this one, threads least of all, is copied
half. A process that loses its parent ends by itself; one that dies ends the work with a sentence.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from onnx_relief.analysis import TrialRow
from onnx_relief.errors import ReliefError, SettingsError
from onnx_relief.trials.trial import Bench, Runner, Task, Tasks, in_this_process

_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PATIENCE: Final = 5.0
"""Seconds that a process may take to end."""


def processors() -> int:
    """Return on how many processors this process may run."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def in_processes(jobs: int) -> Runner:
    """Return what tries tasks in so many processes; 1 is this one."""
    if jobs < 1:
        raise SettingsError(f"--jobs must be at least 1, got {jobs}")
    if jobs == 1:
        return in_this_process

    def run(bench: Bench, tasks: Tasks) -> Iterator[TrialRow]:
        packed = packed_bench(bench, "--jobs 1")
        left = iter(tasks)
        with _started(jobs) as workers:
            for worker in workers:
                worker.send_bytes(packed)
            idle, busy = list(workers), list[_Worker]()
            while True:
                for worker, task in zip(tuple(idle), left, strict=False):
                    worker.send(task)
                    idle.remove(worker)
                    busy.append(worker)
                if not busy:
                    return
                for ready in wait([worker.connection for worker in busy]):
                    worker = next(one for one in busy if one.connection is ready)
                    busy.remove(worker)
                    idle.append(worker)
                    yield worker.answer()

    return run


def packed_bench(bench: Bench, instead: str) -> bytes:
    """Return a bench as bytes for other processes.

    Raises:
        SettingsError: Its data exists in this process only.
    """
    try:
        return pickle.dumps(bench, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"{bench.data.name} cannot be sent to other processes ({error}); use {instead}, or "
            "give a file or arrays"
        ) from error


@dataclass(frozen=True, eq=False)
class _Worker:
    """A process that tries tasks, and the line to it."""

    process: BaseProcess
    connection: Connection

    def send(self, task: Task) -> None:
        """Hand a task over."""
        self.send_bytes(pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL))

    def send_bytes(self, packed: bytes) -> None:
        """Hand anything over."""
        try:
            self.connection.send_bytes(packed)
        except OSError as error:
            raise self._died() from error

    def answer(self) -> TrialRow:
        """Return what came of the task, as soon as it is known.

        Raises:
            ReliefError: What the task failed with, or that the process died.
        """
        try:
            found = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(found, ReliefError):
            raise found
        if isinstance(found, TrialRow):
            return found
        raise RuntimeError(f"a trial failed in another process: {found}")

    def end(self) -> None:
        """Let it go, whatever it does."""
        self.connection.close()
        self.process.terminate()
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()

    def _died(self) -> SettingsError:
        self.process.join(_PATIENCE)
        return SettingsError(
            f"a process that tried models ended by itself (exit code {self.process.exitcode}); "
            "give fewer --jobs if memory is short, and in a script of your own call this below "
            "`if __name__ == '__main__':`"
        )


@contextmanager
def _started(jobs: int) -> Iterator[list[_Worker]]:
    """Start processes and end them again, however the block is left."""
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        with _one_thread():
            for number in range(jobs):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_serve, args=(theirs,), daemon=True, name=f"trials {number}"
                )
                workers.append(_Worker(process, ours))
                with _deaf_to_interruptions():
                    process.start()
                theirs.close()
        yield workers
    finally:
        for worker in workers:
            if worker.process.pid is not None:
                worker.end()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let libraries of processes that are started in the block use one thread."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf_to_interruptions() -> Iterator[None]:
    """Let processes that are started in the block not hear Ctrl-C, from the first moment.

    Until they come to `_serve` they would print where in their imports they were interrupted. What
    is blocked here is blocked there; this process hears it at the end of the block.
    """
    if sys.platform == "win32":
        yield
        return
    # The first process starts this one too, which would leave Ctrl-C unblocked.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection) -> None:
    """Try what comes down the line until it is closed; the other end hears Ctrl-C, not this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        bench: Bench = pickle.loads(connection.recv_bytes())
        while True:
            connection.send(_tried(bench, connection.recv()))


def _tried(bench: Bench, task: Task) -> TrialRow | ReliefError | str:
    try:
        return bench.row(task)
    except ReliefError as error:
        return error
    except Exception:
        return traceback.format_exc()
