"""Every error that this package raises on purpose.

::

    ReliefError            one sentence: what, where, what to do        exit code
    |-- SettingsError      an option or argument makes no sense                 2
    |-- OutputError        the result cannot be written where asked             2
    |-- ModelError         the model cannot be read or run                      3
    |-- DataError          the sample data cannot be used                       4
    |-- UnsupportedError   nothing to prune, or not supported                   5
    `-- TargetError        a target was not reached                             6

Any other exception that leaves the package is a bug (exit code 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class ReliefError(Exception):
    """Base of all errors; its text is one sentence for the person who typed the command."""

    exit_code: ClassVar[int] = 1


class SettingsError(ReliefError):
    """An option or argument makes no sense."""

    exit_code = 2


class OutputError(ReliefError):
    """The result cannot be written where it was asked for; nothing was changed there."""

    exit_code = 2


class ModelError(ReliefError):
    """The model cannot be read, is not valid, or cannot be run."""

    exit_code = 3


class DataError(ReliefError):
    """The sample data cannot be used with this model."""

    exit_code = 4


class UnsupportedError(ReliefError):
    """There is nothing to prune, or what was asked is not supported."""

    exit_code = 5


class TargetError(ReliefError):
    """A target was not reached."""

    exit_code = 6


@contextmanager
def working_on(place: str) -> Iterator[None]:
    """Say where we were to any `ReliefError` that passes through."""
    try:
        yield
    except ReliefError as error:
        error.add_note(f"while working on {place}")
        raise
