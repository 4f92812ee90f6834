"""Weights wherever they are kept and whatever they pass through: read right, and traced back."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from text_models import build, random

from onnx_relief.graph.document import Document, load
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import understand


def view_of(model, name="y"):
    """Return the constants of a model, and the view of `name`, which has to be one."""
    document = load(model)
    constants = Constants(document)
    view = constants.resolve(understand(document.proto).scopes[0], name)
    assert not isinstance(view, str), view
    return constants, view


def seen(nodes, *, opset=21, **stored):
    """Return a model whose output is a constant behind `nodes`; `w` or `q` is the stored one."""
    return build(f"(float x) => (float y) {{ {nodes} }}", opset=opset, **stored)


def check(model):
    """Check values against ONNX's reference, also in another process, and places against values."""
    constants, view = view_of(model)
    expected = ReferenceEvaluator(model).run(None, {"x": np.float32(0)})[0]
    values = constants.values(view)
    assert (view.shape, view.dtype) == (values.shape, values.dtype)
    assert view.dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(constants.values(pickle.loads(pickle.dumps(view))), values)
    places = view.places()
    assert places.shape == view.shape
    assert sorted(places.reshape(-1)) == list(range(view.size))
    return constants, view, places


MOVES = {
    "Identity(w)": None,
    "Transpose(w)": None,
    "Transpose <perm = [2, 0, 1]> (w)": None,
    "Reshape(w, to)": [4, -1],
    "Reshape <allowzero = 1> (w, to)": [4, 6],
    "Squeeze(w, to)": [1],
    "Squeeze(w)": None,
    "Unsqueeze(w, to)": [0, -1],
}


@pytest.mark.parametrize("move", MOVES)
def test_operators_that_move_elements(move):
    shape = (2, 1, 12) if "Squeeze" in move else (2, 3, 4)
    w = np.arange(24, dtype=np.float32).reshape(shape)
    constants, view, places = check(seen(f"y = {move}", w=w, to=np.array(MOVES[move] or [0])))
    np.testing.assert_array_equal(constants.stored(view.home).reshape(-1)[places], w.flat[places])
    np.testing.assert_array_equal(constants.values(view), w.reshape(-1)[places])


def test_reshape_keeps_sizes_that_are_zero():
    w = random(2, 3, 4)
    check(seen("y = Reshape(w, to)", w=w, to=np.array([0, 12])))


def test_reshape_takes_zero_for_zero_where_that_is_allowed():
    node = "Reshape <allowzero = 1> (w, to)"
    _, view = view_of(seen(f"y = {node}", w=random(0, 3), to=np.array([3, 0])))
    assert view.shape == (3, 0)


@pytest.mark.parametrize("opset", [11, 13])
def test_axes_are_an_attribute_in_old_models(opset):
    node = "Squeeze <axes = [0]> (w)" if opset == 11 else "Squeeze(w, axes)"
    constants, view = view_of(seen(f"y = {node}", opset=opset, w=random(1, 3), axes=np.array([0])))
    assert constants.values(view).shape == view.shape == (3,)


def test_cast_changes_the_type_and_no_place():
    w = random(2, 3).astype(np.float16)
    constants, view, _ = check(seen("y = Cast <to = 1> (w)", w=w))
    assert (constants.stored(view.home).dtype, view.dtype) == (np.float16, np.float32)


QUANTIZED = [
    ("per tensor", np.float32(0.5), 3, ""),
    ("one number in a list", np.array([0.5], np.float32), [3], ""),
    ("per row", np.array([0.5, 2], np.float32), [1, -2], "<axis = 0>"),
    ("per column", random(4) + 3, [1, -2, 0, 7], ""),
    ("negative axis", random(4) + 3, [1, -2, 0, 7], "<axis = -1>"),
    ("blocks", random(2, 2) + 3, [[1, -2], [0, 7]], "<axis = 1, block_size = 2>"),
    ("half blocks", random(2, 2) + 3, [[1, -2], [0, 7]], "<axis = 1, block_size = 3>"),
]


@pytest.mark.parametrize(("scale", "point", "settings"), [q[1:] for q in QUANTIZED])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_dequantize_linear_reads_as_zero_at_its_zero_point(scale, point, settings, dtype):
    q = np.arange(8).reshape(2, 4).astype(dtype)
    point = np.abs(np.asarray(point)).astype(dtype)
    nodes = f"y = DequantizeLinear {settings} (q, scale, point)"
    model = seen(nodes, q=q, scale=scale, point=point)
    constants, view = view_of(model)
    if "block_size = 3" not in settings:  # the reference wants whole blocks
        check(model)
    spread = np.broadcast_to(view.zero, view.shape)
    as_zero = seen(nodes, q=spread.astype(dtype), scale=scale, point=point)
    again, zeros = view_of(as_zero)
    assert constants.values(view).any()
    assert not again.values(zeros).any()


