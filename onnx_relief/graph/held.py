"""What a node holds that is a constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.graph.nodes import node_key
from onnx_relief.graph.storage import read, read_sparse

Array = NDArray[Any]


def tensor_in(node: onnx.NodeProto) -> onnx.TensorProto | onnx.SparseTensorProto | None:
    """Return the tensor that a Constant or ConstantOfShape holds; None for other attributes."""
    for attribute in node.attribute:
        if attribute.name == "value":
            dense: onnx.TensorProto = attribute.t
            return dense
        if attribute.name == "sparse_value":
            sparse: onnx.SparseTensorProto = attribute.sparse_tensor
            return sparse
    return None


def node_value(document: Document, node: onnx.NodeProto) -> Array:
    """Return what a Constant node holds, or the fill value of a ConstantOfShape node."""
    held = tensor_in(node)
    if isinstance(held, onnx.SparseTensorProto):
        return read_sparse(document, held)
    if held is not None:
        return read(document, held)
    for attribute in node.attribute:
        if attribute.name == "value_float":
            return np.array(attribute.f, np.float32)
        if attribute.name == "value_floats":
            return np.array(attribute.floats, np.float32)
        if attribute.name == "value_int":
            return np.array(attribute.i, np.int64)
        if attribute.name == "value_ints":
            return np.array(attribute.ints, np.int64)
    if node.op_type == "ConstantOfShape":
        return np.zeros(1, np.float32)
    raise UnsupportedError(f"Constant {node_key(node)!r} holds strings or nothing")
