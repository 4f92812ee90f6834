"""The mean of every channel of some tensors over calibration data, reduced inside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_relief.data import Dataset
from onnx_relief.graph.channels import Trace
from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.layers import Survey
from onnx_relief.measure import full_batches
from onnx_relief.progress import ticker
from onnx_relief.results import Progress
from onnx_relief.runtime import open_session
from onnx_relief.settings import Settings

Means = dict[str, NDArray[np.float64]]


def mean_inputs(
    survey: Survey,
    trace: Trace,
    names: Sequence[str],
    data: Dataset,
    settings: Settings,
    progress: Progress | None = None,
) -> Means:
    """Return the mean of each channel over samples and places, float64, by tensor.

    Args:
        survey: The model.
        trace: Its channel ids; tensors whose ids vary along no axis are left out.
        names: The tensors.
        data: Calibration data.
        settings: How many samples, and how to run.
        progress: Told how far the work has come.

    Raises:
        ModelError, DataError: The model cannot be run on the data.
    """
    wanted = [name for name in names if varying(trace.of(name))]
    if not wanted:
        return {}
    proto = _with_means(survey.document.proto, trace, wanted)
    session = open_session(proto, provider=settings.provider, folder=survey.document.folder)
    samples = data.take(settings.samples)
    tick = ticker(progress, "measuring mean signals", samples.size)
    sums: Means = {}
    count = 0
    outputs = [_output(name) for name in wanted]
    for batch in full_batches(samples, settings.batch_size):
        found = session.run(batch.feed, outputs)
        for name, output in zip(wanted, outputs, strict=True):
            mean = np.asarray(found[output], np.float64).reshape(-1) * batch.count
            sums[name] = sums[name] + mean if name in sums else mean
        count += batch.count
        tick(batch.count)
    return {name: total / count for name, total in sums.items()}


def _output(name: str) -> str:
    return f"onnx_relief_mean_of_{name}"


def _with_means(model: onnx.ModelProto, trace: Trace, names: Sequence[str]) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for name in names:
        axis = varying(trace.of(name))[0]
        axes = [other for other in range(len(trace.shape(name))) if other != axis]
        output = _output(name)
        node = helper.make_node("ReduceMean", [name], [output], keepdims=0)
        if trace.opset >= 18:
            node.input.append(f"{output}_axes")
            proto.graph.initializer.append(
                helper.make_tensor(node.input[1], onnx.TensorProto.INT64, [len(axes)], axes)
            )
        else:
            node.attribute.append(helper.make_attribute("axes", axes))
        proto.graph.node.append(node)
        proto.graph.output.append(onnx.ValueInfoProto(name=output))
    return proto
