"""Norms by Gram matrices against norms of the maps themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_relief.activity import signal
from onnx_relief.activity.signal import Signal, kernel_norms

sizes = st.integers(1, 4)


def made(seed: int, groups: int, per_group: int, width: int, taps: int, samples: int) -> Any:
    """Return kernels, patches (samples, channels, taps, positions) and their Gram matrices."""
    rng = np.random.default_rng(seed)
    kernels = rng.standard_normal((groups * per_group, width, taps))
    patches = rng.random((samples, groups * width, taps, 5))
    return kernels, patches, patches @ patches.transpose(0, 1, 3, 2)


def norms_of_the_maps(kernels: Any, patches: Any, groups: int) -> Any:
    units, width, _ = kernels.shape
    norms = np.zeros((units, width))
    for j in range(units):
        for i in range(width):
            channel = j // (units // groups) * width + i
            maps = np.einsum("t,ntp->np", np.abs(kernels[j, i]), patches[:, channel])
            norms[j, i] = np.sqrt((maps**2).sum(axis=1)).sum()
    return norms


@given(st.integers(0, 2**32 - 1), st.tuples(sizes, sizes, sizes, sizes, sizes))
def test_norms_are_those_of_the_maps(seed: int, shape: tuple[int, ...]) -> None:
    groups, *_ = shape
    kernels, patches, gram = made(seed, *shape)
    expected = norms_of_the_maps(kernels, patches, groups)
    np.testing.assert_allclose(kernel_norms(kernels, gram, groups), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, _, gram = made(0, 2, 3, 5, 4, 3)
    whole = kernel_norms(kernels, gram, 2)
    monkeypatch.setattr(signal, "_BLOCK_ENTRIES", block)
    np.testing.assert_allclose(kernel_norms(kernels, gram, 2), whole, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_kernels_of_any_precision(dtype: Any) -> None:
    kernels, patches, gram = made(1, 1, 3, 2, 4, 2)
    rounded = kernels.astype(dtype)
    norms = kernel_norms(rounded, gram.astype(np.float32), 1)
    assert norms.dtype == np.float64
    expected = norms_of_the_maps(rounded.astype(np.float64), patches, 1)
    np.testing.assert_allclose(norms, expected, rtol=1e-6, atol=0)


def test_arguments_are_not_changed() -> None:
    kernels, _, gram = made(2, 1, 2, 2, 3, 2)
    before = kernels.copy(), gram.copy()
    kernel_norms(kernels, gram, 1)
    np.testing.assert_array_equal(kernels, before[0])
    np.testing.assert_array_equal(gram, before[1])


def test_without_samples_there_is_no_signal() -> None:
    kernels, _, gram = made(3, 1, 2, 2, 3, 2)
    np.testing.assert_array_equal(kernel_norms(kernels, gram[:0], 1), np.zeros((2, 2)))


@pytest.mark.parametrize("taps", [1, 3])
def test_norms_of_the_input_are_scaled_by_the_weights_of_the_group_that_reads(taps: int) -> None:
    measured = np.arange(1.0, 2 * 3 * taps + 1).reshape(2, 3, taps)  # two groups of three inputs
    weights = np.random.default_rng(0).standard_normal((4, 3, taps)).astype(np.float32)
    found = Signal(measured=measured, is_whole=False, reads=np.ones(6))
    expected = np.abs(weights.astype(np.float64)) * measured[[0, 0, 1, 1]]
    np.testing.assert_array_equal(found.of(weights, 0, 4), expected)
    np.testing.assert_array_equal(found.of(weights[1:3], 1, 4), expected[1:3])


def test_whole_signals_are_given_as_they_are() -> None:
    measured = np.arange(8.0).reshape(4, 2, 1)
    found = Signal(measured=measured, is_whole=True, reads=np.ones(2))
    np.testing.assert_array_equal(found.of(np.zeros((2, 2, 9)), 1, 4), measured[1:3])
