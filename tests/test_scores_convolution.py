"""Scores of convolutions against the equations written a second time.

The equations' own output is compared with the runtime's first: what is compared with the package
has then been shown to be the convolution that the model computes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from geometries import Shape, shapes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper
from reference import (
    convolution_output,
    convolution_signals,
    kernels_by_unit,
    seen_by_taps,
    shares,
)
from scored import assert_scores, model_of, one_layer, run, scores_of

from onnx_relief.errors import ModelError
from onnx_relief.settings import Estimator
from onnx_relief.structures import KERNEL, WEIGHT, Structure

few = settings(max_examples=60, deadline=None)


@dataclass(frozen=True)
class Case:
    """One convolution and its data."""

    shape: Shape
    groups: int
    x: Any
    weight: Any
    bias: Any
    estimator: Estimator
    structure: Structure

    @property
    def seen(self) -> Any:
        """What every tap meets, (samples, channels, taps, positions)."""
        said = self.shape.attributes
        return seen_by_taps(self.x, self.shape.kernel, said, transposed=self.shape.transposed)

    @property
    def kernels(self) -> Any:
        """The weight as (units, channels of the group, taps)."""
        return kernels_by_unit(self.weight, self.groups, transposed=self.shape.transposed)

    @property
    def model(self) -> Any:
        """The layer alone."""
        constants = {"w": self.weight} | ({} if self.bias is None else {"b": self.bias})
        op = "ConvTranspose" if self.shape.transposed else "Conv"
        said = self.shape.attributes | {"group": self.groups}
        return one_layer(op, ["x", *constants], constants, {"x": self.x}, **said)

    @property
    def expected(self) -> list[Any]:
        """The scores of the kernels or weights, and of the bias."""
        signals = convolution_signals(
            self.seen,
            self.kernels,
            self.groups,
            mean_map=self.estimator is Estimator.MEAN_MAP,
            weights=self.structure == WEIGHT,
        )
        if self.bias is None:
            return shares(signals, np.zeros((len(signals), 0)))
        strength = np.abs(self.bias.astype(np.float64)) * np.sqrt(self.seen.shape[-1])
        return shares(signals, strength[:, None])


@st.composite
def cases(draw: Any, of: Any = shapes(), groups: Any = st.sampled_from([1, 1, 2, 3])) -> Case:  # noqa: B008
    """Draw a convolution with any number of groups; some channels and kernels are zero."""
    shape, parts = draw(of), draw(groups)
    width, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((3, parts * width, *shape.size)) * rng.choice([0.1, 1, 30])
    x[:, rng.integers(parts * width)] *= rng.choice([0, 1])
    first = (parts * width, per_group) if shape.transposed else (parts * per_group, width)
    weight = rng.standard_normal((*first, *shape.kernel))
    weight[0, 0] *= rng.choice([0, 1])
    bias = rng.standard_normal(parts * per_group) if draw(st.booleans()) else None
    return Case(
        shape=shape,
        groups=parts,
        x=x.astype(np.float32),
        weight=weight.astype(np.float32),
        bias=None if bias is None else bias.astype(np.float32),
        estimator=draw(st.sampled_from(Estimator)),
        structure=draw(st.sampled_from([KERNEL, WEIGHT])),
    )


def check(case: Case) -> None:
    """Compare equations and runtime, then equations and package; the data comes in two batches."""
    try:
        output = run(case.model, {"x": case.x})["y"]
    except ModelError:
        assume(False)  # The runtime does not implement some output paddings.
    mine = convolution_output(case.seen, case.kernels, case.groups)
    mine = mine if case.bias is None else mine + case.bias[:, None]
    close = 1e-5 * np.abs(mine).max() + 1e-6
    np.testing.assert_allclose(output.reshape(mine.shape), mine, rtol=0, atol=close)
    said = {"estimator": case.estimator, "structure": case.structure}
    scores = scores_of(case.model, {"x": case.x[:1]}, {"x": case.x[1:]}, **said)["layer"]
    assert_scores(scores, *case.expected, rtol=1e-5, atol=1e-8)


@few
@given(cases(shapes(st.just(False))))
def test_convolutions(case: Case) -> None:
    check(case)


@few
@given(cases(shapes(st.just(True))))
def test_transposed_convolutions(case: Case) -> None:
    check(case)


@few
@given(cases(groups=st.integers(2, 4)))
def test_depthwise_convolutions_with_and_without_multiplier(case: Case) -> None:
    channels = case.groups
    weight = case.weight[:channels] if case.shape.transposed else case.weight[:, :1]
    check(replace(case, x=case.x[:, :channels], weight=weight))


@pytest.mark.parametrize("estimator", Estimator)
@pytest.mark.parametrize("strides", [[1, 1], [2, 2], [1, 3]])
@pytest.mark.parametrize("pads", [[0] * 4, [1, 0, 0, 1]])
def test_pointwise_convolutions(estimator: Estimator, strides: list[int], pads: list[int]) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 4, 6, 5)).astype(np.float32)
    weight = rng.standard_normal((3, 4, 1, 1)).astype(np.float32)
    shape = Shape((6, 5), (1, 1), {"strides": strides, "pads": pads}, transposed=False)
    check(Case(shape, 1, x, weight, weight[:, 0, 0, 0], estimator, KERNEL))


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1)])
def test_a_bias_in_a_following_add_competes(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((3, 2, 5, 5)).astype(np.float32)
    weight = rng.standard_normal((3, 2, 2, 2)).astype(np.float32)
    bias = rng.standard_normal(3).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["before"], name="layer"),
        helper.make_node("Add", ["before", "b"], ["y"]),
    ]
    model = model_of(nodes, {"w": weight, "b": bias.reshape(shape)}, {"x": x}, ["y"])
    square = Shape((5, 5), (2, 2), {}, transposed=False)
    case = Case(square, 1, x, weight, bias, Estimator.PAPER, KERNEL)
    assert_scores(scores_of(model, {"x": x})["layer"], *case.expected, rtol=1e-5, atol=1e-8)


def test_the_bias_competes_with_the_size_of_the_output_map() -> None:
    """|b| sqrt(h w) by hand: a kernel of one tap, an input of ones, so S = |k| 5 + |b| 5."""
    x, weight = np.ones((2, 1, 5, 5), np.float32), np.full((1, 1, 1, 1), -3, np.float32)
    case = one_layer("Conv", ["x", "w", "b"], {"w": weight, "b": np.ones(1, np.float32)}, {"x": x})
    scores = scores_of(case, {"x": x})["layer"]
    np.testing.assert_allclose(scores.weights[0], 0.75, rtol=1e-6)
    np.testing.assert_allclose(scores.bias, 0.25, rtol=1e-6)


def test_the_comparison_notices_a_thousandth() -> None:
    x, weight = np.ones((1, 2, 3, 3), np.float32), np.ones((1, 2, 1, 1), np.float32)
    scores = scores_of(one_layer("Conv", ["x", "w"], {"w": weight}, {"x": x}), {"x": x})["layer"]
    assert_scores(scores, np.full((1, 2), 0.5), np.zeros((1, 0)), rtol=1e-5, atol=1e-8)
    with pytest.raises(AssertionError):
        assert_scores(scores, np.full((1, 2), 0.5005), np.zeros((1, 0)), rtol=1e-5, atol=1e-8)
