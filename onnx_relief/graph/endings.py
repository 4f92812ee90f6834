"""How the outputs of a model are made: what their numbers are can be told by the last operator."""

from __future__ import annotations

from collections.abc import Mapping, Set

import onnx

from onnx_relief.graph.nodes import STANDARD, attributes

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
_CONVOLUTIONS = {"Conv", "ConvTranspose"}
_LAYERS = {*_CONVOLUTIONS, "Gemm", "MatMul", "MatMulInteger"}
_SIZES = {"Sqrt", "Pow", "ReduceMean", "ReduceL2", "ReduceSumSquare"}
"""Operators of which the size of features is made that a normalisation divides by."""


def stepwise_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the outputs whose last axis holds what one layer says of each step.

    Of those of three axes the highest number of the last axis is a decision: the class of a token,
    the letter at a place. In a detector the last axis may be places, and their highest is nothing.
    What a LayerNormalization gives are features of each step, of which none is chosen; so it is
    where an exporter writes it out.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    return frozenset(
        value.name for value in model.graph.output if _is_of_units(value.name, made_by, ranks)
    )


def _is_of_units(
    name: str, made_by: Mapping[str, onnx.NodeProto], ranks: Mapping[str, int]
) -> bool:
    """Follow the last axis backwards to the layer whose units lie on it."""
    axis = -1  # counted from the end
    for _ in range(len(made_by)):
        node = made_by.get(name)
        if node is None or node.domain not in STANDARD or not node.input:
            return False
        if node.op_type in _LAYERS - _CONVOLUTIONS:
            return axis == -1 and not _is_computed(node.input[1], made_by, ranks)
        if node.op_type in _CONVOLUTIONS:
            weight = ranks.get(node.input[1])
            return weight is not None and axis == 1 - weight
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


def _is_computed(
    name: str, made_by: Mapping[str, onnx.NodeProto], ranks: Mapping[str, int]
) -> bool:
    """Whether a tensor hangs on the inputs of the model, as far as can be seen quickly."""
    for _ in range(len(made_by) + 1):
        node = made_by.get(name)
        if name in ranks or (node is not None and node.op_type == "Constant"):
            return False
        moving = node is not None and node.op_type in {*_MOVING, "DequantizeLinear"}
        if node is None or not moving:
            return True
        name = node.input[0]
    return True


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
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    found: dict[str, None] = {}
    for value in model.graph.output:
        name = value.name
        for _ in range(len(made_by)):
            node = made_by.get(name)
            if node is None:
                break
            read = [one for one in node.input if one and _is_computed(one, made_by, ranks)]
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
