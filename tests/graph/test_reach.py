"""Tensors past no layer: what they hold is as the data holds it, each feature in its own unit."""

from __future__ import annotations

import pytest
from text_models import build, random

from onnx_relief.graph.reach import comes_from_layers
from onnx_relief.graph.walk import understand


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("y = Relu (x)", False),
        ("c = Sub (x, b)  d = Div (c, b)  y = Concat <axis = 0> (d, x)", False),
        ("h = MatMul (x, v)  y = Relu (h)", True),
        ("h = MatMul (x, v)  y = Add (x, h)", True),
        ("h = Gemm (x, v)  y = Flatten (h)", True),
        (
            "h = If (yes) <then_branch = t () => (float[4,4] o) { o = MatMul (x, v) }, "
            "else_branch = e () => (float[4,4] p) { p = Relu (x) }>  y = Relu (h)",
            True,
        ),
        ("h = com.microsoft.FusedMatMul (x, v)  y = Relu (h)", True),
        ("q, s, z = DynamicQuantizeLinear (x)  y = MatMulInteger (q, q)", True),
    ],
)
def test_layers_before_a_tensor_are_found(body, found):
    model = build(
        f"(float[4,4] x, bool yes) => (float[N,M] y) {{ {body} }}",
        v=random(4, 4, seed=1),
        b=random(4, seed=2),
    )
    assert comes_from_layers(understand(model).scopes[0], "y") == found
