"""Take the weights out of a model, so that copying and handing it over costs next to nothing.

ONNX Runtime takes initializers from outside as arrays: what is left of the model is small, and the
weights are in memory once, whatever is built around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_relief.graph.nodes import subgraphs

_OUTSIDE = "given-as-an-array"
_WORTH_BYTES = 4096  # shapes and other small constants stay, since inference of shapes needs them


@dataclass(frozen=True, eq=False)
class LightModel:
    """A model without its large weights, and those weights by name.

    Attributes:
        proto: A copy whose large initializers only say name, type and shape.
        weights: Their values, read-only.
    """

    proto: onnx.ModelProto
    weights: dict[str, NDArray[Any]]


def without_weights(proto: onnx.ModelProto) -> LightModel:
    """Return a copy of `proto` with the large initializers of its main graph outside.

    Initializers that nothing or a body reads, in typed fields, in other files or of types that
    NumPy does not have stay where they are.
    """
    light = onnx.ModelProto()
    weights: dict[str, NDArray[Any]] = {}
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy(light, field.name, value)
    light.graph.SetInParent()
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _copy(light.graph, field.name, value)
    # The runtime looks at what bodies read before it is given the arrays, and drops what nothing
    # reads before it would find what the array is for.
    inner = {
        name for node in proto.graph.node for _, b in subgraphs(node) for name in names_read(b)
    }
    read = {name for node in proto.graph.node for name in node.input} - inner
    for tensor in proto.graph.initializer:
        kept = light.graph.initializer.add()
        if tensor.name not in read or not _can_leave(tensor):
            kept.CopyFrom(tensor)
            continue
        weights[tensor.name] = numpy_helper.to_array(tensor)
        kept.name, kept.data_type = tensor.name, tensor.data_type
        kept.dims.extend(tensor.dims)
        kept.data_location = onnx.TensorProto.EXTERNAL
        kept.external_data.add(key="location", value=_OUTSIDE)
    return LightModel(light, weights)


def node_reads(node: onnx.NodeProto) -> list[str]:
    """Return the names that a node reads, those of its bodies included, and harmlessly more."""
    inner = (name for _, body in subgraphs(node) for name in names_read(body))
    return [name for name in (*node.input, *inner) if name]


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Return what the nodes, bodies and outputs of `graph` read, and harmlessly more."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node_reads(node))
    return names


def _copy(target: Any, name: str, value: Any) -> None:  # noqa: ANN401
    field = getattr(target, name)
    if hasattr(field, "extend"):
        field.extend(value)
    elif hasattr(field, "CopyFrom"):
        field.CopyFrom(value)
    else:
        setattr(target, name, value)


def _can_leave(tensor: onnx.TensorProto) -> bool:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.raw_data) < _WORTH_BYTES:
        return False
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    # Packed and extension types (int4, bfloat16) have no array that the runtime would take.
    whole = len(tensor.raw_data) == dtype.itemsize * int(np.prod(tensor.dims, dtype=np.int64))
    return dtype.isbuiltin == 1 and dtype.kind in "fiu" and whole
