"""What operators do to the units of a layer, as a table: a row for each that lets them through.

An operator without a row blocks the way. Units stay what they are: one per entry of one axis, or
one per block of neighbours after flattening. Source: the ONNX operator specifications.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnx_relief.graph.layers import Survey
from onnx_relief.graph.nodes import attributes, node_key
from onnx_relief.graph.sites import Part, RowLayout, Site
from onnx_relief.graph.views import FLOATS, Array, Constants
from onnx_relief.graph.walk import Scope, Use


@dataclass(eq=False)
class Walk:
    """What has been seen on the way of one layer's units.

    Attributes:
        survey: The model.
        site: The layer.
        normalisation: Scales and offsets on the way.
    """

    survey: Survey
    site: Site
    normalisation: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class Carrier:
    """A tensor that carries the units on `axis`, each as `block` neighbours.

    Attributes:
        name: The tensor's name.
        axis: Counted from the start, or -1 for the last where the rank is not known.
        rank: Number of axes.
        block: Neighbours per unit; None where only the layer that reads them knows.
        zero: Whether a unit whose layer gives zero is zero here too.
    """

    name: str
    axis: int
    rank: int | None
    block: int | None = 1
    zero: bool = True


class BlockedError(Exception):
    """The units meet something that they cannot be followed through."""


Rule = Callable[[Walk, Carrier, onnx.NodeProto, Use], Carrier]


def _onward(walk: Walk, carrier: Carrier, node: onnx.NodeProto) -> Carrier:
    # Masks of Dropout, indices of MaxPool: no harm where nobody reads them.
    if any(name and walk.site.scope.uses.get(name) for name in node.output[1:]):
        raise BlockedError(f"{node.op_type} {node_key(node)!r} has several outputs")
    return replace(carrier, name=node.output[0])


def _keeps_zero(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    if use.index != 0:
        raise BlockedError(f"they are a parameter of {node.op_type} {node_key(node)!r}")
    return _onward(walk, carrier, node)


def _moves_zero(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    return _keeps_zero(walk, replace(carrier, zero=False), node, use)


def _clip(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    settings = attributes(node)
    limits = [settings.get("min"), settings.get("max")]
    for index, name in enumerate(node.input[1:3]):
        array = walk.survey.constants.array(use.scope, name) if name else None
        if name and (array is None or array.size != 1):
            raise BlockedError(f"the limits of Clip {node_key(node)!r} are not constant")
        limits[index] = None if array is None else float(array.reshape(()))
    low, high = limits
    if (low is not None and low > 0) or (high is not None and high < 0):
        carrier = replace(carrier, zero=False)
    return _onward(walk, carrier, node)


def _elementwise(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    other = node.input[1 - use.index]
    where = f"{node.op_type} {node_key(node)!r}"
    if other == carrier.name:
        raise BlockedError(f"they meet {where} with themselves")
    array = walk.survey.constants.array(use.scope, other)
    if array is None:
        return _gated(walk, carrier, node, use)
    if carrier.rank is None and array.ndim > 1:
        raise BlockedError(f"the rank before {where} is unknown")
    if carrier.rank is not None and array.ndim > carrier.rank:
        raise BlockedError(f"{where} adds axes")
    zero = _of_zero(node.op_type, use.index, array)
    if not np.all(np.isfinite(zero)):
        raise BlockedError(f"{where} makes zero infinite")
    if np.any(zero != 0):
        carrier = replace(carrier, zero=False)
    return _onward(walk, carrier, node)


def _gated(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    """Follow units through the product with another branch: zero times anything is zero.

    That is squeeze-and-excite, or HardSwish and GLU written out. A sum with another branch blocks:
    what is read of the sum, the other branch may have put there.
    """
    other = node.input[1 - use.index]
    where = f"{node.op_type} {node_key(node)!r}"
    if node.op_type != "Mul":
        raise BlockedError(f"they are joined with another branch by {where}")
    if walk.site.layer.units == 1:
        raise BlockedError(f"one unit may be spread over many by {where}")
    if carrier.axis >= 0:
        rank = walk.survey.ranks.get((use.scope.path, other))
        if carrier.rank is None or rank is None or rank > carrier.rank:
            raise BlockedError(f"the shape of the other branch at {where} is not known")
    return _onward(walk, carrier, node)


def _of_zero(operator: str, index: int, other: Array) -> Array:
    """Return what Add, Sub, Mul or Div with a constant makes of zero."""
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[operator]
    wide = other.astype(np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(function(0.0, wide) if index == 0 else function(wide, 0.0))


def _normalise(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    units = walk.site.layer.units
    if use.index != 0 or carrier.axis != 1 or carrier.block != 1:
        raise BlockedError(f"BatchNormalization {node_key(node)!r} reads them along another axis")
    if attributes(node).get("training_mode", 0):
        raise BlockedError(f"BatchNormalization {node_key(node)!r} is in training mode")
    for name in node.input[1:3]:
        part = _per_unit(walk.survey.constants, use.scope, name, units)
        if part is None or not _read_once(walk.survey, part):
            raise BlockedError(f"{name!r} of BatchNormalization is shared or not constant")
        walk.normalisation.append(part)
    return _onward(walk, carrier, node)


def _per_unit(constants: Constants, scope: Scope, name: str, units: int) -> Part | None:
    view = constants.resolve(scope, name)
    if isinstance(view, str) or view.size != units or view.dtype.name not in FLOATS:
        return None
    if constants.why_not_writable(view):
        return None
    return Part(view, RowLayout((units, 1), (0, 1), (units, 1)))


def _read_once(survey: Survey, part: Part) -> bool:
    scopes = {scope.path: scope for scope in survey.model.scopes}
    calls = survey.model.places.get(part.view.home, ())
    return len(calls) == 1 and all(
        len(scopes[path].uses.get(name, [])) == 1 for path, name in part.view.passing
    )


def _pool(walk: Walk, carrier: Carrier, node: onnx.NodeProto, _use: Use) -> Carrier:
    if carrier.axis != 1:
        raise BlockedError(f"{node.op_type} {node_key(node)!r} pools over them")
    return _onward(walk, carrier, node)


def _reduce(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    keepdims = attributes(node).get("keepdims", 1) and node.op_type != "Squeeze"
    axes = _axes(walk, node, use)
    if axes is None or carrier.rank is None or carrier.axis < 0:
        raise BlockedError(f"{node.op_type} {node_key(node)!r} may reduce over them")
    which = {axis % carrier.rank for axis in axes}
    if carrier.axis in which:
        raise BlockedError(f"{node.op_type} {node_key(node)!r} reduces over them")
    if keepdims:
        return _onward(walk, carrier, node)
    before = sum(axis < carrier.axis for axis in which)
    axis, rank = carrier.axis - before, carrier.rank - len(which)
    return replace(_onward(walk, carrier, node), axis=axis, rank=rank)


def _unsqueeze(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    axes = _axes(walk, node, use)
    if axes is None or carrier.rank is None or carrier.axis < 0 or use.index != 0:
        raise BlockedError(f"Unsqueeze {node_key(node)!r} may move them anywhere")
    rank = carrier.rank + len(axes)
    stay = [axis for axis in range(rank) if axis not in {axis % rank for axis in axes}]
    return replace(_onward(walk, carrier, node), axis=stay[carrier.axis], rank=rank)


def _axes(walk: Walk, node: onnx.NodeProto, use: Use) -> list[int] | None:
    """Return the axes that a node names, by attribute or by a constant; None for none."""
    if len(node.input) > 1 and node.input[1]:
        array = walk.survey.constants.array(use.scope, node.input[1])
        return None if array is None else [int(axis) for axis in array.reshape(-1)]
    axes = attributes(node).get("axes")
    return None if axes is None else list(axes)


def _flatten(walk: Walk, carrier: Carrier, node: onnx.NodeProto, _use: Use) -> Carrier:
    axis = int(attributes(node).get("axis", 1))
    if axis != 1 or carrier.axis != 1:
        raise BlockedError(f"Flatten {node_key(node)!r} joins them with another axis")
    return _flat(walk, carrier, node)


def _flat(walk: Walk, carrier: Carrier, node: onnx.NodeProto) -> Carrier:
    # Units become blocks of neighbours; how long a block is, the layer that reads it knows.
    return replace(_onward(walk, carrier, node), axis=1, rank=2, block=None)


def _reshape(walk: Walk, carrier: Carrier, node: onnx.NodeProto, use: Use) -> Carrier:
    """Follow only what is certainly a Flatten: batch kept by 0, all else joined by -1."""
    array = walk.survey.constants.array(use.scope, node.input[1]) if len(node.input) > 1 else None
    target = None if array is None else array.reshape(-1).tolist()
    if (
        carrier.axis != 1
        or use.index != 0
        or target != [0, -1]
        or attributes(node).get("allowzero")
    ):
        raise BlockedError(f"Reshape {node_key(node)!r} may mix them with another axis")
    return _flat(walk, carrier, node)


# f(0) = 0 holds for the first group and not for the second.
_ZERO_TO_ZERO = (
    *("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Gelu", "Swish"),
    *("HardSwish", "Mish", "Softsign", "Tanh", "Erf", "Sin", "Tan", "Asin", "Atan", "Sinh"),
    *("Asinh", "Atanh", "Neg", "Abs", "Sqrt", "Sign", "Floor", "Ceil", "Round"),
    *("Identity", "Dropout", "Cast"),
)
_ZERO_ELSEWHERE = ("Sigmoid", "HardSigmoid", "Softplus", "Exp", "Cos", "Cosh")
_POOLS = (
    *("MaxPool", "AveragePool", "LpPool"),
    *("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"),
)

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
    "Unsqueeze": _unsqueeze,
}
