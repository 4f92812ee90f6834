"""Why a node that multiplies by constants is not a layer, in words: nothing is skipped silently."""

from __future__ import annotations

import onnx

from onnx_relief.graph.nodes import STANDARD
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import Scope

_ELEMENTWISE = "it scales elements one by one, so there is no connection to drop"
_NORMALISATION = "it normalises channels one by one; its parameters go when their channel goes"
_INTEGER = "its weights are integers used as they are; prune the float model, then quantize"
_ATTRIBUTES = "its coefficients are attributes, not tensors"
_TREES = "its trees compare inputs with numbers and multiply nothing"

# By operator: (indices of the inputs that may hold the constants, the reason).
REASONS: dict[str, tuple[tuple[int, ...], str]] = {
    "Mul": ((0, 1), _ELEMENTWISE),
    "Div": ((0, 1), _ELEMENTWISE),
    "PRelu": ((1,), _ELEMENTWISE),
    "BatchNormalization": ((1,), _NORMALISATION),
    "InstanceNormalization": ((1,), _NORMALISATION),
    "GroupNormalization": ((1,), _NORMALISATION),
    "LayerNormalization": ((1,), _NORMALISATION),
    "RMSNormalization": ((1,), _NORMALISATION),
    "DeformConv": ((1,), "its taps move with the data, which this version cannot score"),
    "QLinearConv": ((3,), _INTEGER),
    "ConvInteger": ((1,), _INTEGER),
    "QLinearMatMul": ((0, 3), _INTEGER),
    "MatMulInteger": ((0, 1), _INTEGER),
    "Gather": ((0,), "it looks rows up and multiplies nothing (an embedding)"),
}

# Of the operators for classical machine learning those that multiply, and those that hold a model
# of their own.
ML_REASONS = {
    "LinearClassifier": _ATTRIBUTES,
    "LinearRegressor": _ATTRIBUTES,
    "SVMClassifier": _ATTRIBUTES,
    "SVMRegressor": _ATTRIBUTES,
    "Scaler": _ELEMENTWISE,
    "TreeEnsemble": _TREES,
    "TreeEnsembleClassifier": _TREES,
    "TreeEnsembleRegressor": _TREES,
}


def reason_against(node: onnx.NodeProto, scope: Scope, constants: Constants) -> str | None:
    """Return why `node` is no layer although it holds constants that act on data, else None."""
    if node.domain == "ai.onnx.ml":
        return ML_REASONS.get(node.op_type)
    if node.domain not in STANDARD:
        return _custom(node, scope, constants)
    places, reason = REASONS.get(node.op_type, ((), ""))
    for index in places:
        if index < len(node.input) and _holds_weights(node.input[index], scope, constants):
            others = [name for i, name in enumerate(node.input) if i != index and name]
            if any(scope.changes(name) for name in others):
                return reason
    return None


def _custom(node: onnx.NodeProto, scope: Scope, constants: Constants) -> str | None:
    if any(_holds_weights(name, scope, constants) for name in node.input if name):
        return (
            f"{node.domain}.{node.op_type} is not an ONNX operator, so its weights are left alone"
        )
    return None


def _holds_weights(name: str, scope: Scope, constants: Constants) -> bool:
    view = constants.resolve(scope, name) if name else ""
    return not isinstance(view, str) and view.size > 1
