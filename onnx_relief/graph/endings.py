"""How the outputs of a model are made: what their numbers are can be told by the last operator."""

from __future__ import annotations

from collections.abc import Mapping, Set

import onnx

from onnx_relief.graph.builders import BUILDERS
from onnx_relief.graph.document import Document
from onnx_relief.graph.equation import DOTS, terms_of
from onnx_relief.graph.nodes import STANDARD, attributes
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import Scope, understand

_SIGMOIDS = {"Sigmoid", "HardSigmoid"}
_MOVING = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
"""Operators that change no number, and whose first input alone holds numbers."""


_DECIDING = {
    "ArgMax",
    "ArgMin",
    "ZipMap",
    "TopK",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
}
_NAMING = {"Gather", "ArrayFeatureExtractor", "LabelEncoder", "CastMap", "Not"}
_FLOATS = {
    *(onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE),
    *(onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16),
}
_MOST_PARTS = 16
_ELEMENTWISE = {
    *("Identity", "Cast", "Dropout", "Softmax", "LogSoftmax", "Sigmoid", "Relu", "Tanh", "Clip"),
    *("QuantizeLinear", "DequantizeLinear"),
}
_WITH_ANOTHER = {"Add", "Sub", "Mul", "Div"}
_LAYERS = {*BUILDERS, "MatMulInteger"}
_SIZES = {"Sqrt", "Pow", "ReduceMean", "ReduceL2", "ReduceSumSquare"}
"""Operators of which the size of features is made that a normalisation divides by."""


def stepwise_outputs(document: Document) -> frozenset[str]:
    """Return the names of the outputs whose last axis holds what one layer says of each step.

    Of those of three axes the highest number of the last axis is a decision: the class of a token,
    the letter at a place. In a detector the last axis may be places, and their highest is nothing.
    What a LayerNormalization gives are features of each step, of which none is chosen; so it is
    where an exporter writes it out. How the layer is written, and where its weight, is all one.
    """
    scope, constants = understand(document.proto).scopes[0], Constants(document)
    outputs = document.proto.graph.output
    return frozenset(one.name for one in outputs if _is_of_units(one.name, scope, constants))


def _is_of_units(name: str, scope: Scope, constants: Constants) -> bool:
    """Follow the last axis backwards to the layer whose units lie on it."""
    axis, made_by = -1, scope.producers  # counted from the end
    for _ in range(len(made_by)):
        node = made_by.get(name)
        if node is None or node.domain not in STANDARD or not node.input:
            return False
        if node.op_type in _LAYERS:
            return _holds_units(node, axis, scope, constants)
        source = node.input[0]
        if node.op_type == "Transpose":
            perm = list(attributes(node).get("perm", ()))
            if not perm:
                return False
            axis = perm[axis] - len(perm)
        elif node.op_type in _WITH_ANOTHER:
            told = [name for name in node.input if _says_of_layers(name, made_by)]
            sizes = any(_says_of_layers(name, made_by, within=_SIZES) for name in told)
            if node.op_type in ("Mul", "Div") and sizes:
                return False  # by a size of its own: a normalisation that is written out
            source = told[0] if told else source
        elif node.op_type in ("Reshape", "Unsqueeze"):
            if axis != -1:  # the last axis is taken to stay; the numbers are not looked at
                return False
        elif node.op_type == "Squeeze":
            # What occurs is one axis of length 1 behind ours: the height of a line of text.
            axis = axis if axis == -1 else axis - 1
        elif node.op_type not in _ELEMENTWISE:
            return False
        name = source
    return False


