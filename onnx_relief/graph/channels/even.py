"""Constants of one number throughout that several nodes read: exporters store such only once.

They are no weights that nodes share. Where channels go, each node gets as many of the number as it
needs; else all normalisations that have the same ones and zeros would have to lose the same.
"""

from __future__ import annotations

import math

import onnx
from onnx import numpy_helper

from onnx_relief.graph.channels.whole import Whole
from onnx_relief.graph.external import is_external
from onnx_relief.graph.held import tensor_in

_LARGEST = 1 << 16
"""Entries; what is longer is not looked at."""


def even_constants(whole: Whole) -> frozenset[str]:
    """Return the names of the vectors of one number throughout that several nodes read.

    A vector may have axes of size 1 besides.
    """
    found = set()
    for name, uses in whole.uses.items():
        if name in whole.moving or len({use.node for use in uses}) < 2:
            continue
        tensor = _stored(whole, name)
        if tensor is None or not 1 < math.prod(tensor.dims) == max(tensor.dims) <= _LARGEST:
            continue
        array = numpy_helper.to_array(tensor)
        if (array == array.reshape(-1)[0]).all():
            found.add(name)
    return frozenset(found)


def _stored(whole: Whole, name: str) -> onnx.TensorProto | None:
    """Return what holds a constant, if its numbers are in the file itself."""
    maker = whole.producers.get(name)
    scope = whole.homes.get(name)
    tensor = scope.initializers.get(name) if scope else None
    if maker is not None:
        tensor = tensor_in(maker) if maker.op_type == "Constant" else None
    return None if tensor is None or is_external(tensor) else tensor
