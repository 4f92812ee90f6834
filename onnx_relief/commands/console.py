"""How the commands speak: results to the standard output, everything else to the standard error."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from onnx_relief.commands.options import SpeakOptions
from onnx_relief.commands.signals import check_stopped
from onnx_relief.report.text import count_text, plain
from onnx_relief.results import Progress as Tell

_PIPE_WIDTH = 120
"""Columns of a table that goes into a file or a pipe."""


class QuietlyClosed(Console):
    """A console that goes on in silence when the reader of its pipe has gone."""

    def on_broken_pipe(self) -> None:
        """Let what is still printed vanish, and the work go on."""
        self.quiet = True
        vanish = os.open(os.devnull, os.O_WRONLY)
        os.dup2(vanish, sys.stdout.fileno())


class Speaker:
    """What a command says, as the user wants it."""

    def __init__(self, options: SpeakOptions, *, silent: bool = False) -> None:
        self._options = replace(options, quiet=True, json=False) if silent else options
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Names may hold what the encoding of the terminal has no room for.
            sys.stdout.reconfigure(errors="backslashreplace")
        self._out = QuietlyClosed(highlight=False, markup=False, emoji=False)
        if not self._out.is_terminal:
            self._out.width = max(self._out.width, _PIPE_WIDTH)
        self._errors = error_console()
        _log_to(self._errors, logging.INFO if options.verbose else logging.WARNING)

    @property
    def verbose(self) -> bool:
        """Whether everything shall be named."""
        return self._options.verbose

    def result(self, table: RenderableType, json: str) -> None:
        """Print the result: as a table, as JSON, or not at all."""
        if self._options.json:
            self._out.out(json, highlight=False)
        elif not self._options.quiet:
            self._out.print(table)

    def line(self, text: str) -> None:
        """Print a line about the work while it goes on, above the progress display."""
        if not self._options.quiet:
            self._errors.print(Text(plain(text)), soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Tell]:
        """Show how far the work has come while the block runs, on a terminal only."""
        hidden = self._options.quiet or not self._errors.is_terminal
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
        )
        with Progress(*columns, console=self._errors, transient=True, disable=hidden) as bar:
            yield _Stages(bar)


class _Stages:
    """One line of a progress display for each stage of the work."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        check_stopped()
        amount = count_text(done) if total is None else f"{count_text(done)}/{count_text(total)}"
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total, amount=amount)
        self._bar.update(self._tasks[stage], completed=done, total=total, amount=amount)


class _Lines(logging.Handler):
    """Log records as one line each."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        text = f"{record.levelname.lower()}: {plain(record.getMessage())}"
        self._console.print(Text(text), soft_wrap=True)


def error_console() -> Console:
    """Return a console on the standard error."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _log_to(console: Console, level: int) -> None:
    logger = logging.getLogger("onnx_relief")
    for handler in [one for one in logger.handlers if isinstance(one, _Lines)]:
        logger.removeHandler(handler)
    logger.addHandler(_Lines(console))
    logger.setLevel(level)
    logger.propagate = False
