"""Follow the units of a layer forwards to the layers that read them, where that is simple.

Simple means: through elementwise operators, BatchNormalization, pooling and flattening, in one
graph. Whatever else the units meet blocks the way, with the reason in words, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.sites import Part, RowLayout, Site
from onnx_relief.graph.views import Constants, attributes
from onnx_relief.graph.walk import Scope, Use, node_key
from onnx_relief.plan import LayerKind


@dataclass(frozen=True)
class Reader:
    """A layer that reads the units: unit u is its input channels [u * block, (u + 1) * block)."""

    layer: str
    block: int


@dataclass(frozen=True, eq=False)
class UnitFlow:
    """Where the units of a layer go.

    Attributes:
        layer: The layer's name.
        readers: All layers that read the units, if the way is not blocked.
        normalisation: Scales and offsets of BatchNormalization on the way, one entry per unit.
        keeps_zero: Whether a unit that is zero (and whose normalisation is) stays zero to the end.
        blocked: Why the units cannot be followed everywhere, or None.
    """

    layer: str
    readers: tuple[Reader, ...]
    normalisation: tuple[Part, ...]
    keeps_zero: bool
    blocked: str | None


@dataclass(eq=False)
class _Walk:
    """What has been seen on the way of one layer's units."""

    survey: Survey
    site: Site
    by_node: dict[tuple[str, str], Site]
    readers: list[Reader] = field(default_factory=list)
    normalisation: list[Part] = field(default_factory=list)
    keeps_zero: bool = True


@dataclass(frozen=True)
class _Tensor:
    """A tensor that carries the units on `axis`, each as `block` neighbours (None: not known)."""

    name: str
    axis: int
    rank: int | None
    block: int | None = 1


class _BlockedError(Exception):
    """The units meet something that they cannot be followed through."""


def follow_units(survey: Survey) -> dict[str, UnitFlow]:
    """Return for every layer where its units go."""
    by_node = {(site.scope.path, site.node.output[0]): site for site in survey.sites}
    return {site.layer.name: _follow(survey, site, by_node) for site in survey.sites}


def _follow(survey: Survey, site: Site, by_node: dict[tuple[str, str], Site]) -> UnitFlow:
    walk = _Walk(survey, site, by_node)
    blocked = None
    try:
        waiting = [_start(walk)]
        while waiting:
            tensor = waiting.pop()
            waiting += [t for use in _uses(walk, tensor) if (t := _step(walk, tensor, use))]
    except _BlockedError as reason:
        blocked = str(reason)
    return UnitFlow(
        layer=site.layer.name,
        readers=tuple(dict.fromkeys(walk.readers)),
        normalisation=tuple(walk.normalisation),
        keeps_zero=walk.keeps_zero,
        blocked=blocked,
    )


def _start(walk: _Walk) -> _Tensor:
    layer = walk.site.layer
    if layer.kind is LayerKind.RECURRENT:
        raise _BlockedError("gates of a recurrent layer are not followed")
    if layer.geometry is not None:
        return _Tensor(walk.site.output, 1, layer.geometry.rank + 2)
    if layer.weights[0].groups > 1 or walk.site.data_input == 1:
        raise _BlockedError("units of a batched or left-hand weight are not followed")
    # Features are the last axis; Gemm is always a matrix, MatMul has the rank of its input.
    return _Tensor(walk.site.output, -1, 2 if layer.op == "Gemm" else None)


def _uses(walk: _Walk, tensor: _Tensor) -> list[Use]:
    uses = walk.site.scope.uses.get(tensor.name, [])
    if not uses:
        return []
    for use in uses:
        if use.scope is not walk.site.scope:
            raise _BlockedError("they are read inside a body")
        if use.node is None:
            raise _BlockedError("they reach the output of the graph")
    return uses


