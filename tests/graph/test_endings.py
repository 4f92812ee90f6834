"""Which outputs are sigmoids."""

from __future__ import annotations

import pytest
from text_models import build

from onnx_relief.graph.endings import sigmoid_outputs


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("y = Sigmoid (x)", True),
        ("y = HardSigmoid (x)", True),
        ("s = Sigmoid (x)  t = Transpose (s)  y = Cast <to = 1> (t)", True),
        ("s = Sigmoid (x)  t = HardSigmoid (x)  y = Concat <axis = 1> (s, t, s)", True),
        ("s = Sigmoid (x)  t = Relu (x)  y = Concat <axis = 1> (s, t)", False),
        ("s = Sigmoid (x)  y = Mul (s, s)", False),
        ("y = Softmax (x)", False),
        ("y = Identity (x)", False),
    ],
)
def test_outputs_that_are_sigmoids_are_known(body, found):
    model = build(f"(float[N,N] x) => (float[N,M] y, float[N,N] z) {{ {body}  z = Relu (x) }}")
    assert sigmoid_outputs(model) == ({"y"} if found else set())


def test_an_operator_of_another_domain_may_be_anything():
    model = build("(float[N,N] x) => (float[N,N] y) { y = Relu (x) }")
    model.graph.node[0].op_type, model.graph.node[0].domain = "Sigmoid", "com.example"
    assert sigmoid_outputs(model) == set()
