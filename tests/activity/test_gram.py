"""Second moments of layer inputs: what the taps meet, however it is batched."""

from __future__ import annotations

import numpy as np
import pytest
from geometries import shapes
from hypothesis import example, given
from hypothesis import strategies as st
from reference import seen_by_taps

from onnx_relief.activity.gram import coarse_answers, coarsened, gram_of, patch_columns
from onnx_relief.geometry import ConvGeometry


@given(shapes(), st.integers(1, 2), st.integers(1, 2))
def test_columns_are_what_the_taps_meet(shape, groups, width):
    maps = np.random.default_rng(0).standard_normal((2, groups * width, *shape.size))
    columns = patch_columns(maps, shape.geometry, groups)
    seen = seen_by_taps(maps, shape.kernel, shape.attributes, transposed=shape.transposed)
    assert np.allclose(columns, seen.reshape(2, groups, -1, seen.shape[-1]))


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4))
def test_batches_and_order_do_not_matter(samples, entries, groups, positions):
    rng = np.random.default_rng(samples)
    columns = rng.standard_normal((samples, groups, entries, positions))
    answers = rng.standard_normal((samples, groups, 2, positions))
    whole = gram_of(columns, answers)
    parts = [gram_of(columns[i : i + 1], answers[i : i + 1]) for i in reversed(range(samples))]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert merged.count == whole.count == samples * positions
    assert np.allclose(merged.covariance(), whole.covariance())
    assert np.allclose(merged.cross_covariance(), whole.cross_covariance())
    flat = columns.transpose(1, 2, 0, 3).reshape(groups, entries, -1)
    beside = answers.transpose(1, 2, 0, 3).reshape(groups, 2, -1)
    for group in range(groups):
        both = np.concatenate([flat[group], beside[group]])
        expected = np.cov(both, bias=True).reshape(entries + 2, entries + 2)
        assert np.allclose(whole.covariance()[group], expected[:entries, :entries])
        assert np.allclose(whole.cross_covariance()[group], expected[entries:, :entries])
    assert np.allclose(gram_of(columns, diagonal=True).mean_square, whole.mean_square)


@example(37, 5005.875, 1)
@example(1, 2.04262505735714e-22, 1)
@example(16, 0.7, 400)
@example(16, 3.3, 1600)
@given(st.integers(1, 40), st.floats(-1e4, 1e4, width=32), st.sampled_from([1, 9, 400]))
def test_an_input_that_never_changes_has_no_covariance(samples, value, positions):
    columns = np.random.default_rng(samples).standard_normal((samples, 1, 4, positions))
    columns = columns.astype(np.float32)
    columns[:, 0, 1] = value
    answers = np.random.default_rng(1).standard_normal((samples, 1, 2, positions))
    gram = gram_of(columns, answers.astype(np.float32))
    assert not gram.cross_covariance()[0, :, 1].any()
    found = gram.covariance()[0]
    assert not found[1].any()
    assert not found[:, 1].any()
    assert (np.diag(found) >= 0).all()
    assert found.any() == (samples * positions > 1)


@pytest.mark.parametrize("step", [1 << 23, 1 << 8])
@given(st.floats(-1e5, 1e5, width=32), st.integers(1, 3))
def test_a_large_mean_hides_no_variance(step, mean, groups):
    """Pascals, kelvins and years come as they are where no model scales them."""
    rng = np.random.default_rng(groups)
    columns = (mean + rng.standard_normal((5, groups, 3, 40))).astype(np.float32)
    answers = (mean - 2 * columns[:, :, :1] + rng.standard_normal((5, groups, 1, 40))).astype("f4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnx_relief.activity.gram._PIECE", step)
        one, other = (gram_of(columns[at], answers[at]) for at in (slice(2), slice(2, 5)))
    found = one.merge(other)
    for group in range(groups):
        seen = [part[:, group].swapaxes(0, 1).reshape(-1, 200) for part in (columns, answers)]
        expected = np.cov(np.concatenate(seen).astype(np.float64), bias=True)
        assert np.allclose(found.covariance()[group], expected[:3, :3], rtol=1e-3, atol=1e-3)
        assert np.allclose(found.cross_covariance()[group], expected[3:, :3], rtol=1e-3, atol=1e-3)


@given(shapes(kinds=st.just(False)), st.integers(1, 6))
def test_a_grid_is_part_of_all_positions(shape, most):
    maps = np.random.default_rng(0).standard_normal((1, 2, *shape.size))
    geometry = shape.geometry
    columns = patch_columns(maps, geometry, 1, most=most)
    every = patch_columns(maps, geometry, 1)
    numbers = np.arange(every.shape[-1]).reshape(1, 1, *geometry.output_size(shape.size))
    places = coarse_answers(numbers, geometry, shape.size, 1, most=most).reshape(-1)
    assert np.array_equal(columns, every[..., places])
    assert places.size <= max(2**geometry.rank * most, 1)
    assert coarsened(geometry, shape.size, None) is geometry


@pytest.mark.parametrize("most", [64, 400])
@pytest.mark.parametrize("size", [(56, 56), (112, 112), (30, 224), (1000,)])
def test_a_grid_sees_as_much_padding_as_there_is(size, most):
    rank = len(size)
    geometry = ConvGeometry(
        kernel=(3,) * rank, strides=(1,) * rank, dilations=(1,) * rank, pads=(1,) * 2 * rank
    )
    maps = np.ones((1, 1, *size), np.float32)
    every, some = (
        gram_of(patch_columns(maps, geometry, 1, most=n)).mean.sum() for n in (None, most)
    )
    assert some == pytest.approx(every, rel=0.03)
