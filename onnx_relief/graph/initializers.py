"""Add an initializer to a graph."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


def add_initializer(graph: onnx.GraphProto, array: NDArray[np.generic], name: str) -> None:
    """Add an array to a graph under a name that nothing has yet.

    Before IR version 4 every initializer is an input of the graph as well; where those that are
    there are inputs, the new one becomes one, too.
    """
    inputs = {value.name for value in graph.input}
    old_fashioned = bool(graph.initializer) and all(t.name in inputs for t in graph.initializer)
    tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    graph.initializer.append(tensor)
    if old_fashioned:
        graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, array.shape))