def test_dequantize_linear_without_zero_point_has_zero_at_zero():
    q = np.arange(-4, 4, dtype=np.int8).reshape(2, 4)
    _, view, _ = check(seen("y = DequantizeLinear(q, s)", q=q, s=np.float32(0.5)))
    assert view.zero == 0


def test_dequantize_linear_to_another_type():
    q = np.arange(8, dtype=np.uint8)
    nodes = "y = DequantizeLinear <output_dtype = 10> (q, s, z)"
    constants, view = view_of(
        seen(nodes, opset=23, q=q, s=np.float32(0.5), z=np.array(2, np.uint8))
    )
    assert view.dtype == np.float16
    np.testing.assert_array_equal(constants.values(view), (np.arange(8) - 2) * 0.5)


def test_chain_of_many_steps():
    q = random(3, 8, seed=2) * 20
    nodes = (
        "a = Identity(q) b = Unsqueeze(a, zero) c = Transpose <perm = [2, 0, 1]> (b) "
        "d = DequantizeLinear <axis = 2> (c, scale, point) e = Cast <to = 11> (d) "
        "f = Reshape(e, shape) g = Squeeze(f, zero) h = Transpose(g) y = Cast <to = 1> (h)"
    )
    model = seen(
        nodes,
        q=q.astype(np.int8),
        zero=np.array([0]),
        scale=np.array([0.5, 1, 2], np.float32),
        point=np.array([1, 2, -3], np.int8),
        shape=np.array([1, 4, 6]),
    )
    _, view, places = check(model)
    assert [name for _, name in view.passing] == [*"qabcdefghy"]
    # The zero point of a stored element is that of its row, whatever was moved later.
    np.testing.assert_array_equal(view.zero, np.array([1, 2, -3])[places // 8])


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    moves=st.lists(st.sampled_from(["Transpose", "Reshape", "Identity", "Cast"]), max_size=5),
    seed=st.integers(0, 1000),
)
def test_any_chain_moves_places_as_it_moves_values(shape, moves, seed):
    rng = np.random.default_rng(seed)
    w = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    nodes, constants, rank = [], {}, len(shape)
    for i, move in enumerate(moves):
        inputs, settings = [f"t{i}"], {}
        if move == "Transpose":
            settings["perm"] = rng.permutation(rank).tolist()
        elif move == "Cast":
            settings["to"] = onnx.TensorProto.DOUBLE
        elif move == "Reshape":
            constants[f"s{i}"] = np.array([rng.choice([1, w.shape[0], w.size]), -1])
            if w.size % constants[f"s{i}"][0]:
                constants[f"s{i}"][0] = 1
            inputs.append(f"s{i}")
            rank = 2
        nodes.append(helper.make_node(move, inputs, [f"t{i + 1}"], **settings))
    model = seen("y = Identity(x)", t0=w, **constants)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, helper.make_node("Identity", [f"t{len(moves)}"], ["y"])])
    constants, view = view_of(model)
    np.testing.assert_array_equal(constants.values(view), w.reshape(-1)[view.places()])


def constant(**attribute):
    (name, value), *_ = attribute.items()
    node = helper.make_node("Constant", [], ["y"], **{name: value})
    model = seen("y = Identity(x)")
    model.graph.node[0].CopyFrom(node)
    return model


def sparse(dense, linear, name="y"):
    """Return a dense array as a sparse tensor, with linear indices or coordinates."""
    where = np.flatnonzero(dense) if linear else np.argwhere(dense)
    values = numpy_helper.from_array(dense[dense != 0], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(where), dense.shape)


DENSE = np.array([[0, 1, 0], [2, 0, 3]], np.float32)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (constant(value=numpy_helper.from_array(DENSE)), DENSE),
        (constant(value_floats=[1.0, 2.0]), [1, 2]),
        (constant(value_float=3.0), 3),
        (constant(sparse_value=sparse(DENSE, linear=True)), DENSE),
        (constant(sparse_value=sparse(DENSE, linear=False)), DENSE),
    ],
)
def test_constant_nodes(model, expected):
    constants, view = view_of(model)
    assert view.dtype == np.float32
    np.testing.assert_array_equal(constants.values(view), np.float32(expected))


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_initializers(linear):
    model = seen("y = Transpose(w)")
    model.graph.sparse_initializer.append(sparse(DENSE, linear, "w"))
    constants, view = view_of(model)
    np.testing.assert_array_equal(constants.values(view), DENSE.T)


