"""The shape arithmetic against the specification written a second time, and against the runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from geometries import Shape, shapes
from hypothesis import given
from reference import output_frame
from scored import one_layer, run

from onnx_relief.geometry import ConvGeometry


@given(shapes())
def test_sizes_and_padding_are_those_of_the_specification(shape: Shape) -> None:
    begins, outputs = output_frame(
        shape.size, shape.kernel, shape.attributes, transposed=shape.transposed
    )
    assert shape.geometry.output_size(shape.size) == outputs
    assert tuple(begin for begin, _ in shape.geometry.resolved_pads(shape.size)) == begins


@given(shapes())
def test_every_output_of_a_convolution_lies_within_its_padded_input(shape: Shape) -> None:
    geometry = shape.geometry
    if geometry.transposed:
        return
    pads, outputs = geometry.resolved_pads(shape.size), geometry.output_size(shape.size)
    for axis, (begin, end) in enumerate(pads):
        reach = (geometry.kernel[axis] - 1) * geometry.dilations[axis]
        last = (outputs[axis] - 1) * geometry.strides[axis] + reach
        padded = shape.size[axis] + begin + end
        assert last < padded <= last + geometry.strides[axis]


def test_taps_and_rank() -> None:
    geometry = Shape((5, 5), (3, 2), {}, transposed=False).geometry
    assert (geometry.taps, geometry.rank) == (6, 2)


@pytest.mark.parametrize(
    ("op", "size", "kernel", "said", "output"),
    [
        ("Conv", 7, 3, {}, 5),
        ("Conv", 7, 3, {"strides": [2], "pads": [1, 0]}, 3),
        ("Conv", 8, 3, {"strides": [3], "auto_pad": "SAME_UPPER"}, 3),
        ("Conv", 8, 1, {"strides": [3], "auto_pad": "SAME_LOWER"}, 3),
        ("Conv", 8, 3, {"dilations": [3], "auto_pad": "VALID"}, 2),
        ("ConvTranspose", 4, 3, {"strides": [2]}, 9),
        ("ConvTranspose", 4, 3, {"strides": [2], "pads": [1, 1], "output_padding": [1]}, 8),
        ("ConvTranspose", 4, 3, {"strides": [2], "auto_pad": "SAME_LOWER"}, 8),
        (
            "ConvTranspose",
            4,
            1,
            {"strides": [2], "auto_pad": "SAME_UPPER"},
            7,
        ),  # too short to reach
        ("ConvTranspose", 4, 3, {"strides": [2], "output_shape": [7]}, 7),
        (
            "ConvTranspose",
            4,
            3,
            {"strides": [2], "output_shape": [10]},
            10,
        ),  # beyond what it reaches
    ],
)
def test_sizes_that_the_runtime_gives(
    op: str, size: int, kernel: int, said: dict[str, Any], output: int
) -> None:
    x, weight = np.ones((1, 1, size), np.float32), np.ones((1, 1, kernel), np.float32)
    assert (
        run(one_layer(op, ["x", "w"], {"w": weight}, {"x": x}, **said), {"x": x})["y"].shape[2]
        == output
    )
    geometry = Shape((size,), (kernel,), said, transposed=op == "ConvTranspose").geometry
    assert geometry.output_size((size,)) == (output,)


def test_explicit_pads_count_only_without_auto_pad() -> None:
    common: dict[str, Any] = {"kernel": (3,), "strides": (1,), "dilations": (1,), "pads": (5, 5)}
    assert ConvGeometry(**common).output_size((4,)) == (12,)
    assert ConvGeometry(**common, auto_pad="VALID").output_size((4,)) == (2,)
    assert ConvGeometry(**common, auto_pad="SAME_UPPER").output_size((4,)) == (4,)
