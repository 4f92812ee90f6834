"""What multiplies by constants and is no layer is listed with its reason; nothing else is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from text_models import random, survey

INT = np.arange(4, dtype=np.int8).reshape(2, 2)
CONSTANTS = {
    "w": random(2, 2),
    "v": random(2, seed=1) ** 2,
    "k": random(2, 2, 1),
    "q": INT,
    "qk": INT[:, :, None],
    "s": np.float32(0.5),
    "z": np.int8(0),
    "index": np.array([0]),
    "shape": np.array([2, 2]),
}
ELEMENTWISE, INTEGERS = "scales elements one by one", "weights are integers"
REASONS = {
    "y = QLinearConv(xq, s, z, qk, s, z, s, z)": INTEGERS,
    "y = QLinearMatMul(xq, s, z, q, s, z, s, z)": INTEGERS,
    "y = ConvInteger(xq, qk)": INTEGERS,
    "y = MatMulInteger(xq, q)": INTEGERS,
    "y = MatMulInteger(q, xq)": INTEGERS,
    'y = Einsum <equation = "ij,jk->ki"> (x, w)': "does not come last in the data and the output",
    'y = Einsum <equation = "ji,jk->ik"> (x, w)': "does not come last in the data and the output",
    'y = Einsum <equation = "ij,jk->k"> (x, w)': "does not come last in the data and the output",
    'y = Einsum <equation = "ij,kj->ij"> (x, w)': "multiplies an axis of its weight by the data's",
    'y = Einsum <equation = "ij,jk->i"> (x, w)': "sums its weight up",
    'y = Einsum <equation = "ij,jj->i"> (x, w)': "takes a diagonal",
    'y = Einsum <equation = "ij,kl->ijkl"> (x, w)': "its weight has no axis of inputs",
    'y = Einsum <equation = "ij,ij->"> (x, w)': "its weight has no axis of units",
    'y = Einsum <equation = "...j,...j->..."> (x, w)': "have no letters",
    'y = Einsum <equation = "ij,jk,kl->il"> (x, w, w)': "more than two tensors at once",
    "y = DeformConv(x, k, x)": "taps move with the data",
    "y = Gather(w, i)": "an embedding",
    "y = Mul(x, v)": ELEMENTWISE,
    "y = Mul(v, x)": ELEMENTWISE,
    "y = Div(x, v)": ELEMENTWISE,
    "y = PRelu(x, v)": ELEMENTWISE,
    "y = BatchNormalization(x, v, v, v, v)": "normalises channels",
    "y = InstanceNormalization(x, v, v)": "normalises channels",
    "y = GroupNormalization <num_groups = 1> (x, v, v)": "normalises channels",
    "y = LayerNormalization(x, v)": "normalises channels",
    "y = com.microsoft.MatMulNBits <K = 2, N = 2> (x, q, v)": "not an ONNX operator",
    "y = com.microsoft.FusedMatMul(x, w)": "com.microsoft.FusedMatMul",
    "y = my.Dense(x, w)": "my.Dense is not an ONNX operator",
    "y, t = ai.onnx.ml.LinearClassifier <coefficients = [1.0, 2.0]> (x)": "attributes, not tensors",
    "y = ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0]> (x)": "attributes, not tensors",
    "y = ai.onnx.ml.Scaler <scale = [1.0, 2.0]> (x)": ELEMENTWISE,
    "y = ai.onnx.ml.TreeEnsembleRegressor (x)": "compare inputs with numbers and multiply nothing",
    "y, t = ai.onnx.ml.TreeEnsembleClassifier (x)": "multiply nothing",
    "p = Mul(w, w) y = MatMul(x, p)": "computed at run time by Mul 'p'",
    "p = Mul(w, w) y = Gemm(p, x)": "fold constants first",
    "y = MatMul(w, w)": "both of its operands are constant",
    "y = MatMul(x, q)": "int8, not floating point",
    "p = ReduceSum(x) y = Conv(x, p)": "computed at run time by ReduceSum",
    "y = Conv(x, x)": "'x' is an input of the model",
    "y = LSTM <hidden_size = 2> (x, x, k)": "'x' is an input of the model",
}
NO_REASON = [
    "y = MatMul(x, x)",
    "h = Relu(x) y = MatMul(x, h)",
    "y = Mul(x, s)",
    "y = Mul(w, w)",
    "y = Add(x, v)",
    "y = Gather(x, index)",
    "y = Gather(w, index)",
    "y = Reshape(x, shape)",
    'y = Einsum <equation = "ij,jk->ik"> (x, x)',
    'y = Einsum <equation = "ij,jk,kl->il"> (x, x, x)',
    'y = Einsum <equation = "ij->ji"> (x)',
    "y = ai.onnx.ml.Normalizer(x)",
    "y = com.microsoft.Gelu(x)",
    "y = Softmax(x)",
]


def listed(node):
    text = f"(float[N,2] x, int8[N,2] xq, int64[N] i) => (y) {{ {node} }}"
    return survey(text.replace("(y)", "(float y)"), **CONSTANTS)


@pytest.mark.parametrize("node", REASONS)
def test_reason_in_words(node):
    found = listed(node)
    assert not found.sites
    (refusal,) = found.refusals
    assert REASONS[node] in refusal.reason
    assert refusal.node == "y"
    assert refusal.op in node


@pytest.mark.parametrize("node", NO_REASON)
def test_what_multiplies_by_no_constants_is_not_listed(node):
    found = listed(node)
    assert (found.sites, found.refusals) == ((), ())


@pytest.mark.parametrize(
    ("data", "weight", "reason"),
    [
        ("N,8", (1, 3), "its weight has length 1 along an axis of which the data has 8"),
        ("N,1", (8, 3), "its weight has length 8 along an axis of which the data has 1"),
        ("N,D", (1, 3), None),
        ("N,D", (8, 3), None),
        ("N,1", (1, 3), None),
        ("N,2,5", (1, 5, 3), "its weight has length 1 along an axis of which the data has 2"),
        ("N,2,1", (2, 5, 3), "its weight has length 5 along an axis of which the data has 1"),
        ("N,1,5", (1, 5, 3), None),
        ("N,2,5", (2, 5, 3), None),
    ],
)
def test_an_einsum_that_repeats_an_axis_is_left_alone(data, weight, reason):
    equation = "bd,de->be" if len(weight) == 2 else "bdk,dke->be"
    node = f'r = Relu (x)  y = Einsum <equation = "{equation}"> (r, w)'
    found = survey(f"(float[{data}] x) => (float[N,3] y) {{ {node} }}", w=random(*weight))
    assert len(found.sites) == (reason is None)
    assert [one.reason.startswith(reason) for one in found.refusals] == [True] * (
        reason is not None
    )


def test_input_with_a_default_is_no_data():
    text = "(float[N,2] x, float[2] v) => (float y, float z) {{ y = Relu(x) z = {}(w, v) }}"
    for op in ("Mul", "PRelu"):
        found = survey(text.format(op), w=random(2, 2), v=random(2))
        assert (found.sites, found.refusals) == ((), ())


def test_matmul_of_attention_is_not_listed_and_its_projections_are_layers():
    nodes = "a = MatMul(x, w) b = MatMul(x, w) t = Transpose(b) c = MatMul(a, t) y = Softmax(c)"
    found = listed(nodes)
    assert [site.layer.name for site in found.sites] == ["a", "b"]
    assert found.refusals == ()


def test_packed_weights_are_refused_before_anything_is_measured():
    packed = helper.make_tensor("p", onnx.TensorProto.INT4, [2, 2], [1, 2, 3, 4])
    text = "(float[N,2] x) => (float y) { w = DequantizeLinear(p, s) y = MatMul(x, w) }"
    found = survey(text, p=packed, s=np.float32(0.5))
    assert not found.sites
    assert found.refusals[0].reason == "its weight p cannot be changed: its int4 values share bytes"
