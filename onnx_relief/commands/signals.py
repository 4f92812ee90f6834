"""Ctrl-C and being told to stop: clean up once, undisturbed, and never between two renames."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_CLEANING_UP = 2.0
"""Seconds after a signal in which more of them do not disturb the cleaning up."""

_Handler = Callable[[int, FrameType | None], Any]


class Stopped(BaseException):
    """The process was told to stop.

    Not a KeyboardInterrupt: libraries on the way have their own ideas of what that means.

    Attributes:
        exit_code: 128 and the number of the signal, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Stopper:
    """What has been heard, and what follows from it."""

    def __init__(self) -> None:
        self._heard: Stopped | None = None
        self._when = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Hear a signal."""
        if self._heard is None or monotonic() > self._when + _CLEANING_UP:
            self._heard, self._when = Stopped(number), monotonic()
            raise self._heard

    @property
    def heard(self) -> Stopped | None:
        """The signal, also where something has swallowed its exception (imports do)."""
        return self._heard


@contextmanager
def stoppable() -> Iterator[Stopper]:
    """Let SIGINT and SIGTERM end the block by raising `Stopped`."""
    stopper = Stopper()
    with _handling(stopper):
        yield stopper


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a block of little work end before SIGINT or SIGTERM is heard."""
    late: list[int] = []
    with _handling(lambda number, _frame: late.append(number)):
        yield
    for number in late:
        signal.raise_signal(number)


def check_stopped() -> None:
    """Raise what was heard and swallowed.

    Raises:
        Stopped: A signal was heard.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Stopper) and handler.heard is not None:
        raise handler.heard


@contextmanager
def _handling(handler: _Handler) -> Iterator[None]:
    before = {}
    for number in _NUMBERS:
        try:
            before[number] = signal.signal(number, handler)
        except ValueError:  # only the main thread hears signals
            break
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
