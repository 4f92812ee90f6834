"""Every kind of layer is found, and its rows are what NumPy says they are."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from text_models import build, only_layer, random, survey

from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.plan import LayerKind


def rows_of(graph, **constants):
    """Return the only layer of a graph, its rows (one array per weight) and its bias rows."""
    found, site = only_layer(graph, **constants)
    rows = [found.rows(part) for part in site.parts]
    layer = site.layer
    shapes = [(layer.units, weight.inputs, layer.taps) for weight in layer.weights]
    assert [array.shape for array in rows] == shapes
    return layer, rows, None if site.bias is None else found.rows(site.bias)


@pytest.mark.parametrize("kernel", [(3,), (3, 2), (1, 3, 2), (1, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_of_any_rank(kernel, groups):
    w = random(6, 4, *kernel)
    text = f"(float x) => (float y) {{ [layer] y = Conv <group = {groups}> (x, w) }}"
    layer, rows, bias = rows_of(text, w=w)
    assert (layer.kind, layer.units, layer.taps) == (LayerKind.CONVOLUTION, 6, np.prod(kernel))
    assert (layer.weights[0].groups, layer.geometry.kernel, bias) == (groups, kernel, None)
    np.testing.assert_array_equal(rows[0], w.reshape(6, 4, -1))


def test_depthwise_convolution_with_two_units_per_channel():
    w = random(6, 1, 3, 3)
    text = "(float x) => (float y) { [layer] y = Conv <group = 3, strides = [2, 1]> (x, w) }"
    layer, rows, _ = rows_of(text, w=w)
    assert (layer.weights[0].groups, layer.weights[0].inputs) == (3, 1)
    assert layer.geometry.strides == (2, 1)
    np.testing.assert_array_equal(rows[0], w.reshape(6, 1, 9))


@pytest.mark.parametrize("kernel", [(3,), (3, 2), (1, 3, 2)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolution_stores_inputs_first(kernel, groups):
    w = random(4, 3, *kernel)
    text = f"(float x) => (float y) {{ [layer] y = ConvTranspose <group = {groups}> (x, w) }}"
    layer, rows, _ = rows_of(text, w=w)
    assert (layer.units, layer.weights[0].groups, layer.geometry.transposed) == (
        3 * groups,
        groups,
        True,
    )
    for unit in range(layer.units):
        group, j = divmod(unit, 3)
        of_group = w[group * 4 // groups : (group + 1) * 4 // groups, j]
        np.testing.assert_array_equal(rows[0][unit], of_group.reshape(4 // groups, -1))


@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_gemm_in_all_orientations(trans_a, trans_b, side):
    units_by_inputs = random(3, 4)
    if side == "right":
        w, operands = units_by_inputs if trans_b else units_by_inputs.T, "x, w, c"
        c = random(3, seed=1)
    else:
        w, operands = units_by_inputs.T if trans_a else units_by_inputs, "w, x, c"
        c = random(3, 1, seed=1)
    flags = f"transA = {trans_a}, transB = {trans_b}, alpha = 2.0, beta = -0.5"
    text = f"(float[N,M] x) => (float y) {{ [layer] y = Gemm <{flags}> ({operands}) }}"
    layer, rows, bias = rows_of(text, w=np.ascontiguousarray(w), c=c)
    assert (layer.kind, layer.weights[0].scale, layer.bias.scale) == (
        LayerKind.FULLY_CONNECTED,
        2.0,
        -0.5,
    )
    np.testing.assert_array_equal(rows[0], units_by_inputs[:, :, None])
    np.testing.assert_array_equal(bias, c.reshape(3, 1))


@pytest.mark.parametrize(("operands", "transpose"), [("x, w", True), ("w, x", False)])
def test_matmul_with_the_constant_on_either_side(operands, transpose):
    w = random(4, 3)
    layer, rows, _ = rows_of(f"(float x) => (float y) {{ [layer] y = MatMul({operands}) }}", w=w)
    expected = w.T if transpose else w
    assert layer.units == len(expected)
    np.testing.assert_array_equal(rows[0], expected[:, :, None])


@pytest.mark.parametrize("leading", [(2,), (2, 3), (1,), (1, 1)])
@pytest.mark.parametrize("operands", ["x, w", "w, x"])
def test_batched_matmul_has_one_group_per_matrix(leading, operands):
    w = random(*leading, 4, 5)
    layer, rows, _ = rows_of(f"(float x) => (float y) {{ [layer] y = MatMul({operands}) }}", w=w)
    matrices = w.reshape(-1, 4, 5)
    if operands == "x, w":
        matrices = matrices.transpose(0, 2, 1)
    assert layer.weights[0].groups == len(matrices)
    np.testing.assert_array_equal(rows[0][:, :, 0], np.concatenate(list(matrices)))


@pytest.mark.parametrize("operands", ["x, w", "w, x"])
def test_vector_is_a_layer_of_one_unit(operands):
    w = random(4)
    layer, rows, _ = rows_of(f"(float x) => (float y) {{ [layer] y = MatMul({operands}) }}", w=w)
    assert (layer.units, layer.weights[0].groups) == (1, 1)
    np.testing.assert_array_equal(rows[0].reshape(-1), w)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_have_two_weights_and_two_biases_per_unit(op, gates, directions):
    w, r = random(directions, gates * 5, 3), random(directions, gates * 5, 5, seed=1)
    b = random(directions, 2 * gates * 5, seed=2)
    direction = "bidirectional" if directions == 2 else "reverse"
    text = (
        "(float[T,N,3] x) => (float y) { [layer] y = "
        f'{op} <hidden_size = 5, direction = "{direction}"> (x, w, r, b) }}'
    )
    layer, rows, bias = rows_of(text, w=w, r=r, b=b)
    assert (layer.kind, layer.units) == (LayerKind.RECURRENT, directions * gates * 5)
    assert (layer.connections, layer.biases) == (w.size + r.size, b.size)
    assert [weight.groups for weight in layer.weights] == [1, directions]
    np.testing.assert_array_equal(rows[0][:, :, 0], w.reshape(-1, 3))
    np.testing.assert_array_equal(rows[1][:, :, 0], r.reshape(-1, 5))
    halves = b.reshape(directions, 2, gates * 5)
    np.testing.assert_array_equal(bias[:, 0], halves[:, 0].reshape(-1))
    np.testing.assert_array_equal(bias[:, 1], halves[:, 1].reshape(-1))


def test_recurrent_layer_without_its_first_output_is_found():
    text = "(float[T,N,3] x) => (float h) { [layer] , h = GRU <hidden_size = 2> (x, w, r) }"
    layer, _, bias = rows_of(text, w=random(1, 6, 3), r=random(1, 6, 2))
    assert (layer.op, layer.bias, bias) == ("GRU", None, None)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_all_float_types(dtype):
    w = random(4, 3, dtype=dtype)
    _, rows, _ = rows_of("(float[N,4] x) => (float y) { [layer] y = MatMul(x, w) }", w=w)
    assert rows[0].dtype == dtype
    np.testing.assert_array_equal(rows[0][:, :, 0], w.T)


CONV = "(float[N,2,H,W] x) => (float y) {{ {} }}"


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ("[layer] y = Conv(x, w, b)", (3,)),
        ("[layer] h = Conv(x, w) y = Add(h, b)", (3, 1, 1)),
        ("[layer] h = Conv(x, w) y = Add(b, h)", (1, 3, 1, 1)),
        ("[layer] h = Conv(x, w, b)  y = Add(h, other)", (3,)),
        ("c = Reshape(b, shape) [layer] h = Conv(x, w) y = Add(h, c)", (3,)),
        ("c = Identity(b) [layer] y = Conv(x, w, c)", (3,)),
        ("c = Unsqueeze(b, axes) [layer] h = Conv(x, w) y = Add(h, c)", (3,)),
    ],
)
def test_bias_of_a_convolution_in_the_node_or_in_the_following_add(nodes, shape):
    b = random(*shape, seed=1)
    more = {"shape": np.array([1, 3, 1, 1]), "axes": np.array([1, 2]), "other": random(3, 1, 1)}
    layer, _, bias = rows_of(CONV.format(nodes), w=random(3, 2, 3, 3), b=b, **more)
    assert layer.bias.name == "b"
    np.testing.assert_array_equal(bias.reshape(-1), b.reshape(-1))


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ("[layer] h = MatMul(x, w) y = Add(h, b)", (3,)),
        ("[layer] h = MatMul(x, w) y = Add(b, h)", (1, 3)),
        ("[layer] h = MatMul(x, w) y = Add(h, b)", (1, 1, 3)),
        ("[layer] h = Gemm(x, w) y = Add(h, b)", (3,)),
        ("[layer] y = Gemm(x, w, b)", (1, 3)),
    ],
)
def test_bias_of_a_fully_connected_layer(nodes, shape):
    b = random(*shape, seed=1)
    text = f"(float[N,4] x) => (float y) {{ {nodes} }}"
    layer, _, bias = rows_of(text, w=random(4, 3), b=b)
    assert layer.bias.scale == 1.0
    np.testing.assert_array_equal(bias, b.reshape(3, 1))


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ("[layer] h = Conv(x, w) y = Add(h, b)", (3,)),  # along the width
        ("[layer] h = Conv(x, w) y = Add(h, b)", (1, 1, 3, 1, 1)),  # adds an axis
        ("[layer] h = Conv(x, w) y = Add(h, b)", (1,)),  # the same for all units
        ("[layer] h = Conv(x, w) y = Add(h, b)", (3, 5, 5)),  # other for every place
        ("[layer] h = Conv(x, w) y = Sub(h, b)", (3, 1, 1)),
        ("[layer] h = Conv(x, w) y = Add(h, b) z = Relu(h)", (3, 1, 1)),  # h is read elsewhere
        ("[layer] h = Conv(x, w) y = Add(h, h)", (3, 1, 1)),
        ("c = Mul(b, b) [layer] y = Conv(x, w, c)", (3,)),
    ],
)
def test_what_is_added_is_no_bias_unless_it_is_one_value_per_unit(nodes, shape):
    layer, _, bias = rows_of(CONV.format(nodes), w=random(3, 2, 3, 3), b=random(*shape))
    assert (layer.bias, bias) == (None, None)


@pytest.mark.parametrize("shape", [(1,), (2, 3), (1, 1, 3)])
def test_matrix_or_number_as_c_of_gemm_is_no_bias_per_unit(shape):
    text = "(float[N,4] x) => (float y) { [layer] y = Gemm(x, w, c) }"
    layer, _, _ = rows_of(text, w=random(4, 3), c=random(*shape))
    assert layer.bias is None


@pytest.mark.parametrize("shape", [(2, 4, 3), (4,)])
def test_add_after_many_matrices_or_a_vector_is_no_bias(shape):
    text = "(float x) => (float y) { [layer] h = MatMul(x, w) y = Add(h, b) }"
    layer, _, _ = rows_of(text, w=random(*shape), b=random(shape[-1] if len(shape) > 1 else 1))
    assert layer.bias is None


def test_left_hand_weight_takes_a_bias_per_row():
    text = "(float[4,N] x) => (float y) { [layer] h = MatMul(w, x) y = Add(h, b) }"
    _, _, column = rows_of(text, w=random(3, 4), b=random(3, 1))
    layer, _, row = rows_of(text, w=random(3, 4), b=random(3))
    assert (column.shape, layer.bias, row) == ((3, 1), None, None)


@pytest.mark.parametrize("shape", [(4, 2), (5, 2, 3), (4,), (0, 2, 3)])
def test_weight_that_does_not_fit_its_node_is_refused_in_words(shape):
    text = "(float x) => (float y) { y = Conv <group = 2> (x, w) }"
    found = survey(text, w=np.ones(shape, np.float32))
    assert not found.sites
    assert "fit" in found.refusals[0].reason or "empty" in found.refusals[0].reason


@pytest.mark.parametrize(
    "node",
    [
        "y = Conv <group = 0> (x, w)",
        "y = Gemm(x, w)",
        "y = LSTM(x, w, w)",
        "y = GRU(x, r, w)",
        "y = GRU(x, r, q)",
        "y = Conv(x, s)",
        "y = MatMul(x, s)",
    ],
)
def test_nonsense_is_refused_and_never_a_crash(node):
    constants = {"w": random(1, 2, 3, 3), "r": random(1, 3, 2), "s": np.float32(1)}
    constants["q"] = random(1, 6, 2)
    found = survey(f"(float x) => (float y) {{ {node} }}", **constants)
    assert not found.sites
    assert found.refusals[0].reason


def test_layers_have_names_of_their_own_where_names_repeat_or_are_missing():
    nodes = "b = MatMul(x, w) c = MatMul(b, v) d = MatMul(c, u) y = MatMul(d, t)"
    weights = {name: random(4, 4) for name in "wvut"}
    model = build(f"(float[N,4] x) => (float[N,4] y) {{ {nodes} }}", **weights)
    for node, name in zip(model.graph.node, ["a", "a", "a#2", ""], strict=True):
        node.name = name
    names = [layer.name for layer in find_layers(load(model)).layers]
    assert names == ["a", "a#3", "a#2", "y"]


def test_initializer_that_is_also_an_input_is_a_weight():
    text = "(float[N,4] x, float[4,3] w) => (float[N,3] y) { [layer] y = MatMul(x, w) }"
    _, rows, _ = rows_of(text, w=random(4, 3))
    assert rows[0].shape == (3, 4, 1)


def test_model_is_not_changed_by_looking_at_it():
    model = build("(float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", w=random(4, 3))
    before = model.SerializeToString()
    document = load(model)
    find_layers(document)
    assert model.SerializeToString() == document.proto.SerializeToString() == before