@pytest.mark.parametrize("fill", [None, 0.5])
def test_constant_of_shape(fill):
    settings = "" if fill is None else f"<value = float[1] {{{fill}}}>"
    constants, view, _ = check(seen(f"y = ConstantOfShape {settings} (s)", s=np.array([2, 3])))
    np.testing.assert_array_equal(constants.values(view), np.full((2, 3), fill or 0))


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16, np.float64, np.int32])
def test_every_storage_field_reads_alike(kind):
    w = np.array([0, 1, -2, 0.5]).astype(kind)
    raw = numpy_helper.from_array(w, "w")
    typed = helper.make_tensor("w", raw.data_type, w.shape, w)
    assert raw.HasField("raw_data")
    assert not typed.HasField("raw_data")
    for stored in (raw, typed):
        constants, view = view_of(seen("y = Identity(w)", w=stored))
        np.testing.assert_array_equal(constants.values(view), w)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("y = Mul(w, w)", "'y' is computed at run time by Mul 'y'"),
        ("[n] y = my.Identity(w)", "computed at run time by Identity 'n'"),
        ("y = Identity(x)", "'x' is an input of the model"),
        ("y = Reshape(w, x)", "'x', which Reshape 'y' needs, is not constant"),
        ("y = Reshape(w, w)", "'y' cannot be computed"),
        ("y = Transpose <perm = [0, 0]> (w)", "'y' cannot be computed"),
        ('y = Constant <value_string = "text"> ()', "does not hold numbers"),
        ("y = Identity()", "cannot be computed"),
        ("y = ConstantOfShape(x)", "computed at run time by ConstantOfShape"),
        ("s = Constant <value_ints = [2, -4]> () y = ConstantOfShape(s)", "it has shape [2, -4]"),
    ],
)
def test_what_is_no_constant_has_a_reason(nodes, reason):
    model = seen(nodes, w=random(2, 3))
    document = Document(proto=model, folder=None, name="model")  # some the checker would refuse
    found = Constants(document).resolve(understand(model).scopes[0], "y")
    assert isinstance(found, str)
    assert reason in found


def test_long_chain_is_no_crash():
    chain = " ".join(f"t{i + 1} = Identity(t{i})" for i in range(2000))
    model = seen(f"{chain} y = Identity(t2000)", t0=random(2))
    scope = understand(model).scopes[0]
    found = Constants(load(model)).resolve(scope, "y")
    assert isinstance(found, str)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (
            helper.make_tensor("w", onnx.TensorProto.INT4, [2], [1, 2]),
            "its int4 values share bytes",
        ),
        (numpy_helper.from_array(np.ones(2, np.int8), "w"), None),
    ],
)
def test_what_cannot_be_changed_is_known_beforehand(stored, reason):
    model = seen("y = DequantizeLinear(w, s)", w=stored, s=np.float32(1))
    constants, view = view_of(model)
    assert constants.why_not_writable(view) == reason


def test_sparse_tensor_with_a_zero_point_cannot_be_changed():
    model = seen("y = DequantizeLinear(w, s, z)", s=np.float32(1), z=np.array(1, np.int8))
    model.graph.sparse_initializer.append(sparse(DENSE.astype(np.int8), linear=True, name="w"))
    constants, view = view_of(model)
    assert constants.why_not_writable(view) == "it is sparse and has a zero point"


def test_body_sees_its_own_constants_and_those_outside():
    body = "g () => (float[2] {0}) <float[2] {1} = {{{2}}}> {{ {0} = Add(w, {1}) }}"
    branches = [body.format("p", "v", "1, 2"), body.format("q", "u", "3, 4")]
    model = build(
        "(bool c, float[2] x) => (float[2] y) "
        f"{{ y = If (c) <then_branch = {branches[0]}, else_branch = {branches[1]}> }}",
        w=random(2),
    )
    _, inside, other = understand(model).scopes
    constants = Constants(load(model))
    assert str(constants.resolve(inside, "w").home) == "w"
    assert str(constants.resolve(inside, "v").home) == "y.then_branch/v"
    assert constants.resolve(other, "v") == "'v' is not defined in the graph"
    np.testing.assert_array_equal(constants.array(other, "u"), [3, 4])
