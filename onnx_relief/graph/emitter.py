"""Append nodes to a graph in the dialect of its operator set, and the reductions that run fast."""

from __future__ import annotations

from itertools import count

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper

PREFIX = "onnx_relief::"
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Exp", "Abs", "Softplus")
_numbers = count()


def fresh_name(what: str = "") -> str:
    """Return a tensor name that is not in use."""
    return f"{PREFIX}{what}{next(_numbers)}"


class Emitter:
    """Appends nodes to one graph, in the dialect of the model's operator set.

    Attributes:
        graph: The graph that the nodes go into.
        opset: Version of the model's default operator set.
        dtype: Element type of the statistics.
    """

    def __init__(self, graph: gs.Graph, opset: int, dtype: np.dtype[np.generic]) -> None:
        self.graph = graph
        self.opset = opset
        self.dtype = dtype

    def op(
        self,
        kind: str,
        *inputs: gs.Tensor,
        dtype: np.dtype[np.generic] | type | None = None,
        **attributes: object,
    ) -> gs.Variable:
        """Append one node and return its output."""
        out = gs.Variable(fresh_name(), dtype=dtype or self.dtype)
        self.graph.nodes.append(gs.Node(kind, out.name, dict(attributes), list(inputs), [out]))
        return out

    def const(self, values: NDArray[np.generic]) -> gs.Constant:
        """Return a new constant."""
        return gs.Constant(fresh_name(), values)

    def ints(self, *values: int) -> gs.Constant:
        """Return a new constant vector of int64."""
        return self.const(np.array(values, dtype=np.int64))

    def reshape(self, tensor: gs.Tensor, *shape: int, dtype: type | None = None) -> gs.Variable:
        """Append a Reshape."""
        return self.op("Reshape", tensor, self.ints(*shape), dtype=dtype)

    def reduce(
        self, kind: str, tensor: gs.Tensor, *axes: int, keepdims: bool, dtype: type | None = None
    ) -> gs.Variable:
        """Append a reduction; axes became an input at opset 13 (ReduceSum) and 18 (the rest)."""
        if self.opset >= (13 if kind == "ReduceSum" else 18):
            wanted = self.ints(*axes)
            return self.op(kind, tensor, wanted, keepdims=int(keepdims), dtype=dtype)
        return self.op(kind, tensor, axes=list(axes), keepdims=int(keepdims), dtype=dtype)

    def magnitude(self, tensor: gs.Tensor) -> gs.Tensor:
        """Append an Abs unless `tensor` comes from an operator that gives nothing negative."""
        source = tensor
        while source.inputs and source.inputs[0].op == "Cast":
            source = source.inputs[0].inputs[0]
        never_negative = bool(source.inputs) and source.inputs[0].op in _NEVER_NEGATIVE
        return tensor if never_negative else self.op("Abs", tensor)

    def sum_rows(self, tensor: gs.Tensor, width: int | None = None) -> gs.Variable:
        """Append the sum over all rows of `tensor` seen as (rows, width), shape (1, width).

        Without a width, the rows are the entries of the first axis. The sum is a product with
        ones: several times faster than the runtime's own reduction over a leading axis.
        """
        flat = self.reshape(tensor, 0, -1) if width is None else self.reshape(tensor, -1, width)
        if self.opset < 9:  # There is no ConstantOfShape yet.
            return self.reduce("ReduceSum", flat, 0, keepdims=True)
        shape = self.op("Shape", flat, dtype=np.int64)
        rows = self.op("Gather", shape, self.ints(0), axis=0, dtype=np.int64)
        ones = self.op("ConstantOfShape", rows, value=gs.Constant("", np.ones(1, self.dtype)))
        return self.op("MatMul", self.reshape(ones, 1, -1), flat)

    def norms(self, tensor: gs.Tensor, axis: int) -> gs.Variable:
        """Append the Euclidean norms over the last axis of `tensor`, which is `axis`."""
        squares = self.op("Mul", tensor, tensor)
        return self.op("Sqrt", self.reduce("ReduceSum", squares, axis, keepdims=False))

    def cast(self, tensor: gs.Tensor) -> gs.Tensor:
        """Append a Cast to the type of the statistics unless `tensor` is known to have it."""
        if tensor.dtype is not None and np.dtype(tensor.dtype) == self.dtype:
            return tensor
        return self.op("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(self.dtype))
