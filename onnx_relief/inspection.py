"""Look at a model without changing it: its layers, what they cost, and why others are none."""

from __future__ import annotations

import os
from collections.abc import Mapping

import onnx

from onnx_relief.compaction.shrinking import shrink
from onnx_relief.data import Dataset, Preprocess, first_sample, open_data
from onnx_relief.errors import ReliefError
from onnx_relief.graph.cost import cost_of, count_parameters, layer_costs, total_bytes
from onnx_relief.graph.document import Document, input_specs, load, opset, output_specs
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.measuring.positions import (
    Positions,
    check_shapes,
    made_up_feed,
    positions_on_data,
    positions_on_shapes,
)
from onnx_relief.plan import Layer
from onnx_relief.progress import ticker
from onnx_relief.report.build import refusal_rows
from onnx_relief.report.inspected import AfterCompaction, InspectedLayer, Inspection
from onnx_relief.results import ModelCost, Progress

Model = str | os.PathLike[str] | onnx.ModelProto


def inspect(
    model: Model,
    data: object | None = None,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    preprocess: Preprocess | None = None,
    provider: str = "auto",
    progress: Progress | None = None,
) -> Inspection:
    """Return the layers of a model, their cost, and why other nodes are none.

    Args:
        model: Path of an ONNX file, or a model in memory; it is not changed.
        data: Any form of data; its first sample tells how much work a layer is.
        shapes: Instead of data, the shapes of inputs with free sizes.
        preprocess: How samples become what the model takes.
        provider: Execution provider of ONNX Runtime.
        progress: Told how far the work has come.

    Raises:
        ModelError: The model cannot be read.
        DataError, SettingsError: Data or shapes do not fit the model.
    """
    document = load(model)
    survey = find_layers(document)
    inputs = input_specs(document.proto)
    check_shapes(inputs, shapes or {})
    opened = None
    if data is not None:
        opened = open_data(data, inputs, preprocess=preprocess or Preprocess())
    positions = _positions(survey, opened, shapes or {}, provider)
    tick = ticker(progress, "reading the model", total_bytes(document))
    cost = cost_of(survey, positions.by_layer, tick=tick)
    return Inspection(
        inputs={spec.name: spec.describe() for spec in inputs},
        outputs={spec.name: spec.describe() for spec in output_specs(document.proto)},
        opset=opset(document.proto),
        producer=f"{document.proto.producer_name} {document.proto.producer_version}".strip(),
        cost=cost,
        layers=_layers(survey, cost),
        refusals=refusal_rows(survey),
        unknown_work=positions.reason if cost.unmeasured else None,
        after=_after_compaction(document, cost, opened, shapes or {}, provider),
    )


def _positions(
    survey: Survey,
    data: Dataset | None,
    shapes: Mapping[str, tuple[int, ...]],
    provider: str,
) -> Positions:
    if data is not None:
        return positions_on_data(survey, data, provider)
    return positions_on_shapes(survey, input_specs(survey.document.proto), shapes, provider)


def _after_compaction(
    document: Document,
    cost: ModelCost,
    data: Dataset | None,
    shapes: Mapping[str, tuple[int, ...]],
    provider: str,
) -> AfterCompaction | None:
    """Return what `compact` would leave of a model that has connections of zeros, else None."""
    if all(layer.kept == layer.connections for layer in cost.layers):
        return None
    try:
        feed = made_up_feed(input_specs(document.proto), shapes)
        if data is not None:
            feed = dict(first_sample(data).feed)
        if feed is None:
            return AfterCompaction(unknown="an input has a free size; give --shape, or --data")
        smaller = find_layers(shrink(document, feed).document)
    except ReliefError as error:
        return AfterCompaction(unknown=str(error))
    layers = layer_costs(smaller, _positions(smaller, data, shapes, provider).by_layer)
    macs = [layer.macs for layer in layers]
    return AfterCompaction(
        parameters=count_parameters(smaller)[0],
        macs=None if any(one is None for one in macs) else sum(one or 0.0 for one in macs),
    )


def _layers(survey: Survey, cost: ModelCost) -> tuple[InspectedLayer, ...]:
    flows = follow_units(survey)
    return tuple(
        InspectedLayer(
            name=layer.name,
            op=layer.op,
            kind=layer.kind.value,
            weights=tuple(weight.name for weight in layer.weights),
            bias=layer.bias.name if layer.bias else None,
            groups=layer.weights[0].groups,
            kernel=_kernel(layer),
            cost=price,
            readers=tuple(reader.layer for reader in flows[layer.name].readers),
            not_followed=flows[layer.name].blocked,
        )
        for layer, price in zip(survey.layers, cost.layers, strict=True)
    )


def _kernel(layer: Layer) -> tuple[int, ...]:
    return layer.geometry.kernel if layer.geometry else ()