def _step(walk: _Walk, tensor: _Tensor, use: Use) -> _Tensor | None:
    """Follow the units through one reader; None if they end there, in a layer."""
    node = use.node
    assert node is not None
    reader = walk.by_node.get((use.scope.path, node.output[0])) if node.output else None
    if reader is not None and use.index == reader.data_input:
        walk.readers.append(_read_by(tensor, reader, walk.site))
        return None
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        raise _BlockedError(f"they meet {node.op_type} {node_key(node)!r}")
    return rule(walk, tensor, node, use)


def _read_by(tensor: _Tensor, reader: Site, writer: Site) -> Reader:
    inputs = reader.layer.weights[0].inputs * reader.layer.weights[0].groups
    convolution = reader.layer.kind is LayerKind.CONVOLUTION
    fits = tensor.axis == 1 if convolution else _is_last(tensor) and reader.data_input == 0
    transposed = reader.layer.op == "Gemm" and attributes(reader.node).get("transA", 0)
    batched = not convolution and reader.layer.weights[0].groups > 1
    recurrent = reader.layer.kind is LayerKind.RECURRENT
    block = inputs // writer.layer.units if tensor.block is None else tensor.block
    mixed = transposed or batched or recurrent or inputs != writer.layer.units * block
    if mixed or not fits:
        raise _BlockedError(f"{reader.layer.op} {reader.layer.name!r} reads them in another order")
    return Reader(reader.layer.name, block)


def _is_last(tensor: _Tensor) -> bool:
    return tensor.axis == -1 or (tensor.rank is not None and tensor.axis == tensor.rank - 1)


Rule = Callable[[_Walk, _Tensor, onnx.NodeProto, Use], _Tensor]


def _onward(tensor: _Tensor, node: onnx.NodeProto, **changes: int | None) -> _Tensor:
    if sum(bool(name) for name in node.output) > 1:
        raise _BlockedError(f"{node.op_type} {node_key(node)!r} has several outputs")
    values = {"axis": tensor.axis, "rank": tensor.rank, "block": tensor.block} | changes
    return _Tensor(node.output[0], **values)  # type: ignore[arg-type]


