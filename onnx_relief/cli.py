"""The command line: arguments in, exit code out. Every error becomes one sentence.

Nothing heavy is imported here, so that Ctrl-C is answered properly from the first moment.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from onnx_relief.commands.scratch import scratch_folder
from onnx_relief.commands.signals import Stopped, stoppable
from onnx_relief.errors import ReliefError
from onnx_relief.report.text import plain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 a bug, 2 wrong arguments, 3 the model cannot be read or run, 4 the data cannot be
    used, 5 nothing to prune or not supported; 130 interrupted, 143 terminated.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Where other programs want the processors too, threads that wait in a loop make training of
    # small models ten times slower. It has to be said before PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _silence_libraries()
    with stoppable() as stopper:
        try:
            with scratch_folder():
                from onnx_relief.commands.app import run

                return run(given)
        except Stopped as stopped:
            return _fail("interrupted", stopped.exit_code)
        except (Exception, SystemExit) as error:
            # An interruption in the middle of an import comes out as that import's failure.
            if stopper.heard is not None:
                return _fail("interrupted", stopper.heard.exit_code)
            return _sentence_for(error, given)


def _silence_libraries() -> None:
    """Keep warnings of libraries for the log; what matters of them is said in our words."""
    logging.captureWarnings(True)
    warned = logging.getLogger("py.warnings")
    warned.addHandler(logging.NullHandler())
    warned.propagate = False


def _sentence_for(error: BaseException, given: Sequence[str]) -> int:
    if isinstance(error, ReliefError):
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        return _fail(f"{error}{notes}", error.exit_code)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, SystemExit):  # Rich leaves so when the reader of its pipe has gone
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, MemoryError):
        return _fail("not enough memory; a smaller --batch-size needs less", 1)
    return _unexpected(error, given)


def _unexpected(error: BaseException, given: Sequence[str]) -> int:
    """Say what the arguments lack, or that this is a bug."""
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # Typer's own: it knows which argument is wrong
        from onnx_relief.commands.app import command_names

        command = given[0] if given and given[0] in command_names() else ""
        helped = f"onnx-relief {command} --help".replace("  ", " ")
        reason = str(format_message()).rstrip(".") or "no command was given"
        return _fail(f"{reason}; see `{helped}`", 2)
    if "-v" in given or "--verbose" in given:
        traceback.print_exception(error)
    reason = f"{type(error).__name__}: {error}"
    return _fail(f"this is a bug in onnx-relief, please report it with what -v prints: {reason}", 1)


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"error: {plain(sentence)}\n")
    return code
