"""Find the layers of a model: one table row per operator that multiplies by constant weights.

Operator-specific axes are translated here, once: every weight gets a `RowLayout` to and from the
canonical (units, inputs, taps). A node that multiplies by constants and is no layer gets a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.errors import ReliefError
from onnx_relief.geometry import ConvGeometry
from onnx_relief.graph.document import Document
from onnx_relief.graph.refusals import depends_on_data, reason_against
from onnx_relief.graph.sharing import without_foreign_readers
from onnx_relief.graph.sites import Part, Refusal, RowLayout, Site
from onnx_relief.graph.views import Constants, TensorView, attributes
from onnx_relief.graph.walk import Model, Scope, node_key, understand
from onnx_relief.plan import Bias, Layer, LayerKind, Weight

FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Survey:
    """All that was found in a document."""

    document: Document
    model: Model
    constants: Constants
    sites: tuple[Site, ...]
    refusals: tuple[Refusal, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in the order of the nodes."""
        return tuple(site.layer for site in self.sites)

    def rows(self, part: Part) -> NDArray[Any]:
        """Return the values of a weight or bias in canonical layout."""
        return part.layout.to_rows(self.constants.values(part.view))


def find_layers(document: Document) -> Survey:
    """Return every layer of `document`, and every node that might be one and why it is not."""
    model = understand(document.proto)
    constants = Constants(document)
    sites: list[Site] = []
    refusals: list[Refusal] = []
    for scope in model.scopes:
        for node in scope.graph.node:
            found = _look_at(node, scope, constants)
            if isinstance(found, Site):
                sites.append(found)
            elif found is not None:
                refusals.append(Refusal(node_key(node), node.op_type, found))
    named = _with_unique_names(sites)
    kept, shared = without_foreign_readers(named, model)
    return Survey(document, model, constants, tuple(kept), (*refusals, *shared))


