"""`onnx-relief compare`: two models side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from onnx_relief.api.compare import compare as put_side_by_side
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import Shape
from onnx_relief.commands.options import (
    PrepareOptions,
    RunOptions,
    SpeakOptions,
    parse_shapes,
    preprocess_of,
)
from onnx_relief.report.compared import comparison_table


@dataclass(frozen=True, kw_only=True)
class CompareOptions(PrepareOptions, RunOptions, SpeakOptions):
    """Everything that `compare` can be told."""

    first: Annotated[
        Path, typer.Argument(metavar="A", help="The model to compare with.", show_default=False)
    ]
    second: Annotated[
        Path, typer.Argument(metavar="B", help="The other model.", show_default=False)
    ]
    data: Annotated[
        str | None,
        typer.Option(help="Sample data, as `prune` takes it; without it only sizes."),
    ] = None
    shape: Shape = None


def compare(options: CompareOptions) -> None:
    """Put size, work, outputs and latency of two models side by side.

    Example: onnx-relief compare model.onnx model.pruned.onnx --data test.npz
    """
    speaker = Speaker(options)
    with speaker.progress() as progress:
        found = put_side_by_side(
            options.first,
            options.second,
            options.data,
            metric=options.metric,
            output=options.output,
            batch_size=options.batch_size,
            provider=options.provider,
            preprocess=preprocess_of(options),
            shapes=parse_shapes(options.shape),
            strict=options.strict,
            progress=progress,
        )
    speaker.result(Group(*comparison_table(found)), found.to_json())
