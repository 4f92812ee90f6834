"""`onnx-relief evaluate`: how well a model does, alone or beside another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from onnx_relief.api.compare import evaluate as judge
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import Model
from onnx_relief.commands.options import (
    PrepareOptions,
    RunOptions,
    SpeakOptions,
    preprocess_of,
)
from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.table import evaluation_table, score_line, sentences
from onnx_relief.results import Score


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(PrepareOptions, RunOptions, SpeakOptions):
    """Everything that `evaluate` can be told."""

    model: Model
    data: Annotated[str, typer.Option(help="Sample data, as `prune` takes it.")]
    against: Annotated[
        Path | None,
        typer.Option(help="The dense model to compare with; needed without labels."),
    ] = None


def evaluate(options: EvaluateOptions) -> None:
    """Measure accuracy, or how far a model is from another one.

    Example: onnx-relief evaluate model.pruned.onnx --data test.npz --against model.onnx
    """
    speaker = Speaker(options)
    with speaker.progress() as progress:
        found = judge(
            options.model,
            options.data,
            against=options.against,
            metric=options.metric,
            output=options.output,
            batch_size=options.batch_size,
            provider=options.provider,
            preprocess=preprocess_of(options),
            strict=options.strict,
            progress=progress,
        )
    table = score_line(found) if isinstance(found, Score) else evaluation_table(found)
    plain = {"format": "onnx-relief evaluation 1", **as_plain(found)}
    speaker.result(Group(table, *sentences(found.notes)), to_json(plain))
