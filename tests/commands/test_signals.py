"""Signals: heard once, not lost, and never in the middle of what must not be disturbed."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from pathlib import Path

import pytest

from onnx_relief.commands.scratch import scratch_folder
from onnx_relief.commands.signals import Stopped, check_stopped, stoppable, undisturbed
from onnx_relief.errors import OutputError


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_block(number, code):
    with pytest.raises(Stopped) as caught, stoppable():
        signal.raise_signal(number)
    assert caught.value.exit_code == code


def test_a_second_signal_does_not_disturb_the_cleaning_up():
    cleaned = []

    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned.append(True)

    with pytest.raises(Stopped), stoppable():
        work()
    assert cleaned


def test_a_swallowed_signal_is_not_lost():
    with stoppable() as stopper:
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
        assert stopper.heard is not None
        with pytest.raises(Stopped):
            check_stopped()


def test_nothing_heard_is_nothing_raised():
    check_stopped()
    with stoppable() as stopper:
        check_stopped()
    assert stopper.heard is None


def test_an_undisturbed_block_ends_first():
    steps = []

    def work():
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            steps.append("inside")
        steps.append("after")

    with pytest.raises(Stopped), stoppable():
        work()
    assert steps == ["inside"]


def test_handlers_are_what_they_were_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with stoppable(), undisturbed():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_temporary_files_go_with_their_folder():
    before = tempfile.gettempdir()
    with scratch_folder():
        folder = Path(tempfile.gettempdir())
        made = Path(tempfile.mkdtemp())
        assert made.parent == folder != Path(before)
    assert not folder.exists()
    assert tempfile.gettempdir() == before


def test_no_temporary_folder_is_a_sentence(monkeypatch):
    def nowhere(prefix):
        raise FileNotFoundError(2, f"no usable folder for {prefix}")

    monkeypatch.setattr(tempfile, "mkdtemp", nowhere)
    with pytest.raises(OutputError, match="set TMPDIR"), scratch_folder():
        pass


def test_a_full_temporary_folder_is_a_sentence():
    told = r"no room .* \(no space left on device\).*TMPDIR"
    with pytest.raises(OutputError, match=told), scratch_folder():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(BlockingIOError), scratch_folder():
        raise BlockingIOError(errno.EAGAIN, "another failure")