def _keeps_zero(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    return _onward(tensor, node)


def _moves_zero(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    walk.keeps_zero = False
    return _onward(tensor, node)


def _clip(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    settings = attributes(node)
    limits = [settings.get("min"), settings.get("max")]
    for index, name in enumerate(node.input[1:3]):
        array = walk.survey.constants.array(use.scope, name) if name else None
        if name and array is None:
            raise _BlockedError(f"the limits of Clip {node_key(node)!r} are not constant")
        limits[index] = None if array is None else float(array.reshape(()))
    low, high = limits
    if (low is not None and low > 0) or (high is not None and high < 0):
        walk.keeps_zero = False
    return _onward(tensor, node)


def _elementwise(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    other = node.input[1 - use.index] if len(node.input) == 2 else ""
    if not other or other == tensor.name:
        raise _BlockedError(f"they meet {node.op_type} {node_key(node)!r} with themselves")
    product = node.op_type == "Mul" or (node.op_type == "Div" and use.index == 0)
    if not product:
        walk.keeps_zero = False
    array = walk.survey.constants.array(use.scope, other)
    if array is None:
        # Another branch, the same width: units are joined channel by channel. What is read of
        # the join is read of this branch; whether the join is zero says nothing of the branch.
        raise _BlockedError(
            f"they are joined with another branch by {node.op_type} {node_key(node)!r}"
        )
    if array.ndim and tensor.rank is not None and array.ndim > tensor.rank:
        raise _BlockedError(f"{node.op_type} {node_key(node)!r} adds axes")
    if array.ndim > 1 and tensor.rank is None:
        raise _BlockedError(f"the rank before {node.op_type} {node_key(node)!r} is unknown")
    return _onward(tensor, node)


def _normalise(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    units = walk.site.layer.units
    if use.index != 0 or tensor.axis != 1 or tensor.block != 1:
        raise _BlockedError(f"BatchNormalization {node_key(node)!r} reads them along another axis")
    if attributes(node).get("training_mode", 0):
        raise _BlockedError(f"BatchNormalization {node_key(node)!r} is in training mode")
    for name in node.input[1:3]:
        part = _per_unit(walk.survey.constants, use.scope, name, units)
        if part is None or not _read_once(walk.survey, part):
            raise _BlockedError(
                f"the parameters of BatchNormalization {node_key(node)!r} are shared or not constant"
            )
        walk.normalisation.append(part)
    return _onward(tensor, node)


def _per_unit(constants: Constants, scope: Scope, name: str, units: int) -> Part | None:
    view = constants.resolve(scope, name)
    if isinstance(view, str) or view.size != units:
        return None
    return Part(view, RowLayout((units, 1), (0, 1), (units, 1)))


def _read_once(survey: Survey, part: Part) -> bool:
    scopes = {scope.path: scope for scope in survey.model.scopes}
    return all(len(scopes[path].uses.get(name, [])) == 1 for path, name in part.view.passing)


def _pool(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    if tensor.axis != 1:
        raise _BlockedError(f"{node.op_type} {node_key(node)!r} pools over them")
    return _onward(tensor, node)


def _reduce(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    settings = attributes(node)
    axes = settings.get("axes")
    keepdims = settings.get("keepdims", 1) and node.op_type != "Squeeze"
    if len(node.input) > 1 and node.input[1]:
        array = walk.survey.constants.array(use.scope, node.input[1])
        axes = None if array is None else array.reshape(-1).tolist()
    if axes is None or tensor.rank is None or tensor.axis < 0:
        raise _BlockedError(f"{node.op_type} {node_key(node)!r} may reduce over them")
    which = {axis % tensor.rank for axis in axes}
    if tensor.axis in which:
        raise _BlockedError(f"{node.op_type} {node_key(node)!r} reduces over them")
    if keepdims:
        return _onward(tensor, node)
    before = sum(axis < tensor.axis for axis in which)
    return _onward(tensor, node, axis=tensor.axis - before, rank=tensor.rank - len(which))


def _flatten(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    axis = int(attributes(node).get("axis", 1))
    if axis != 1 or tensor.axis != 1:
        raise _BlockedError(f"Flatten {node_key(node)!r} joins them with another axis")
    return _flat(tensor, node)


def _flat(tensor: _Tensor, node: onnx.NodeProto) -> _Tensor:
    # Units become blocks of neighbours; how long a block is, the layer that reads it knows.
    return _onward(tensor, node, axis=1, rank=2, block=None)


def _reshape(walk: _Walk, tensor: _Tensor, node: onnx.NodeProto, use: Use) -> _Tensor:
    """Follow only what is certainly a Flatten: batch kept by 0, and everything else joined by -1."""
    array = walk.survey.constants.array(use.scope, node.input[1]) if len(node.input) > 1 else None
    target = None if array is None else array.reshape(-1).tolist()
    if tensor.axis != 1 or use.index != 0 or target != [0, -1] or attributes(node).get("allowzero"):
        raise _BlockedError(f"Reshape {node_key(node)!r} may mix them with another axis")
    return _flat(tensor, node)


# f(0) = 0 holds for the first group and not for the second (ONNX operator specifications).
_ZERO_TO_ZERO = (
    "Relu LeakyRelu PRelu Elu Celu Selu Gelu HardSwish Swish Mish Tanh Softsign ThresholdedRelu "
    "Identity Dropout Cast Neg Abs Sqrt Sign Floor Ceil Round Erf Sin Tan Asin Atan Sinh Asinh "
    "Atanh Shrink"
).split()
_ZERO_ELSEWHERE = "Sigmoid HardSigmoid Softplus Exp Cos Cosh Reciprocal".split()
_POOLS = "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool".split()

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ZERO_TO_ZERO, _keeps_zero),
    **dict.fromkeys(_ZERO_ELSEWHERE, _moves_zero),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _elementwise),
    "BatchNormalization": _normalise,
    "Clip": _clip,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "ReduceSum": _reduce,
    "Squeeze": _reduce,
}
