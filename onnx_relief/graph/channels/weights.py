"""Which inputs a layer's weights connect with which outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.walk import attributes

ArrayOf = Callable[[str], NDArray[Any] | None]


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


def pairs_of(node: onnx.NodeProto, array: ArrayOf, tensor: str = "") -> Pairs | None:
    """Return the connections of a layer, or None.

    Args:
        node: The layer.
        array: Returns a constant by the name that nodes see.
        tensor: What is read: a recurrent layer reads its own output with weights of its own.
    """
    if node.op_type in ("LSTM", "GRU", "RNN"):
        weight = array(node.input[2 if tensor in node.output else 1])
        units = int(attributes(node)["hidden_size"])
        if weight is None:
            return None
        by_gate = (weight != 0).reshape(weight.shape[0], -1, units, weight.shape[2])
        return Pairs(by_gate.any(axis=(0, 1)), 1)
    weight = array(node.input[1])
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
