"""Patch Gram matrices against the definition: what the taps see, multiplied with itself."""

from __future__ import annotations

import numpy as np
from geometries import Shape, shapes
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import seen_by_taps

from onnx_relief.activity.patches import patch_gram


@settings(deadline=None)
@given(shapes(), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_gram_matrices_are_those_of_what_the_taps_see(
    shape: Shape, channels: int, seed: int
) -> None:
    maps = np.random.default_rng(seed).random((channels, *shape.size))
    (seen,) = seen_by_taps(maps[None], shape.kernel, shape.attributes, transposed=shape.transposed)
    gram = patch_gram(maps, shape.geometry)
    np.testing.assert_allclose(gram, seen @ seen.transpose(0, 2, 1), rtol=1e-12, atol=1e-12)


def test_one_tap_gives_the_energy_of_the_map() -> None:
    maps = np.array([[[1.0, 2.0], [3.0, 0.0]]])
    geometry = Shape((2, 2), (1, 1), {}, transposed=False).geometry
    np.testing.assert_array_equal(patch_gram(maps, geometry), [[[14.0]]])


def test_the_maps_are_not_changed() -> None:
    maps = np.ones((1, 4))
    patch_gram(maps, Shape((4,), (2,), {"pads": [1, 1]}, transposed=False).geometry)
    np.testing.assert_array_equal(maps, 1)