def _look_at(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str | None:
    build = BUILDERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if build is None:
        return reason_against(node, scope, constants)
    try:
        return build(node, scope, constants)
    except ReliefError as error:
        return str(error)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        return f"its attributes and the shape of its weight do not fit together ({error})"


def _weight_view(constants: Constants, scope: Scope, name: str) -> TensorView | str:
    view = constants.resolve(scope, name)
    if isinstance(view, str):
        return f"its weight is not constant: {view}; fold constants first if it could be"
    if view.dtype.name not in FLOATS:
        return f"its weight {view.home} is {view.dtype.name}, not floating point"
    if view.size == 0:
        return f"its weight {view.home} is empty"
    return view


def _bias_part(
    constants: Constants, scope: Scope, name: str, units: int, axis_from_end: int
) -> Part | None:
    """Return the constant `name` as a bias with one value per unit, or None if it is not one."""
    view = constants.resolve(scope, name)
    if isinstance(view, str) or view.dtype.name not in (*FLOATS, "int32") or view.size != units:
        return None
    axis = len(view.shape) - axis_from_end
    if axis < 0 or view.shape[axis] != units:
        return None
    return Part(view, RowLayout((units, 1), (0, 1), (units, 1)))


def _following_bias(
    node: onnx.NodeProto, scope: Scope, constants: Constants, units: int, axis_from_end: int
) -> tuple[Part | None, str]:
    """Return the bias that a following Add adds, and the name of the tensor after it."""
    output = node.output[0]
    uses = scope.uses.get(output, [])
    if len(uses) == 1 and uses[0].node is not None and uses[0].scope is scope:
        adder = uses[0].node
        if adder.op_type == "Add" and adder.domain in ("", "ai.onnx"):
            part = _bias_part(
                constants, scope, adder.input[1 - uses[0].index], units, axis_from_end
            )
            if part is not None:
                return part, str(adder.output[0])
    return None, str(output)


def _site(
    node: onnx.NodeProto,
    scope: Scope,
    *,
    kind: LayerKind,
    units: int,
    data_input: int,
    weights: list[tuple[Weight, Part]],
    bias: tuple[Bias, Part] | None = None,
    output: str | None = None,
    geometry: ConvGeometry | None = None,
) -> Site:
    layer = Layer(
        name=node_key(node),
        op=node.op_type,
        kind=kind,
        units=units,
        weights=tuple(weight for weight, _ in weights),
        bias=bias[0] if bias else None,
        geometry=geometry,
    )
    return Site(
        layer=layer,
        scope=scope,
        node=node,
        data_input=data_input,
        parts=tuple(part for _, part in weights),
        bias=bias[1] if bias else None,
        output=output or node.output[0],
    )


def _convolution(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str:
    view = _weight_view(constants, scope, node.input[1])
    if isinstance(view, str):
        return view
    transposed = node.op_type == "ConvTranspose"
    geometry = _geometry(attributes(node), view.shape[2:], transposed)
    groups = int(attributes(node).get("group", 1))
    if transposed:
        width, per_group = view.shape[0] // groups, view.shape[1]
        split, order = (groups, width, per_group, geometry.taps), (0, 2, 1, 3)
    else:
        width, per_group = view.shape[1], view.shape[0] // groups
        split, order = (groups, per_group, width, geometry.taps), (0, 1, 2, 3)
    units = groups * per_group
    part = Part(view, RowLayout(split, order, (units, width, geometry.taps)))
    bias, output = None, None
    if len(node.input) > 2 and node.input[2]:
        bias = _bias_part(constants, scope, node.input[2], units, 1)
    else:
        bias, output = _following_bias(node, scope, constants, units, geometry.rank + 1)
    return _site(
        node,
        scope,
        kind=LayerKind.CONVOLUTION,
        units=units,
        data_input=0,
        weights=[(Weight(name=str(view.home), inputs=width, groups=groups), part)],
        bias=(Bias(name=str(bias.view.home)), bias) if bias else None,
        output=output,
        geometry=geometry,
    )


def _geometry(settings: dict[str, Any], kernel: tuple[int, ...], transposed: bool) -> ConvGeometry:
    # Defaults as in the ONNX specification of Conv and ConvTranspose.
    rank = len(kernel)

    def sizes(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(int(size) for size in settings.get(name, default))

    output_shape = sizes("output_shape", ())
    return ConvGeometry(
        kernel=kernel,
        strides=sizes("strides", (1,) * rank),
        dilations=sizes("dilations", (1,) * rank),
        pads=sizes("pads", (0,) * (2 * rank)),
        auto_pad=settings.get("auto_pad", "NOTSET") or "NOTSET",
        transposed=transposed,
        output_padding=sizes("output_padding", ()),
        output_shape=output_shape[-rank:] if output_shape else (),
    )


def _gemm(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str | None:
    settings = attributes(node)
    right = _weight_view(constants, scope, node.input[1])
    left = _weight_view(constants, scope, node.input[0])
    if not isinstance(right, str) and not isinstance(left, str):
        return "both of its operands are constant, so it carries no data; fold constants first"
    if not isinstance(right, str):
        view, data_input = right, 0
        units_last = not settings.get("transB", 0)
    elif not isinstance(left, str):
        view, data_input = left, 1
        units_last = bool(settings.get("transA", 0))
    else:
        return _no_constant(node, scope, right, str(left))
    part, units, width = _matrix(view, units_last)
    bias, output = None, None
    if len(node.input) > 2 and node.input[2]:
        bias = _bias_part(constants, scope, node.input[2], units, 1 if data_input == 0 else 2)
    else:
        bias, output = _following_bias(node, scope, constants, units, 1 if data_input == 0 else 2)
    in_node = bias is not None and output is None
    scale = float(settings.get("beta", 1.0)) if in_node else 1.0
    alpha = float(settings.get("alpha", 1.0))
    return _site(
        node,
        scope,
        kind=LayerKind.FULLY_CONNECTED,
        units=units,
        data_input=data_input,
        weights=[(Weight(name=str(view.home), inputs=width, scale=alpha), part)],
        bias=(Bias(name=str(bias.view.home), scale=scale), bias) if bias else None,
        output=output,
    )


def _matrix(view: TensorView, units_last: bool) -> tuple[Part, int, int]:
    rows, columns = view.shape
    units, width = (columns, rows) if units_last else (rows, columns)
    order = (1, 0, 2) if units_last else (0, 1, 2)
    layout = RowLayout((rows, columns, 1), order, (units, width, 1))
    return Part(view, layout), units, width


def _matmul(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str | None:
    right = _weight_view(constants, scope, node.input[1])
    left = _weight_view(constants, scope, node.input[0])
    if isinstance(right, str) and isinstance(left, str):
        return _no_constant(node, scope, right, left)
    if not isinstance(right, str) and not isinstance(left, str):
        return "both of its operands are constant, so it carries no data; fold constants first"
    data_input = 0 if not isinstance(right, str) else 1
    view = right if not isinstance(right, str) else left
    assert not isinstance(view, str)
    if len(view.shape) == 1:
        # A vector is a matrix with one unit (ONNX MatMul follows numpy.matmul).
        layout = RowLayout((1, view.shape[0], 1), (0, 1, 2), (1, view.shape[0], 1))
        units, width, batch = 1, view.shape[0], 1
    else:
        batch = int(np.prod(view.shape[:-2], dtype=np.int64))
        rows, columns = view.shape[-2:]
        per_batch, width = (columns, rows) if data_input == 0 else (rows, columns)
        order = (0, 2, 1, 3) if data_input == 0 else (0, 1, 2, 3)
        units = batch * per_batch
        layout = RowLayout((batch, rows, columns, 1), order, (units, width, 1))
    bias, output = None, node.output[0]
    if batch == 1 and len(view.shape) > 1:
        bias, output = _following_bias(node, scope, constants, units, 1 if data_input == 0 else 2)
    return _site(
        node,
        scope,
        kind=LayerKind.FULLY_CONNECTED,
        units=units,
        data_input=data_input,
        weights=[(Weight(name=str(view.home), inputs=width, groups=batch), Part(view, layout))],
        bias=(Bias(name=str(bias.view.home)), bias) if bias else None,
        output=output,
    )


def _no_constant(node: onnx.NodeProto, scope: Scope, right: str, left: str) -> str | None:
    """Say why neither operand is a weight; None where both carry data, as in attention."""
    if not depends_on_data(scope, node.input[1]):
        return right
    return None if depends_on_data(scope, node.input[0]) else left


def _recurrent(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str:
    views = [_weight_view(constants, scope, name) for name in node.input[1:3]]
    weights = []
    for view in views:
        if isinstance(view, str):
            return view
        directions, gates, width = view.shape
        units = directions * gates
        layout = RowLayout((units, width, 1), (0, 1, 2), (units, width, 1))
        weights.append((Weight(name=str(view.home), inputs=width), Part(view, layout)))
    # Direction d reads its own hidden state: the recurrent weight has one group per direction.
    weights[1] = (replace(weights[1][0], groups=directions), weights[1][1])
    bias = None
    if len(node.input) > 3 and node.input[3]:
        found = constants.resolve(scope, node.input[3])
        if not isinstance(found, str) and found.shape == (directions, 2 * gates):
            rows = RowLayout((directions, 2, gates), (0, 2, 1), (units, 2))
            bias = (Bias(name=str(found.home), count=2), Part(found, rows))
    return _site(
        node,
        scope,
        kind=LayerKind.RECURRENT,
        units=units,
        data_input=0,
        weights=weights,
        bias=bias,
        output=next(name for name in node.output if name),
    )


Builder = Callable[[onnx.NodeProto, Scope, Constants], "Site | str | None"]
BUILDERS: dict[str, Builder] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}


def _with_unique_names(sites: list[Site]) -> list[Site]:
    taken: dict[str, int] = {}
    named = []
    for site in sites:
        name = f"{site.scope.path}/{site.layer.name}" if site.scope.path else site.layer.name
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:
            name = f"{name}#{taken[name]}"
        named.append(replace(site, layer=replace(site.layer, name=name)))
    return named