def _holds_units(node: onnx.NodeProto, axis: int, scope: Scope, constants: Constants) -> bool:
    """Whether the units of a layer lie on an axis of its output, which is counted from the end."""
    moves = [scope.changes(name) for name in node.input[:2]]
    if all(moves):
        return False
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = constants.resolve(scope, node.input[1])
        told = len(attributes(node).get("kernel_shape", ())) + 2  # 2 where nothing tells
        rank = told if isinstance(weight, str) else len(weight.shape)
        return rank > 2 and axis == 1 - rank
    if node.op_type == "Einsum":
        terms, out = terms_of(str(attributes(node)["equation"]))
        both = zip(terms, node.input, strict=True)
        of_data = {letter for term, name in both if scope.changes(name) for letter in term}
        after = out.rpartition(DOTS)[2]
        return -axis <= len(after) and after[axis] not in of_data
    return node.op_type in ("Gemm", "MatMul", "MatMulInteger") and axis == (-2 if moves[1] else -1)


def _says_of_layers(
    name: str, made_by: Mapping[str, onnx.NodeProto], within: Set[str] | None = None
) -> bool:
    """Whether a tensor hangs on the values of what a layer gives, and passes one of `within`."""
    waiting, seen = [(name, within is None)], {(name, within is None)}
    for one, passed in waiting:  # the list grows while it is walked
        node = made_by.get(one)
        if node is None or node.op_type in ("Shape", "Size"):
            continue
        passed = passed or (within is not None and node.op_type in within)
        if node.op_type in _LAYERS:
            if passed:
                return True
            continue
        onward = {(read, passed) for read in node.input} - seen
        waiting += sorted(onward)
        seen |= onward
    return False


def sigmoid_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the outputs whose numbers are sigmoids, each for itself.

    So they are shares that need not add up to 1: of several labels any number may hold.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    return frozenset(value.name for value in model.graph.output if _is_sigmoid(value.name, made_by))


def _is_sigmoid(name: str, made_by: dict[str, onnx.NodeProto]) -> bool:
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        node = made_by.get(name)
        if node is None or node.domain not in ("", "ai.onnx"):
            return False
        if name in seen or node.op_type in _SIGMOIDS:
            continue
        seen.add(name)
        if node.op_type == "Concat":
            waiting += node.input
        elif node.op_type in _MOVING:
            waiting.append(node.input[0])
        else:
            return False
    return True


def scores_behind(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors of scores by which a model decides that gives decisions alone.

    Decisions say little about how near a model is to another one: they stay until they turn over.
    None where an output holds real numbers itself.
    """
    if any(value.type.tensor_type.elem_type in _FLOATS for value in model.graph.output):
        return ()
    made_by = {name: node for node in model.graph.node for name in node.output}
    scope = understand(model).scopes[0]
    found: dict[str, None] = {}
    for value in model.graph.output:
        name = value.name
        for _ in range(len(made_by)):
            node = made_by.get(name)
            if node is None:
                break
            read = [one for one in node.input if one and scope.changes(one)]
            if node.op_type in _DECIDING and read and read[0] in made_by:
                found[read[0]] = None
            if node.op_type not in {*_MOVING, *_NAMING} or not read:
                break
            name = read[0]
    return tuple(found)


def joined_parts(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return the tensors that a Concat at the end joins, by output.

    Detectors give boxes in pixels and scores below 1 in one output: measured as one, the scores do
    not count. Joins of joins are taken apart as well; many parts are no kinds of numbers.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for value in model.graph.output:
        parts = _joined(value.name, made_by, len(made_by))
        if 1 < len(parts) <= _MOST_PARTS:
            found[value.name] = parts
    return found


def _joined(name: str, made_by: Mapping[str, onnx.NodeProto], steps: int) -> tuple[str, ...]:
    """Return what is joined behind a tensor, or nothing where it is no join."""
    node = made_by.get(name)
    while node is not None and node.op_type in _MOVING and node.domain in STANDARD and steps:
        node, steps = made_by.get(node.input[0]), steps - 1
    if node is None or node.op_type != "Concat" or not steps:
        return ()
    parts: dict[str, None] = {}
    for part in node.input:
        if part in made_by and made_by[part].op_type != "Constant":
            parts |= dict.fromkeys(_joined(part, made_by, steps - 1) or (part,))
    return tuple(parts)
