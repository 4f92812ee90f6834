"""The command line: arguments in, exit code out. Every error becomes one sentence."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer
from rich.text import Text

from onnx_relief import __version__
from onnx_relief.commands.compare import CompareOptions, compare
from onnx_relief.commands.console import error_console
from onnx_relief.commands.evaluate import EvaluateOptions, evaluate
from onnx_relief.commands.inspect import InspectOptions, inspect
from onnx_relief.commands.options import command_of
from onnx_relief.commands.prune import PruneOptions, prune
from onnx_relief.errors import ReliefError
from onnx_relief.report.text import plain

_INTERRUPTED = 130
_TERMINATED = 143

app = typer.Typer(
    name="onnx-relief",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prune ONNX models with sample data, and say honestly what it cost.",
)
app.command("inspect")(command_of(inspect, InspectOptions))
app.command("prune")(command_of(prune, PruneOptions))
app.command("evaluate")(command_of(evaluate, EvaluateOptions))
app.command("compare")(command_of(compare, CompareOptions))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnx-relief {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Prune ONNX models with sample data, and say honestly what it cost."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 a bug, 2 wrong arguments, 3 the model cannot be read or run, 4 the data cannot be
    used, 5 nothing to prune or not supported, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())
    logging.getLogger("py.warnings").propagate = False
    try:
        with _Signals():
            code = typer.main.get_command(app).main(
                given, prog_name="onnx-relief", standalone_mode=False
            )
        return code if isinstance(code, int) else 0
    except ReliefError as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        return _fail(f"{error}{notes}", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("not enough memory; a smaller --batch-size needs less", 1)
    except Exception as error:
        return _unexpected(error, given)


def _unexpected(error: Exception, given: Sequence[str]) -> int:
    """Say what the arguments lack, or that this is a bug."""
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # Typer's own: it knows which argument is wrong
        command = given[0] if given and given[0] in _command_names() else ""
        helped = f"onnx-relief {command} --help".replace("  ", " ")
        return _fail(f"{str(format_message()).rstrip('.')}; see `{helped}`", 2)
    if "-v" in given or "--verbose" in given:
        traceback.print_exception(error)
    reason = f"{type(error).__name__}: {error}"
    return _fail(f"this is a bug in onnx-relief, please report it with what -v prints: {reason}", 1)


def _fail(sentence: str, code: int) -> int:
    error_console().print(Text(f"error: {plain(sentence)}"), soft_wrap=True)
    return code


def _command_names() -> list[str]:
    return [str(command.name) for command in app.registered_commands]


class _Signals:
    """Ctrl-C once is enough: a second one must not disturb the cleaning up after the first."""

    def __enter__(self) -> None:
        self._before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, _stop)
            except ValueError:  # not the main thread
                continue

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    if number == signal.SIGTERM:
        raise SystemExit(_TERMINATED)
    raise KeyboardInterrupt
