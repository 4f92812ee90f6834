"""Run the package on small models and feeds made in a test, without files and command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_relief.data.batch import Batch
from onnx_relief.decide import Scores, score
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.measure import Measurement, measure
from onnx_relief.runtime import open_session
from onnx_relief.settings import Settings

Arrays = Mapping[str, Any]


def one_layer(
    op: str,
    inputs: Sequence[str],
    constants: Arrays,
    fed: Arrays,
    *,
    outputs: Sequence[str] = ("y",),
    **attributes: Any,
) -> onnx.ModelProto:
    """Return a model of one node named `layer`."""
    node = helper.make_node(op, list(inputs), list(outputs), name="layer", **attributes)
    return model_of([node], constants, fed, [name for name in outputs if name])


def model_of(
    nodes: Sequence[onnx.NodeProto],
    constants: Arrays,
    fed: Arrays,
    outputs: Sequence[str | onnx.ValueInfoProto],
    *,
    opset: int = 17,
    ir: int = 8,
    **parts: Any,
) -> onnx.ModelProto:
    """Return a model of these nodes, fed with arrays like these but of any size."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [_like(name, array) for name, array in fed.items()],
        [
            helper.make_empty_tensor_value_info(out) if isinstance(out, str) else out
            for out in outputs
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir, **parts)
    return onnx.shape_inference.infer_shapes(model)


def _like(name: str, array: Any) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
    return helper.make_tensor_value_info(name, kind, [None] * np.ndim(array))


def measured(
    model: onnx.ModelProto, *feeds: Arrays, counts: Sequence[int] | None = None, **settings: Any
) -> Measurement:
    """Return what the package measures of all layers; every feed is one batch."""
    survey = find_layers(load(model))
    counts = counts or [_rows(feed) for feed in feeds]
    batches = [
        Batch(feed=dict(feed), labels=None, count=count)
        for feed, count in zip(feeds, counts, strict=True)
    ]
    return measure(survey, survey.sites, batches, Settings(**settings))


def scores_of(model: onnx.ModelProto, *feeds: Arrays, **settings: Any) -> dict[str, Scores]:
    """Return the package's scores by layer name."""
    survey = find_layers(load(model))
    activities = measured(model, *feeds, **settings).activities
    sites = {site.layer.name: site for site in survey.sites}
    return {name: score(survey, sites[name], activity) for name, activity in activities.items()}


def run(model: onnx.ModelProto, feed: Arrays) -> dict[str, Any]:
    """Return the outputs of the model itself."""
    return open_session(model, provider="cpu").run(feed)


def _rows(feed: Arrays) -> int:
    return max((len(array) for array in feed.values() if np.ndim(array)), default=1)


def assert_scores(scores: Scores, *expected: np.ndarray, rtol: float, atol: float) -> None:
    """Compare the scores of one layer with those of its weights and its bias, in that order."""
    *weights, bias = expected
    assert len(scores.weights) == len(weights)
    for got, want in zip((*scores.weights, scores.bias), (*weights, bias), strict=True):
        np.testing.assert_allclose(got.reshape(want.shape), want, rtol=rtol, atol=atol)
