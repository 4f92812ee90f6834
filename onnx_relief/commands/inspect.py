"""`onnx-relief inspect`: what a model consists of, and what could be pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Group

from onnx_relief.commands.console import Speaker
from onnx_relief.commands.options import (
    Model,
    PrepareOptions,
    Shape,
    SpeakOptions,
    parse_shapes,
    preprocess_of,
)
from onnx_relief.inspection import inspect as look_at
from onnx_relief.report.inspected import inspection_table


@dataclass(frozen=True, kw_only=True)
class InspectOptions(PrepareOptions, SpeakOptions):
    """Everything that `inspect` can be told."""

    model: Model
    data: Annotated[
        str | None,
        typer.Option(help="Sample data; one sample tells how much work each layer is."),
    ] = None
    shape: Shape = None
    provider: Annotated[str, typer.Option(help="Where that one sample is run.")] = "auto"


def inspect(options: InspectOptions) -> None:
    """List layers, parameters, MACs and sparsity, and why a node is no layer.

    Example: onnx-relief inspect model.onnx --shape image=1x3x224x224
    """
    speaker = Speaker(options)
    with speaker.progress() as progress:
        found = look_at(
            options.model,
            options.data,
            shapes=parse_shapes(options.shape),
            preprocess=preprocess_of(options),
            provider=options.provider,
            progress=progress,
        )
    speaker.result(Group(*inspection_table(found, verbose=options.verbose)), found.to_json())
