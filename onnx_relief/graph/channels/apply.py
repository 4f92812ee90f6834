"""Run one operator on a few numbers, as ONNX's own reference does it, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

Floats = NDArray[np.float64]


def apply(
    node: onnx.NodeProto, opset: int, operands: Sequence[NDArray[np.generic] | None]
) -> Floats:
    """Return the first output of an operator of the default domain.

    Args:
        node: The operator and its attributes; its names do not matter.
        opset: Version of the default operator set.
        operands: Its inputs, None for those that are left out; numbers become float64.

    >>> apply(helper.make_node("Relu", ["x"], ["y"]), 21, [np.array([-1.0, 2.0])]).tolist()
    [0.0, 2.0]
    """
    one = onnx.NodeProto()
    one.CopyFrom(node)
    del one.input[:], one.output[:]
    feed: dict[str, NDArray[np.generic]] = {}
    for at, operand in enumerate(operands):
        one.input.append("" if operand is None else f"x{at}")
        if operand is not None:
            wide = operand.dtype.kind in "fV" or operand.dtype.name == "bfloat16"
            feed[f"x{at}"] = operand.astype(np.float64) if wide else operand
    one.output.append("y")
    graph = helper.make_graph(
        [one],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feed.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    with np.errstate(all="ignore"):
        results: Sequence[NDArray[np.generic]] = ReferenceEvaluator(model).run(None, feed)  # type: ignore[assignment]
    return np.asarray(results[0], np.float64)
