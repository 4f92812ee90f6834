"""`onnx-relief inspect`: what a model consists of, and what could be pruned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer
from rich.console import Group

from onnx_relief.channels.coupling import coupled_units
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import Model, Shape
from onnx_relief.commands.one_feed import one_feed
from onnx_relief.commands.options import (
    PrepareOptions,
    SpeakOptions,
    parse_shapes,
    preprocess_of,
)
from onnx_relief.graph.document import input_specs, load
from onnx_relief.inspection import inspect as look_at
from onnx_relief.report.inspected import Inspection, inspection_table


@dataclass(frozen=True, kw_only=True)
class InspectOptions(PrepareOptions, SpeakOptions):
    """Everything that `inspect` can be told."""

    model: Model
    data: Annotated[
        str | None,
        typer.Option(help="Sample data; one sample tells how much work each layer is."),
    ] = None
    shape: Shape = None
    groups: Annotated[
        bool,
        typer.Option(
            "--groups",
            help="Also list the channels that live or die together, and what stays and why; needs "
            "--data or --shape where the inputs' sizes are free.",
        ),
    ] = False
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
    if options.groups:
        found = _with_groups(options, found)
    speaker.result(Group(*inspection_table(found, verbose=options.verbose)), found.to_json())


def _with_groups(options: InspectOptions, found: Inspection) -> Inspection:
    document = load(options.model)
    inputs = input_specs(document.proto)
    feed = one_feed(inputs, options.data, parse_shapes(options.shape), options)
    macs = {layer.name: layer.cost.macs for layer in found.layers}
    groups, stays = coupled_units(document, feed, macs)
    return replace(found, groups=groups, stays=stays)
