"""The Python API of `evaluate` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnx_relief.accounting import compared
from onnx_relief.comparing.evaluation import compare_models, evaluate_model
from onnx_relief.data import Dataset, Preprocess, open_data
from onnx_relief.errors import SettingsError
from onnx_relief.graph.cost import cost_of, layer_costs, total_bytes
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.graph.folded import with_whole_weights
from onnx_relief.graph.layers import find_layers
from onnx_relief.inspection import Model
from onnx_relief.measuring.positions import check_shapes, positions_on_data, positions_on_shapes
from onnx_relief.progress import ticker
from onnx_relief.report.compared import Comparison
from onnx_relief.results import Evaluation, ModelCost, Progress, Score


def evaluate(
    model: Model,
    data: object,
    *,
    against: Model | None = None,
    metric: str | None = None,
    output: str | None = None,
    batch_size: int = 16,
    provider: str = "auto",
    preprocess: Preprocess | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Score | Evaluation:
    """Return how well a model does on labelled data, or how far it is from another one.

    Args:
        model: Path of an ONNX file, or a model in memory; it is not changed.
        data: Data of any form that `prune` takes.
        against: The dense model to compare with; needed without labels.
        metric: As `prune` takes it.
        output: The output that the metric looks at.
        batch_size: Samples per run, where the model leaves that open.
        provider: Execution provider of ONNX Runtime, or ``auto``.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.
        progress: Called with (stage, done, total or None).

    Raises:
        ReliefError: One sentence that says what, where, and what to do.
    """
    document = load(model)
    opened = _opened(document, data, preprocess, strict)
    tick = ticker(progress, "running the model", opened.size)
    if against is None:
        return evaluate_model(
            document,
            opened,
            metric=metric,
            output=output,
            batch_size=batch_size,
            provider=provider,
            tick=tick,
        )
    return compare_models(
        load(against),
        document,
        opened,
        metric=metric,
        output=output,
        batch_size=batch_size,
        provider=provider,
        tick=tick,
    )


def compare(
    first: Model,
    second: Model,
    data: object | None = None,
    *,
    metric: str | None = None,
    output: str | None = None,
    batch_size: int = 16,
    provider: str = "auto",
    preprocess: Preprocess | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Return size, work, outputs and latency of two models side by side.

    Args:
        first: What the other is measured against.
        second: The other one.
        data: Data of any form that `prune` takes; without it only sizes are compared.
        metric: As `prune` takes it.
        output: The output that the metric looks at.
        batch_size: Samples per run, where the models leave that open.
        provider: Execution provider of ONNX Runtime, or ``auto``.
        preprocess: How samples become what the models take.
        shapes: Without data, the shapes of inputs with free sizes.
        strict: Whether a broken picture is an error.
        progress: Called with (stage, done, total or None).

    Raises:
        ReliefError: One sentence that says what, where, and what to do.
    """
    documents = (load(first), load(second))
    for document in documents:
        check_shapes(input_specs(document.proto), shapes or {})
    evaluation, latency, opened = None, None, None
    if data is not None:
        opened = _opened(documents[0], data, preprocess, strict)
        evaluation, latency = compared(
            *documents,
            opened,
            batch_size=batch_size,
            provider=provider,
            metric=metric,
            output=output,
            progress=progress,
        )
    elif metric is not None or output is not None:
        raise SettingsError("--metric and --output need data to compare on; give --data")
    costs = [_cost(document, opened, shapes or {}, provider, progress) for document in documents]
    return Comparison(first=costs[0], second=costs[1], evaluation=evaluation, latency=latency)


def _opened(
    document: Document, data: object, preprocess: Preprocess | None, strict: bool
) -> Dataset:
    inputs = input_specs(document.proto)
    return open_data(data, inputs, preprocess=preprocess or Preprocess(), strict=strict)


def _cost(
    document: Document,
    data: Dataset | None,
    shapes: Mapping[str, tuple[int, ...]],
    provider: str,
    progress: Progress | None,
) -> ModelCost:
    # Weights that are joined when the model runs are work as well: in a cut model they are whole.
    survey = find_layers(with_whole_weights(document))
    if data is not None:
        positions = positions_on_data(survey, data, provider)
    else:
        positions = positions_on_shapes(survey, input_specs(document.proto), shapes, provider)
    tick = ticker(progress, "reading the model", total_bytes(document))
    layers = layer_costs(survey, positions.by_layer)
    return replace(cost_of(find_layers(document), {}, tick=tick), layers=layers)
