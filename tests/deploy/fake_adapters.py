"""Runtimes that misbehave, driven like real ones in a child process."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from onnx_relief.deploy.adapters import onnx_runtime
from onnx_relief.deploy.runtimes import Runtime
from onnx_relief.errors import ModelError


def runtime(name):
    """Return the runtime whose adapter is the function `name` of this file."""
    return Runtime(name=name, module="json", distribution="none", adapter=f"{__name__}:{name}")


def crashes(_task):
    os.write(1, b"thread panicked at 'no such op'\n")
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(_task):
    time.sleep(1000)


def leaves(_task):
    os._exit(3)


def refuses(task):
    raise RuntimeError(f"cannot read {task.model}\nsecond line")


def crashes_later(task):
    run = onnx_runtime(task)
    calls = []

    def again():
        calls.append(1)
        return run() if len(calls) < 2 else crashes(task)

    return again


def doubles(task):
    run = onnx_runtime(task)
    return lambda: [2 * array for array in run()]


def forgets(task):
    run = onnx_runtime(task)
    return lambda: run()[:-1]


def gives_nan(task):
    run = onnx_runtime(task)
    return lambda: [np.full_like(array, np.nan) for array in run()]


def flattens(task):
    run = onnx_runtime(task)
    return lambda: [array.ravel() for array in run()]


def agrees(task):
    return onnx_runtime(task)


def converter_fails(_task):
    os.write(1, b"[10:30] These Op Not Support: Foo\nConverted Failed!\n")
    raise ModelError("its converter refuses the model")


def waits(task):
    run = onnx_runtime(task)

    def later():
        time.sleep(0.05)
        return run()

    return later
