"""Which inputs a layer's weights connect with which outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.builders import BUILDERS
from onnx_relief.graph.channels.einsum import letters_of
from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.channels.trace import Trace
from onnx_relief.graph.nodes import STANDARD, attributes, operator

ArrayOf = Callable[[str], NDArray[Any] | None]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Connections of a layer.

    Attributes:
        pairs: Whether there is a weight, by (output, input of its group).
        groups: Number of groups.
    """

    pairs: NDArray[np.bool_]
    groups: int

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return int(self.pairs.shape[1]) * self.groups

    def by_group(self) -> NDArray[np.bool_]:
        """Return them by (group, output of the group, input of the group)."""
        return self.pairs.reshape(self.groups, -1, self.pairs.shape[1])


def pairs_of(trace: Trace, node: onnx.NodeProto, array: ArrayOf, tensor: str) -> Pairs | None:
    """Return the connections of a layer, or None.

    Args:
        trace: The ids.
        node: The layer.
        array: Returns a constant by the name that nodes see.
        tensor: What is read: a recurrent layer reads its own output with weights of its own.
    """
    if operator(node) == "Einsum":
        return _along_letters(trace, node, array, tensor)
    if node.op_type in ("LSTM", "GRU", "RNN"):
        weight = array(node.input[2 if tensor in node.output else 1])
        units = int(attributes(node)["hidden_size"])
        if weight is None:
            return None
        by_gate = (weight != 0).reshape(weight.shape[0], -1, units, weight.shape[2])
        return Pairs(by_gate.any(axis=(0, 1)), 1)
    known = node.op_type in BUILDERS and node.domain in STANDARD
    weight = array(node.input[1]) if known else None
    if weight is None:
        return None
    settings = attributes(node)
    groups = int(settings.get("group", 1)) if node.op_type.startswith("Conv") else 1
    some = weight != 0
    if node.op_type == "Conv":
        return Pairs(some.reshape(*some.shape[:2], -1).any(axis=2), groups)
    if node.op_type == "ConvTranspose":  # (in, out / groups) -> (out, in / groups)
        taps = some.reshape(*some.shape[:2], -1).any(axis=2)
        turned = taps.reshape(groups, -1, some.shape[1]).transpose(0, 2, 1)
        return Pairs(turned.reshape(-1, some.shape[0] // groups), groups)
    if some.ndim != 2:
        return None
    return Pairs(some if settings.get("transB", 0) else some.T, 1)


def _along_letters(trace: Trace, node: onnx.NodeProto, array: ArrayOf, tensor: str) -> Pairs | None:
    """Return the connections of an Einsum's weight between the channels read and those made.

    Where it makes none there is one row for all that it makes.
    """
    if len(node.input) != 2:
        return None
    *operands, out = letters_of(trace, node)
    at = list(node.input).index(tensor)
    weight, letters = array(node.input[1 - at]), operands[1 - at]
    read = [operands[at][axis] for axis in varying(trace.of(tensor))]
    made = [out[axis] for axis in varying(trace.of(node.output[0])) if out[axis] in letters]
    if weight is None or len(read) != 1 or read[0] in out or read[0] not in letters:
        return None
    first = [letters.index(letter) for letter in (*made, *read)]
    rest = [axis for axis in range(len(letters)) if axis not in first]
    some = (weight != 0).any(axis=tuple(rest), keepdims=True).transpose(*first, *rest)
    return Pairs(some.reshape(-1, weight.shape[first[-1]]), 1)


def units_from(
    trace: Trace,
    node: onnx.NodeProto,
    array: ArrayOf,
    tensor: str,
    inputs_of: Callable[[int], Floats],
) -> Floats | None:
    """Return what the units of a layer are before the bias, NaN where that is not known; or None.

    Args:
        trace: The ids.
        node: The layer.
        array: Returns a constant by the name that nodes see.
        tensor: What it reads.
        inputs_of: Returns the numbers of so many input channels, NaN where they are not known.
    """
    matrix = pairs_of(trace, node, array, tensor)
    if matrix is None:
        return None
    inputs = inputs_of(matrix.inputs)
    if node.op_type == "Einsum" or why_not_even(node, array) is not None:
        inputs = np.where(inputs == 0, 0.0, np.nan)
    unknown = np.isnan(inputs).reshape(matrix.groups, 1, -1)
    known = ~(matrix.by_group() & unknown).any(axis=2).reshape(-1)
    values = np.zeros(known.size)
    if known.any() and np.nan_to_num(inputs).any():
        values = sent(node, array, np.nan_to_num(inputs))
    return np.where(known, values, np.nan)


def sent(node: onnx.NodeProto, array: ArrayOf, inputs: Floats) -> Floats:
    """Return what the units of a layer get from inputs that are the same at every place.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul with a constant matrix.
        array: Returns a constant by the name that nodes see.
        inputs: One number for each input channel, shape (inputs,).

    Returns:
        One number for each unit, without the bias, shape (units,).
    """
    weight = array(node.input[1])
    assert weight is not None
    settings = attributes(node)
    if node.op_type.startswith("Conv"):
        groups = int(settings.get("group", 1))
        taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2, dtype=np.float64)
        by_group = taps.reshape(groups, -1, taps.shape[1])
        if node.op_type == "Conv":
            by_group = by_group.transpose(0, 2, 1)
        parts = inputs.reshape(groups, 1, -1) @ by_group
        return np.asarray(parts.reshape(-1))
    some = np.flatnonzero(inputs)  # of a large matrix only these rows are made wide
    rows = weight[:, some].T if settings.get("transB", 0) else weight[some]
    scale = float(settings.get("alpha", 1.0)) if node.op_type == "Gemm" else 1.0
    return np.asarray(scale * (inputs[some] @ rows.astype(np.float64)))


def why_not_even(node: onnx.NodeProto, array: ArrayOf) -> str | None:
    """Return why a constant does not send the same to every place, or None if it does.

    Zero padding brings zeros in at the border, and a ConvTranspose gives each place other taps.
    """
    if not node.op_type.startswith("Conv"):
        return None
    settings = attributes(node)
    weight = array(node.input[1])
    single = weight is not None and all(size == 1 for size in weight.shape[2:])
    if node.op_type == "ConvTranspose":
        steps = (*settings.get("strides", ()), *settings.get("output_padding", ()))
        if not single or any(step > 1 for step in steps) or any(settings.get("pads", ())):
            return "ConvTranspose lets other weights meet at each place"
        return None
    said = settings.get("auto_pad", "NOTSET")
    if said.startswith("SAME") and not single:
        return "zero padding of Conv would change it at the border"
    if said == "NOTSET" and any(settings.get("pads", ())):
        return "zero padding of Conv would change it at the border"
    return None
