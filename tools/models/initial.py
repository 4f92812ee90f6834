"""A trained network back at its beginning: the same file with seeded random weights."""

from __future__ import annotations

import math
import zlib
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

LAYERS: Final = ("Conv", "Gemm")


def reinitialised(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Return a copy whose convolutions and Gemms hold the weights that PyTorch begins with.

    Weights and biases are drawn uniformly from +-1/sqrt(fan in), which is what
    ``torch.nn.Linear.reset_parameters`` and ``torch.nn.Conv2d.reset_parameters`` do (Kaiming
    uniform with a = sqrt 5). Each tensor has its own stream of random numbers, so it does not
    depend on the others. Gemms must keep one row for each unit (transB = 1).

    Args:
        model: A network whose weights are initializers; it is not changed.
        seed: Of the random numbers.
    """
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in fresh.graph.initializer}
    for node in fresh.graph.node:
        if node.op_type not in LAYERS:
            continue
        fan_in = math.prod(stored[node.input[1]].dims[1:])
        for name in node.input[1:]:
            tensor = stored[name]
            generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
            bound = 1 / math.sqrt(fan_in)
            values = generator.uniform(-bound, bound, tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, name))
    return fresh
