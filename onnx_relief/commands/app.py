"""All commands, as Typer knows them. Importing this imports everything that they need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from onnx_relief import __version__
from onnx_relief.commands.analyze import AnalyzeOptions, analyze
from onnx_relief.commands.bench import BenchOptions, bench
from onnx_relief.commands.compact import CompactOptions, compact
from onnx_relief.commands.compare import CompareOptions, compare
from onnx_relief.commands.evaluate import EvaluateOptions, evaluate
from onnx_relief.commands.inspect import InspectOptions, inspect
from onnx_relief.commands.iterate import IterateOptions, iterate
from onnx_relief.commands.options import command_of
from onnx_relief.commands.prune import prune
from onnx_relief.commands.prune_options import PruneOptions
from onnx_relief.commands.retrain import RetrainOptions, retrain
from onnx_relief.commands.verify import VerifyOptions, verify

app = typer.Typer(
    name="onnx-relief",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prune ONNX models with sample data, and say honestly what it cost.",
)
app.command("inspect")(command_of(inspect, InspectOptions))
app.command("analyze")(command_of(analyze, AnalyzeOptions))
app.command("prune")(command_of(prune, PruneOptions))
app.command("retrain")(command_of(retrain, RetrainOptions))
app.command("iterate")(command_of(iterate, IterateOptions))
app.command("compact")(command_of(compact, CompactOptions))
app.command("evaluate")(command_of(evaluate, EvaluateOptions))
app.command("compare")(command_of(compare, CompareOptions))
app.command("bench")(command_of(bench, BenchOptions))
app.command("verify")(command_of(verify, VerifyOptions))


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


def run(arguments: Sequence[str]) -> int:
    """Run a command and return what it returns; its errors come out as they are."""
    command = typer.main.get_command(app)
    code = command.main(list(arguments), prog_name="onnx-relief", standalone_mode=False)
    return code if isinstance(code, int) else 0


def command_names() -> list[str]:
    """Return the names of all commands."""
    return [str(command.name) for command in app.registered_commands]
