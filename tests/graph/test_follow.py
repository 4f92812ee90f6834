"""Units are followed to all their readers, or it is said what blocks the way."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from text_models import build, function, random, survey

from onnx_relief.graph.follow import Reader, follow_units
from onnx_relief.graph.unit_rules import _ZERO_ELSEWHERE, _ZERO_TO_ZERO

CONSTANTS = {
    **{"w": random(3, 2, 3), "v": random(4, 3, 1), "vt": random(3, 4, 1), "d": random(3, 1, 3)},
    **{"f": random(12, 5), "k": random(3, 5), "m": random(2, 3), "sq": random(3, 3)},
    **{"b": random(3), "c": random(3, 1), "zero": np.zeros((3, 1), np.float32)},
    **{"inf": np.full((3, 1), np.inf, np.float32), "five": random(1, 1, 1, 1, 1)},
    **{"g": random(3), "o": random(3), "mu": random(3), "var": random(3) ** 2},
    **{"flat": np.array([0, -1]), "merge": np.array([-1, 12])},
    **{"first": np.array([1]), "last": np.array([2]), "down": np.array([-2])},
    **{"low": np.float32(0), "high": np.float32(6), "some": np.float32(0.5)},
    **{"minus": np.float32(-1), "one": np.array([1, -1]), "batch": np.array([0])},
    "many": random(2, 12, 5),
    "kt": random(5, 3),
}
CONV = "[layer] h = Conv(x, w) "


def flow_of(nodes, inputs="float[N,2,L] x, int64[K] axes", outputs="float y"):
    outputs += ", float z" if "z = " in nodes else ""
    found = survey(f"({inputs}) => ({outputs}) {{ {nodes} }}", **CONSTANTS)
    return follow_units(found)["layer"]


CONV_TO_CONV = {
    "y = Conv(h, v)": True,
    "r = Relu(h) y = Conv(r, v)": True,
    "a = LeakyRelu(h) s = Tanh(a) y = Conv(s, v)": True,
    "a = PRelu(h, c) y = Conv(a, v)": True,
    "a = Sigmoid(h) y = Conv(a, v)": False,
    "a = Exp(h) y = Conv(a, v)": False,
    "a = Clip(h, low, high) y = Conv(a, v)": True,
    "a = Clip(h, some) y = Conv(a, v)": False,
    "a = Clip(h, , minus) y = Conv(a, v)": False,
    "a = Mul(h, c) y = Conv(a, v)": True,
    "a = Div(h, c) y = Conv(a, v)": True,
    "a = Add(zero, h) y = Conv(a, v)": True,
    "a = Sub(h, c) y = Conv(a, v)": False,
    "a = Add(h, b) y = Conv(a, v)": False,
    "a = Conv(x, w) s = Mul(h, a) y = Conv(s, v)": True,
    "a = HardSigmoid(h) s = Mul(h, a) y = Conv(s, v)": True,
    "a = HardSigmoid(h) s = Mul(a, h) r = Relu(s) y = Conv(r, v)": True,
    "a = Sigmoid(h) e = Exp(h) s = Mul(a, e) y = Conv(s, v)": False,
    "a = MaxPool <kernel_shape = [2]> (h) y = Conv(a, v)": True,
    "a = AveragePool <kernel_shape = [2], pads = [1, 1]> (h) y = Conv(a, v)": True,
    "a = GlobalAveragePool(h) y = Conv(a, v)": True,
    "u = Unsqueeze(h, down) p = GlobalAveragePool(u) a = Squeeze(p, down) y = Conv(a, v)": True,
    "a = ReduceMean(h, last) y = Conv(a, v)": True,
    "a, i = MaxPool <kernel_shape = [2]> (h) y = Conv(a, v)": True,
    "a, i = Dropout(h) y = Conv(a, v)": True,
    "a = Cast <to = 1> (h) y = Conv(a, v)": True,
    "y = Conv <group = 3> (h, d)": True,
    "y = ConvTranspose(h, vt)": True,
}


@pytest.mark.parametrize("nodes", CONV_TO_CONV)
def test_convolution_to_convolution(nodes):
    flow = flow_of(CONV + nodes)
    assert flow.blocked is None
    assert flow.readers == (Reader("y", 1),)
    assert flow.keeps_zero == CONV_TO_CONV[nodes]


def test_batch_normalisation_goes_with_its_units():
    nodes = "n = BatchNormalization(h, g, o, mu, var) r = Relu(n) y = Conv(r, v)"
    flow = flow_of(CONV + nodes)
    assert (flow.blocked, flow.readers, flow.keeps_zero) == (None, (Reader("y", 1),), True)
    assert flow.normalisation_names == ("g", "o")


FLATTENED = [
    "p = MaxPool <kernel_shape = [2]> (h) r = Flatten(p) y = Gemm(r, f)",
    "r = Flatten(h) s = Dropout(r) y = Gemm(s, f)",
    "r = Flatten(h) s = Flatten(r) y = MatMul(s, f)",
    "r = Reshape(h, flat) s = Relu(r) y = Gemm(s, f)",
    "r = Flatten(h) t = Transpose(f) y = Gemm <transB = 1> (r, t)",
]


@pytest.mark.parametrize("nodes", FLATTENED)
def test_flattened_units_are_blocks_of_neighbours(nodes):
    flow = flow_of(CONV + nodes)
    assert (flow.blocked, flow.readers) == (None, (Reader("y", 4),))


def test_pooled_units_are_read_one_by_one():
    nodes = "[layer] h = Conv(x, w) p = GlobalAveragePool(h) s = Squeeze(p, last) y = Gemm(s, k)"
    assert flow_of(nodes).readers == (Reader("y", 1),)


def test_axes_that_vanish_before_the_units_move_them_forward():
    nodes = "a = ReduceMean <keepdims = 0> (h, batch) r = ReduceMax <keepdims = 0> (a, first) "
    assert flow_of(f"{CONV} {nodes} y = MatMul(r, k)").readers == (Reader("y", 1),)


MLP = {
    "[layer] h = MatMul(x, m) r = Relu(h) y = MatMul(r, k)": True,
    '[layer] h = Einsum <equation = "...i,iu"> (x, m) r = Relu(h) y = MatMul(r, k)': True,
    'r = MatMul(x, m) [layer] h = MatMul(r, sq) y = Einsum <equation = "ku,...u"> (kt, h)': True,
    "[layer] h = MatMul(x, m) a = Add(h, b) r = Relu(a) y = MatMul(r, k)": True,
    "[layer] h = Gemm(x, m, b) r = Relu(h) y = Gemm(r, k)": True,
    "[layer] h = Gemm(x, m, b) r = BatchNormalization(h, g, o, mu, var) y = Gemm(r, k)": True,
    "[layer] h = Gemm(x, m) r = Sigmoid(h) y = Gemm(r, k)": False,
    "[layer] h = Gemm(x, m, x) r = Relu(h) y = Gemm(r, k)": False,
    "[layer] h = MatMul(x, m) a = Add(h, b) e = Add(a, b) y = MatMul(e, k)": False,
    "[layer] h = Gemm(x, m, b) e = Gemm(h, sq, b) y = Gemm(e, k)": True,
}


@pytest.mark.parametrize("nodes", MLP)
def test_fully_connected_layers(nodes):
    flow = flow_of(nodes, inputs="float[N,2] x")
    assert flow.blocked is None
    assert flow.readers == (Reader("e" if "Gemm(e" in nodes else "y", 1),)
    assert flow.keeps_zero == MLP[nodes]


def test_bias_that_is_left_out_of_the_layer_still_moves_zero():
    """A bias that is shared with another operator stays whatever the plan says."""
    nodes = "[layer] h = Gemm(x, m, b) r = Relu(h) z = Gemm(r, k) q = ReduceSum(b) y = Add(z, q)"
    flow = flow_of(nodes, inputs="float[N,2] x")
    assert (flow.blocked, flow.keeps_zero) == (None, False)


def test_units_may_have_two_readers():
    nodes = "[layer] h = Conv(x, w) r = Relu(h) a = Conv(r, v) s = Sigmoid(h) b2 = Conv(s, v)"
    flow = flow_of(f"{nodes} y = Add(a, b2)")
    assert set(flow.readers) == {Reader("a", 1), Reader("b2", 1)}
    assert (flow.blocked, flow.keeps_zero) == (None, False)


def test_units_that_nobody_reads_have_no_readers():
    flow = flow_of("[layer] h = Conv(x, w) y = Relu(x)")
    assert (flow.blocked, flow.readers) == (None, ())


BN = "BatchNormalization(h, g, o, mu, var)"
BLOCKED = {
    "y = Relu(h)": "they reach the output of the graph",
    "a = Conv(x, w) s = Add(h, a) y = Conv(s, v)": "joined with another branch by Add 's'",
    "a = Reshape(x, axes) s = Mul(h, a) y = Conv(s, v)": "other branch at Mul 's' is not known",
    "a = Unsqueeze(x, batch) s = Mul(h, a) y = Conv(s, v)": "other branch at Mul 's' is not known",
    "s = Add(h, h) y = Conv(s, v)": "they meet Add 's' with themselves",
    "a = Concat <axis = 1> (h, x) y = Relu(a)": "they meet Concat 'a'",
    "a = Softmax <axis = 1> (h) y = Conv(a, v)": "they meet Softmax 'a'",
    "a = my.Relu(h) y = Conv(a, v)": "they meet Relu 'a'",
    "a = Reciprocal(h) y = Conv(a, v)": "they meet Reciprocal 'a'",
    "a = Div(c, h) y = Conv(a, v)": "Div 'a' makes zero infinite",
    "a = Mul(h, inf) y = Conv(a, v)": "Mul 'a' makes zero infinite",
    "a = Div(h, zero) y = Conv(a, v)": "Div 'a' makes zero infinite",
    "a = Add(h, five) y = Relu(a)": "Add 'a' adds axes",
    "a = Transpose(h) y = Relu(a)": "they meet Transpose 'a'",
    "a = Reshape(h, merge) y = Gemm(a, f)": "Reshape 'a' may mix them",
    "a = Reshape(h, one) y = Gemm(a, f)": "Reshape 'a' may mix them",
    "a = Flatten <axis = 2> (h) y = Gemm(a, f)": "Flatten 'a' joins them",
    "a = Flatten <axis = 0> (h) y = Gemm(a, f)": "Flatten 'a' joins them",
    "a = ReduceMean(h, axes) y = Relu(a)": "ReduceMean 'a' may reduce over them",
    "a = ReduceMax(h) y = Relu(a)": "ReduceMax 'a' may reduce over them",
    "a = ReduceSum(h, first) y = Relu(a)": "ReduceSum 'a' reduces over them",
    "a = PRelu(x, h) y = Relu(a)": "they are a parameter of PRelu 'a'",
    "a = Clip(x, h) y = Relu(a)": "the limits of Clip 'a' are not constant",
    "a, i = MaxPool <kernel_shape = [2]> (h) y = Conv(a, v) z = Cast <to = 1> (i)": "several",
    "y = MatMul(h, k)": "MatMul 'y' reads them in another order",
    "y = Conv(x, h)": "they meet Conv 'y'",
    "s = Flatten(h) t = Transpose(s) y = Gemm <transA = 1> (t, f)": "they meet Transpose 't'",
    "s = Flatten(h) y = Gemm <transA = 1> (s, f)": "Gemm 'y' reads them in another order",
    "s = Flatten(h) y = MatMul(s, many)": "MatMul 'y' reads them in another order",
    "s = Flatten(h) y = MatMul(m, s)": "MatMul 'y' reads them in another order",
    f"n = {BN} i = {BN} a = Add(n, i) y = Relu(a)": "'g' of BatchNormalization is shared",
    f"n = {BN} e = Mul(g, g) a = Conv(n, v) y = Add(a, e)": "'g' of BatchNormalization is shared",
    "n = BatchNormalization(h, g, g, mu, var) y = Conv(n, v)": "'g' of BatchNormalization is",
    "n = BatchNormalization(h, x, o, mu, var) y = Conv(n, v)": "shared or not constant",
    "n = BatchNormalization <training_mode = 1> (h, g, o, mu, var) y = Conv(n, v)": "training mode",
    "n = Flatten(h) a = BatchNormalization(n, g, o, mu, var) y = Gemm(a, f)": "another axis",
    "u = Unsqueeze(h, axes) y = Relu(u)": "Unsqueeze 'u' may move them anywhere",
    "u = Unsqueeze(h, batch) p = MaxPool <kernel_shape = [1, 1]> (u) y = Relu(p)": "pools over",
}


@pytest.mark.parametrize("nodes", BLOCKED)
def test_what_blocks_the_way_is_said(nodes):
    assert BLOCKED[nodes] in flow_of(CONV + nodes).blocked


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("[layer] h = MatMul(sq, q) y = MatMul(h, k)", "left-hand"),
        ("[layer] h = MatMul(x, bat) y = MatMul(h, k)", "batched"),
        ("[layer] h = MatMul(x, vec) y = Relu(h)", "vector has no axis of units"),
        ("[layer] h = MatMul(x, m) a = Add(h, g2) y = MatMul(a, k)", "the rank before Add 'a'"),
        ("[layer] h = RNN <hidden_size = 3> (x, rw, rr) y = Relu(h)", "gates of a recurrent"),
        ("[layer] h = MatMul(x, m) y = RNN <hidden_size = 3> (h, rr, rr)", "another order"),
        ("[layer] h = MatMul(x, m) y = MatMul(h, b3)", "another order"),
        (
            '[layer] h = Einsum <equation = "sni,ihu->snhu"> (x, bat) y = Relu(h)',
            "along several axes",
        ),
        ('[layer] h = MatMul(x, m) y = Einsum <equation = "snu,nuz"> (h, b3)', "another order"),
        ("[layer] h = MatMul(x, m) y = GlobalMaxPool(h)", "GlobalMaxPool 'y' pools over them"),
    ],
)
def test_what_blocks_the_way_of_other_layers(nodes, reason):
    more = {"bat": random(2, 2, 3), "vec": random(2), "g2": random(2, 3)}
    more |= {"rw": random(1, 3, 2), "rr": random(1, 3, 3), "b3": random(2, 3, 5)}
    text = f"(float[S,N,2] x, float[3,N] q) => (float y) {{ {nodes} }}"
    flow = follow_units(survey(text, **CONSTANTS, **more))["layer"]
    assert reason in flow.blocked


IF = (
    "y = If (t) <then_branch = g () => (float[N,5] p) {{ {} }}, "
    "else_branch = g () => (float[N,5] q) {{ {} }}>"
)


def test_units_that_are_read_inside_a_body_are_not_followed():
    nodes = "[layer] h = Gemm(x, m) r = Relu(h) " + IF.format("p = Gemm(r, k)", "q = Gemm(r, k)")
    flow = flow_of(nodes, inputs="float[N,2] x, bool t")
    assert flow.blocked == "they are read inside a body"


def test_layers_inside_a_body_are_followed_there():
    inside = "[layer] h = Gemm(x, m) r = Relu(h) [next] p = Gemm(r, k)"
    text = f"(float[N,2] x, bool t) => (float[N,5] y) {{ {IF.format(inside, 'q = Gemm(x, m5)')} }}"
    flows = follow_units(survey(text, **CONSTANTS, m5=random(2, 5)))
    assert flows["y.then_branch/layer"].readers == (Reader("y.then_branch/next", 1),)
    assert flows["y.then_branch/next"].blocked == "they reach the output of the graph"


def test_normalisation_inside_a_function_that_is_called_twice_is_shared():
    made = "".join(f"{name} = Constant <value = float[3] {{1, 2, 3}}> () " for name in "gomv")
    norm = function("norm", "(x) => (y)", f"{made} y = BatchNormalization(x, g, o, m, v)")
    text = "(float[N,2] x) => (float y) {{ [layer] h = Gemm(x, m) n = my.norm(h) {} }}"
    constants = {"functions": norm, "m": random(2, 3), "k": random(3, 3)}
    once = survey(text.format("y = Gemm(n, k)"), **constants)
    twice = survey(text.format("e = Gemm(n, k) y = my.norm(e)"), **constants)
    assert follow_units(once)["layer"].normalisation_names == ("my::norm/g", "my::norm/o")
    assert follow_units(once)["layer"].blocked is None
    assert "is shared" in follow_units(twice)["layer"].blocked


@pytest.mark.parametrize("op", [*_ZERO_TO_ZERO, *_ZERO_ELSEWHERE])
def test_table_says_the_truth_about_zero(op):
    settings = "<to = 1>" if op == "Cast" else ""
    operands = "x, slope" if op == "PRelu" else "x"
    model = build(
        f"(float[1,3] x) => (float[1,3] y) {{ y = {op} {settings} ({operands}) }}",
        opset=24,
        slope=random(3),
    )
    (answer,) = ReferenceEvaluator(model).run(None, {"x": np.zeros((1, 3), np.float32)})
    assert np.isfinite(answer).all()
    assert (op in _ZERO_TO_ZERO) == (not answer.any())
