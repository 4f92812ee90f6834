"""Random weights for the `light_*` models of the onnx wheel, which carry none of their own.

There every parameter of some size is a ConstantOfShape node, so all units of a layer are equal and
any ranking of them is a tie. Here each becomes an initializer under the same name.
"""

from __future__ import annotations

import math
import zlib
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

SEED: Final = 2109
# A unit whose weights sum to zero does not see the mean of its rectified inputs, so the answer goes
# on depending on the picture through many layers. Of the second moment of a rectified Gaussian,
# 1 - 1/pi is variance: this takes the place of the 2 in He's formula.
RECTIFIED_GAIN: Final = 2.0 / (1.0 - 1.0 / math.pi)
# Mean and standard deviation. A branch that joins a sum is damped, or sixteen joins saturate.
DISTRIBUTIONS: Final = {
    "scale": (1.0, 0.1),
    "branch scale": (0.6, 0.06),
    "variance": (1.0, 0.05),
    "shift": (0.0, 0.05),
}

# What a constant does for the operator that reads it, by (operator, input position).
# Inception-v2 and DenseNet carry the second half of Caffe's Scale as Mul and Add.
ROLES: Final = {
    ("Conv", 1): "weight",
    ("Conv", 2): "shift",
    ("Gemm", 1): "weight",
    ("Gemm", 2): "shift",
    ("BatchNormalization", 1): "scale",
    ("BatchNormalization", 2): "shift",
    ("BatchNormalization", 3): "shift",
    ("BatchNormalization", 4): "variance",
    ("Mul", 1): "scale",
    ("Add", 1): "shift",
}


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a light model whose parameters are seeded random initializers.

    Weights are He-normal (He et al. 2015, section 2.2) and centred, so that signals neither die
    nor explode; normalisation is close to the identity. The file stays what it was, IR version 3:
    initializers are graph inputs as well.
    """
    filled = onnx.ModelProto()
    filled.CopyFrom(model)
    graph = filled.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input}
    readers = {name: (node, i) for node in graph.node for i, name in enumerate(node.input)}
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        shape = stored[node.input[0]]
        dims = numpy_helper.to_array(shape).tolist()
        tensor = graph.initializer.add(name=node.output[0], dims=dims)
        inputs[shape.name].CopyFrom(
            helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, dims)
        )
        graph.initializer.remove(shape)
        graph.node.remove(node)
    for tensor in graph.initializer:
        role, unit_axes = _role(tensor, readers)
        if role:
            values = _draw(role, unit_axes, tuple(tensor.dims), zlib.crc32(tensor.name.encode()))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return filled


def _role(
    tensor: onnx.TensorProto, readers: dict[str, tuple[onnx.NodeProto, int]]
) -> tuple[str | None, int]:
    """Return what the constant is used for (None: leave it) and how many axes index units."""
    if tensor.name not in readers:  # ResNet-50 keeps a counter that nothing reads
        return None, 0
    node, position = readers[tensor.name]
    while position == 0 and node.op_type in ("Unsqueeze", "Reshape"):
        node, position = readers[node.output[0]]
    role = ROLES.get((node.op_type, position))
    if role == "scale" and readers[node.output[0]][0].op_type == "Sum":
        role = "branch scale"
    # All Gemms here have transB, so a row is a unit, even where a Reshape makes the matrix.
    return role, len(tensor.dims) - 1 if node.op_type == "Gemm" else 1


def _draw(role: str, unit_axes: int, shape: tuple[int, ...], stream: int) -> NDArray[np.float32]:
    generator = np.random.default_rng([SEED, stream])
    values = generator.standard_normal(shape, dtype=np.float32)
    if role == "weight":
        summed = tuple(range(unit_axes, len(shape)))
        fan_in = math.prod(shape[axis] for axis in summed)
        values -= values.mean(axis=summed, keepdims=True)
        values *= np.float32(math.sqrt(RECTIFIED_GAIN / fan_in))
        return values
    middle, spread = DISTRIBUTIONS[role]
    return np.float32(middle) + np.float32(spread) * values
