"""What all tests share; its place makes the helper modules of this folder importable for them."""

import os

import pytest

# Small networks on few cores: threads that wait for each other cost far more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# They hold no doctests, and pytest cannot tell modules of one name apart.
collect_ignore_glob = ["conftest.py", "**/conftest.py"]


@pytest.fixture(name="command")
def runner(capfd):
    """Return a way to run a command: its exit code, what it printed, what it complained about."""
    from onnx_relief.cli import main  # after the threads are counted

    def run(line, *more):
        code = main([*line.split(), *map(str, more)])
        return (code, *capfd.readouterr())

    return run
