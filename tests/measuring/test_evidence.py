"""How layers read tensors: columns and answers of the same positions, and how many of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from geometries import shapes
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.activity.gram import patch_columns
from onnx_relief.geometry import ConvGeometry
from onnx_relief.measuring.evidence import Reading, answers_of

CONVOLUTION = SimpleNamespace(data_input=0)


@given(shapes(kinds=st.just(False)), st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 2)]))
def test_answers_are_what_the_weights_make_of_the_columns(shape, channels):
    check(shape.geometry, shape.size, *channels)


def test_answers_are_those_of_the_columns_where_positions_are_left_out():
    plain = ConvGeometry(kernel=(3, 3), strides=(1, 1), dilations=(2, 2), pads=(1, 1, 1, 1))
    wide = check(plain, (70, 61), 1, 40)
    few = check(plain, (70, 61), 4, 1)
    assert 32 <= few < wide < 70 * 61 / 4


def check(geometry, size, groups, inputs):
    """Compare answers with weights times columns, and return how many positions there are."""
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((2, groups * inputs, *size))
    weights = rng.standard_normal((groups, 3, inputs * geometry.taps))
    reading = Reading(tensor="x", groups=groups, entries=inputs * geometry.taps, geometry=geometry)
    every = weights @ patch_columns(maps, geometry, groups)
    made = every.reshape(2, 3 * groups, *geometry.output_size(size))
    columns = reading.columns(maps)
    answers = answers_of(CONVOLUTION, reading, maps, made)
    np.testing.assert_allclose(answers, weights @ columns, atol=1e-9)
    return columns.shape[-1]
