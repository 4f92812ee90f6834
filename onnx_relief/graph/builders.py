"""One table row per operator that multiplies by constant weights: how it becomes a layer.

Operator-specific axes are translated here, once: every weight gets a `RowLayout` to and from the
canonical (units, inputs, taps). A builder returns the site, or why there is none in words, or None
where the node multiplies data by data. Source: the ONNX operator specifications.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import onnx

from onnx_relief.geometry import ConvGeometry
from onnx_relief.graph.equation import product_of, terms_of
from onnx_relief.graph.nodes import STANDARD, attributes, node_key
from onnx_relief.graph.sites import Axes, Part, RowLayout, Site
from onnx_relief.graph.views import FLOATS, Constants, TensorView
from onnx_relief.graph.walk import Scope
from onnx_relief.plan import Bias, Layer, LayerKind, Weight

_LAST, _FIRST = Axes(), Axes(-2)
"""Where the columns of a matrix lie, and its rows."""


def _weight_view(constants: Constants, scope: Scope, name: str) -> TensorView | str:
    view = constants.resolve(scope, name)
    if isinstance(view, str):
        return f"its weight is not constant: {view}; fold constants first if it could be"
    if view.dtype.name not in FLOATS:
        return f"its weight {view.home} is {view.dtype.name}, not floating point"
    if view.size == 0:
        return f"its weight {view.home} is empty"
    fixed = constants.why_not_writable(view)
    return f"its weight {view.home} cannot be changed: {fixed}" if fixed else view


def _bias_part(
    constants: Constants,
    scope: Scope,
    name: str,
    sizes: tuple[int, ...],
    axis_from_end: int,
    rank: int | None,
) -> Part | None:
    """Return the constant `name` as a bias with one value per unit, or None if it is not one.

    Args:
        constants: All constants.
        scope: The graph that reads it.
        name: What it is called there.
        sizes: Of the axes of the output that count units.
        axis_from_end: Which of them is the first one, from the end, 1 for the last axis.
        rank: Axes of the output, where that is known; a bias with more would add some.
    """
    view = _weight_view(constants, scope, name)
    units = prod(sizes)
    if isinstance(view, str) or view.size != units:
        return None
    axis = len(view.shape) - axis_from_end
    if axis < 0 or view.shape[axis : axis + len(sizes)] != sizes:
        return None
    if rank is not None and len(view.shape) > rank:
        return None
    return Part(view, RowLayout((units, 1), (0, 1), (units, 1)))


def _find_bias(
    node: onnx.NodeProto,
    scope: Scope,
    constants: Constants,
    sizes: tuple[int, ...],
    axis_from_end: int,
    rank: int | None = None,
) -> tuple[Part | None, str]:
    """Return the bias in the node or in the Add that follows, and the tensor after it."""
    output = str(node.output[0])
    if len(node.input) > 2 and node.input[2]:
        return _bias_part(constants, scope, node.input[2], sizes, axis_from_end, rank), output
    uses = scope.uses.get(output, [])
    adder = uses[0].node if len(uses) == 1 and uses[0].scope is scope else None
    if adder is not None and adder.op_type == "Add" and adder.domain in STANDARD:
        other = adder.input[1 - uses[0].index]
        part = _bias_part(constants, scope, other, sizes, axis_from_end, rank)
        if part is not None:
            return part, str(adder.output[0])
    return None, output


def _site(
    node: onnx.NodeProto,
    scope: Scope,
    kind: LayerKind,
    weights: list[tuple[Weight, Part]],
    *,
    data_input: int = 0,
    bias: tuple[Bias, Part] | None = None,
    output: str,
    geometry: ConvGeometry | None = None,
    reads: Axes = _LAST,
    makes: Axes = _LAST,
) -> Site:
    parts = tuple(part for _, part in weights)
    for part in (*parts, bias[1]) if bias else parts:
        if prod(part.layout.split) != part.view.size:
            raise ValueError(f"shape {part.view.shape}")
    layer = Layer(
        name=node_key(node),
        op=node.op_type,
        kind=kind,
        units=parts[0].layout.rows[0],
        weights=tuple(weight for weight, _ in weights),
        bias=bias[0] if bias else None,
        geometry=geometry,
    )
    return Site(
        layer=layer,
        scope=scope,
        node=node,
        data_input=data_input,
        parts=parts,
        bias=bias[1] if bias else None,
        output=output,
        reads=reads,
        makes=makes,
    )


def _convolution(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str:
    view = _weight_view(constants, scope, node.input[1])
    if isinstance(view, str):
        return view
    if len(view.shape) < 3:
        raise ValueError(f"shape {view.shape}")
    settings = attributes(node)
    transposed = node.op_type == "ConvTranspose"
    geometry = _geometry(settings, view.shape[2:], transposed)
    groups = int(settings.get("group", 1))
    if transposed:
        width, per_group = view.shape[0] // groups, view.shape[1]
        split, order = (groups, width, per_group, geometry.taps), (0, 2, 1, 3)
    else:
        width, per_group = view.shape[1], view.shape[0] // groups
        split, order = (groups, per_group, width, geometry.taps), (0, 1, 2, 3)
    units, rank = groups * per_group, geometry.rank
    part = Part(view, RowLayout(split, order, (units, width, geometry.taps)))
    bias, output = _find_bias(
        node,
        scope,
        constants,
        (units,),
        1 if len(node.input) > 2 and node.input[2] else rank + 1,
        rank + 2,
    )
    return _site(
        node,
        scope,
        LayerKind.CONVOLUTION,
        [(Weight(name=str(view.home), inputs=width, groups=groups), part)],
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


def _operands(
    node: onnx.NodeProto, scope: Scope, constants: Constants
) -> tuple[TensorView, int] | str | None:
    """Return the weight of a Gemm or MatMul and the index of its data, or why it has no weight."""
    left, right = (_weight_view(constants, scope, name) for name in node.input[:2])
    if isinstance(left, TensorView) and isinstance(right, TensorView):
        return "both of its operands are constant, so it carries no data; fold constants first"
    if isinstance(right, TensorView):
        return right, 0
    if isinstance(left, TensorView):
        return left, 1
    if not scope.changes(node.input[1]):
        return right
    # Both operands carry data, as in attention: there is nothing to prune and nothing to say.
    return None if scope.changes(node.input[0]) else left


def _gemm(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str | None:
    found = _operands(node, scope, constants)
    if not isinstance(found, tuple):
        return found
    view, data_input = found
    settings = attributes(node)
    rows, columns = view.shape
    flipped = bool(settings.get("transA" if data_input else "transB", 0))
    data_flipped = bool(settings.get("transB" if data_input else "transA", 0))
    # Units are the columns of B and the rows of A.
    if flipped == bool(data_input):
        units, width, order = columns, rows, (1, 0, 2)
    else:
        units, width, order = rows, columns, (0, 1, 2)
    part = Part(view, RowLayout((rows, columns, 1), order, (units, width, 1)))
    bias, output = _find_bias(node, scope, constants, (units,), 1 + data_input, rank=2)
    in_node = len(node.input) > 2 and bool(node.input[2])
    beta = float(settings.get("beta", 1.0)) if in_node else 1.0
    alpha = float(settings.get("alpha", 1.0))
    return _site(
        node,
        scope,
        LayerKind.FULLY_CONNECTED,
        [(Weight(name=str(view.home), inputs=width, scale=alpha), part)],
        data_input=data_input,
        bias=(Bias(name=str(bias.view.home), scale=beta), bias) if bias else None,
        output=output,
        reads=_FIRST if data_flipped != bool(data_input) else _LAST,
        makes=_FIRST if data_input else _LAST,
    )


def _matmul(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str | None:
    found = _operands(node, scope, constants)
    if not isinstance(found, tuple):
        return found
    view, data_input = found
    # A vector is a matrix with one unit (ONNX MatMul follows numpy.matmul).
    vector = len(view.shape) == 1
    *leading, rows, columns = (1, *view.shape) if vector else view.shape
    batch = prod(leading)
    if vector or data_input:
        units, width, order = rows, columns, (0, 1, 2, 3)
    else:
        units, width, order = columns, rows, (0, 2, 1, 3)
    layout = RowLayout((batch, rows, columns, 1), order, (batch * units, width, 1))
    bias, output = None, str(node.output[0])
    if batch == 1 and not vector:
        bias, output = _find_bias(node, scope, constants, (units,), 1 + data_input)
    weight = Weight(name=str(view.home), inputs=width, groups=batch)
    return _site(
        node,
        scope,
        LayerKind.FULLY_CONNECTED,
        [(weight, Part(view, layout))],
        data_input=data_input,
        bias=(Bias(name=str(bias.view.home)), bias) if bias else None,
        output=output,
        # The features of x are its last axis in x @ W, and its last but one in W @ x.
        reads=_FIRST if data_input else _LAST,
        makes=_FIRST if data_input else _LAST,
    )


def _einsum(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str | None:
    if len(node.input) != 2:
        return _several(node, scope, constants)
    found = _operands(node, scope, constants)
    if not isinstance(found, tuple):
        return found
    view, data_input = found
    terms, out = terms_of(str(attributes(node)["equation"]))
    product = product_of(terms[data_input], terms[1 - data_input], out)
    if isinstance(product, str):
        return product
    sizes = tuple(view.shape[axis] for axis in product.units)
    units, width = prod(sizes), view.size // prod(sizes)
    part = Part(view, RowLayout(view.shape, product.units + product.inputs, (units, width, 1)))
    bias, output = _find_bias(node, scope, constants, sizes, len(sizes))
    return _site(
        node,
        scope,
        LayerKind.FULLY_CONNECTED,
        [(Weight(name=str(view.home), inputs=width), part)],
        data_input=data_input,
        bias=(Bias(name=str(bias.view.home)), bias) if bias else None,
        output=output,
        reads=Axes(joined=len(product.inputs)),
        makes=Axes(joined=len(product.units)),
    )


def _several(node: onnx.NodeProto, scope: Scope, constants: Constants) -> str | None:
    """Return why an Einsum of one or of many operands is no layer, if it holds a weight."""
    held = any(isinstance(_weight_view(constants, scope, x), TensorView) for x in node.input)
    moves = any(scope.changes(name) for name in node.input)
    return "it multiplies more than two tensors at once" if held and moves else None


def _recurrent(node: onnx.NodeProto, scope: Scope, constants: Constants) -> Site | str:
    weights = []
    for name in node.input[1:3]:
        view = _weight_view(constants, scope, name)
        if isinstance(view, str):
            return view
        directions, gates, width = view.shape
        layout = RowLayout(view.shape, (0, 1, 2), (directions * gates, width, 1))
        weights.append((Weight(name=str(view.home), inputs=width), Part(view, layout)))
    (inputs, read), (hidden, recur) = weights
    if read.view.shape[:2] != recur.view.shape[:2]:
        raise ValueError(f"shapes {read.view.shape} and {recur.view.shape}")
    # Direction d reads its own hidden state: the recurrent weight has one group per direction.
    hidden = replace(hidden, groups=directions)
    bias = None
    if len(node.input) > 3 and node.input[3]:
        found = _weight_view(constants, scope, node.input[3])
        if isinstance(found, TensorView) and found.shape == (directions, 2 * gates):
            rows = RowLayout((directions, 2, gates), (0, 2, 1), (directions * gates, 2))
            bias = (Bias(name=str(found.home), count=2), Part(found, rows))
    return _site(
        node,
        scope,
        LayerKind.RECURRENT,
        [(inputs, read), (hidden, recur)],
        bias=bias,
        output=next((name for name in node.output if name), ""),
    )


Builder = Callable[[onnx.NodeProto, Scope, Constants], "Site | str | None"]
BUILDERS: dict[str, Builder] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
