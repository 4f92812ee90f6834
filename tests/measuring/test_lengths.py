"""Axes that an Einsum repeats, where only the data shows it."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import build, random

from onnx_relief.data import open_data
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.lengths import check_lengths


def check(body, shape, **weights):
    document = load(build(f"(float[N,D] x) => (float[N,E] y) {{ {body} }}", **weights))
    survey = find_layers(document)
    data = open_data({"x": random(*shape)}, input_specs(document.proto))
    batch = next(iter(data.batches(16)))
    check_lengths(survey, survey.sites, batch, "cpu")
    return survey


@pytest.mark.parametrize("before", ["h = Relu (x)", "h = com.microsoft.Gelu (x)", ""])
@pytest.mark.parametrize(("inside", "outside"), [(1, 4), (4, 1), (4, 4), (1, 1)])
def test_a_repeated_axis_is_named(before, inside, outside):
    read = "h" if before else "x"
    body = f'{before}  y = Einsum <equation = "bd,de->be"> ({read}, w)'
    if inside == outside:
        assert len(check(body, (20, outside), w=random(inside, 3)).sites) == 1
        return
    with pytest.raises(UnsupportedError, match=r"'y' reads .* axis of length 1 is repeated"):
        check(body, (20, outside), w=random(inside, 3))


def test_layers_that_are_cut_to_one_channel_stay_layers():
    """What comes before them may be unknown to shape inference."""
    body = (
        'g = com.microsoft.Gelu (x)  h = MatMul (g, a)  y = Einsum <equation = "bd,de->be"> (h, w)'
    )
    survey = check(body, (20, 8), a=random(8, 1), w=random(1, 3))
    assert [site.layer.op for site in survey.sites] == ["MatMul", "Einsum"]
    assert np.prod(survey.sites[1].parts[0].view.shape) == 3
