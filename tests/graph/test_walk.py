"""Every graph of a model is seen: bodies, local functions, and who reads what in them."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser
from text_models import build, function, random, run, survey

from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.nodes import attributes, node_key, subgraphs
from onnx_relief.graph.walk import TensorHome, constants_by_home, home_of, understand


def branch(output, nodes, weights=""):
    return f"g () => (float[N,2] {output}) {weights} {{ {nodes} }}"


IF = (
    "(bool c, float[N,2] x) => (float[N,2] y) {{ "
    "h = MatMul(x, w) y = If (c) <then_branch = {0}, else_branch = {1}> }}"
)
BRANCHES = (
    branch("p", "p = MatMul(h, v)", "<float[2,2] v = {1,2,3,4}>"),
    branch("q", "k = Constant <value = float[2,2] {1,2,3,4}> () q = MatMul(h, k)"),
)
LOOP = (
    "(float[N,2] x) => (float[N,2] y) { n = Constant <value = int64 {3}> () "
    "t = Constant <value = bool {1}> () y = Loop (n, t, x) <body = g "
    "(int64 i, bool go, float[N,2] s) => (bool on, float[N,2] r) "
    "{ on = Identity(go) h = MatMul(s, w) r = MatMul(h, w) }> }"
)
SCAN = (
    "(float[T,N,2] x) => (float[T,N,2] y) { y = Scan <num_scan_inputs = 1, body = g "
    "(float[N,2] a) => (float[N,2] b) { [inner] b = MatMul(a, w) }> (x) }"
)
FUNCTION = function(
    "twice", "(x) => (y)", "w = Constant <value = float[2,2] {1,2,3,4}> () y = MatMul(x, w)"
)


def names(found):
    return {site.layer.name: site.layer.weights[0].name for site in found.sites}


def test_layers_in_both_branches_of_an_if():
    found = survey(IF.format(*BRANCHES), w=random(2, 2))
    assert names(found) == {
        "h": "w",
        "y.then_branch/p": "y.then_branch/v",
        "y.else_branch/q": "y.else_branch/k",
    }


def test_layers_in_loop_and_scan_with_weights_outside():
    assert names(survey(LOOP, w=random(2, 2))) == {"y.body/h": "w", "y.body/r": "w"}
    assert names(survey(SCAN, w=random(2, 2))) == {"y.body/inner": "w"}


def test_bodies_inside_bodies_have_longer_paths():
    inner = f"q = If (c) <then_branch = {BRANCHES[0]}, else_branch = {branch('r', 'r = Relu(h)')}>"
    text = IF.format(branch("z", "z = Relu(h)"), branch("q", inner))
    assert "y.else_branch/q.then_branch/p" in names(survey(text, w=random(2, 2)))


def test_state_of_a_loop_is_no_constant():
    text = LOOP.replace("(n, t, x)", "(n, t, w)").replace("MatMul(s, w)", "MatMul(x, s)")
    found = survey(text, w=random(2, 2))
    assert names(found) == {}
    assert "graph" in found.refusals[0].reason or "Loop" in found.refusals[0].reason


def test_uses_are_noted_where_the_tensor_is_defined():
    model = understand(build(IF.format(*BRANCHES), w=random(2, 2)))
    main = model.scopes[0]
    assert [(use.scope.path, use.index) for use in main.uses["h"]] == [
        ("y.then_branch", 0),
        ("y.else_branch", 0),
    ]
    (output,) = main.uses["y"]
    assert (output.node, output.scope) == (None, main)


def test_a_model_that_was_looked_at_goes_with_its_last_reader():
    weights = {"w": random(2, 2), "v": random(2, 2)}
    document = load(build(IF.format(*BRANCHES), **weights))
    gc.disable()
    try:
        found = find_layers(document)
        gone = [weakref.ref(one) for one in (found, found.model, *found.model.scopes)]
        del found
        assert [one() for one in gone] == [None] * 5
    finally:
        gc.enable()


def test_uses_travel_to_other_processes_with_their_model():
    model = pickle.loads(pickle.dumps(survey(IF.format(*BRANCHES), w=random(2, 2)).model))
    (use,) = model.scopes[0].uses["w"]
    assert use.scope is model.scopes[0]
    assert [use.scope for use in model.scopes[0].uses["h"]] == list(model.scopes[1:])


def test_names_are_looked_up_from_the_inside_outwards():
    main, then, other = understand(build(IF.format(*BRANCHES), w=random(2, 2))).scopes
    assert [then.definer(name) for name in ("v", "w", "c", "k")] == [then, main, main, None]
    assert (other.definer("k"), main.definer("p")) == (other, None)


def test_constants_of_a_function_called_twice_have_one_home():
    model = build(
        "(float[N,2] x) => (float[N,2] y) { a = my.twice(x) y = my.twice(a) }", functions=FUNCTION
    )
    understood = understand(model)
    (scope,) = understood.scopes
    held = [node.output[0] for node in scope.graph.node if node.op_type == "Constant"]
    assert len(held) == 2
    assert {home_of(scope, name) for name in held} == {TensorHome("my::twice", "w")}
    assert understood.places[TensorHome("my::twice", "w")] == tuple(("", name) for name in held)


def test_layers_of_functions_are_found_once_per_call():
    found = survey(
        "(float[N,2] x) => (float[N,2] y) { a = my.twice(x) y = my.twice(a) }", functions=FUNCTION
    )
    assert list(names(found).values()) == ["my::twice/w", "my::twice/w"]
    assert len(names(found)) == 2


def test_weight_may_be_an_argument_of_a_function():
    call = function("dense", "(x, w) => (y)", "y = MatMul(x, w)")
    text = "(float[N,2] x) => (float[N,2] y) { y = my.dense(x, w) }"
    assert list(names(survey(text, functions=call, w=random(2, 2))).values()) == ["w"]


def test_functions_in_functions_and_bodies_in_functions():
    body = branch("p", "k = Constant <value = float[2,2] {1,2,3,4}> () p = MatMul(x, k)")
    kept = branch("q", "q = MatMul(x, v)", "<float[2,2] v = {1,2,3,4}>")
    nodes = f"h = my.twice(x) y = If (c) <then_branch = {body}, else_branch = {kept}>"
    outer = function("outer", "(c, x) => (y)", nodes)
    text = "(bool c, float[N,2] x) => (float[N,2] y) { y = my.outer(c, x) }"
    found = survey(text, functions=FUNCTION + outer)
    assert set(names(found).values()) == {
        "my::twice/w",
        "my::outer/y.then_branch/k",
        "my::outer/y.else_branch/v",
    }


def test_function_called_inside_a_body():
    text = IF.format(branch("p", "p = my.twice(h)"), branch("q", "q = Relu(h)"))
    found = survey(text, functions=FUNCTION, w=random(2, 2))
    assert "my::twice/w" in names(found).values()
    assert [site.scope.path for site in found.sites] == ["", "y.then_branch"]


def test_sparse_constants_in_the_body_of_a_function():
    kept = branch("p", "p = MatMul(x, v)", "<float[2,2] v = {1,2,3,4}>")
    nodes = f"y = If (c) <then_branch = {kept}, else_branch = {branch('q', 'q = Relu(x)')}>"
    model = build(
        "(bool c, float[N,2] x) => (float[N,2] y) { a = my.f(c, x) y = my.f(c, a) }",
        functions=function("f", "(c, x) => (y)", nodes),
    )
    body = model.functions[0].node[0].attribute[0].g
    del body.initializer[:]
    values = numpy_helper.from_array(np.float32([1, 2]), "v")
    where = numpy_helper.from_array(np.array([0, 3]))
    body.sparse_initializer.append(helper.make_sparse_tensor(values, where, [2, 2]))
    assert set(understand(model).places) == {TensorHome("my::f/y.then_branch", "v")}


def test_attributes_of_a_function_reach_its_nodes():
    scaled = function("scaled", "<a> (x, w) => (y)", "y = Gemm <alpha: float = @a> (x, w)")
    text = "(float[N,2] x) => (float y) { y = my.scaled <a = 0.25> (x, w) }"
    (site,) = survey(text, functions=scaled, w=random(2, 2)).sites
    assert site.layer.weights[0].scale == 0.25
    assert attributes(build(text, functions=scaled).functions[0].node[0]) == {}


def test_overloads_of_a_function_are_told_apart():
    model = build(
        "(float[N,2] x) => (float[N,2] y) { a = my.twice(x) y = my.twice(a) }",
        functions=FUNCTION + FUNCTION,
    )
    model.functions[1].overload = model.graph.node[1].overload = "other"
    assert set(understand(model).places) == {
        TensorHome("my::twice", "w"),
        TensorHome("my::twice:other", "w"),
    }


def test_lists_of_bodies_are_walked_too():
    body = parser.parse_graph("g () => (float p) { p = Constant <value = float {1}> () }")
    node = helper.make_node("Choose", ["x"], ["y"], domain="my", bodies=[body, body])
    assert [name for name, _ in subgraphs(node)] == ["bodies0", "bodies1"]


def test_every_home_is_found_in_the_file_of_the_user():
    outer = function("outer", "(x) => (y)", "h = my.twice(x) y = my.twice(h)")
    model = build(
        IF.format(branch("p", "p = my.outer(h)"), BRANCHES[1]),
        functions=FUNCTION + outer,
        w=random(2, 2),
    )
    document = load(model)
    homes = constants_by_home(document.proto)
    assert set(understand(document.proto).places) == set(homes)
    assert homes[TensorHome("", "w")] is not None
    assert homes[TensorHome("my::twice", "w")].op_type == "Constant"


def test_homes_are_parts_of_the_model_not_copies():
    model = build("(float[N,2] x) => (float[N,2] y) { y = MatMul(x, w) }", w=random(2, 2))
    constants_by_home(model)[TensorHome("", "w")].doc_string = "changed"
    assert model.graph.initializer[0].doc_string == "changed"


def test_expanding_functions_changes_nothing_in_the_file_and_nothing_in_the_answers():
    model = build(
        "(float[N,2] x) => (float[N,2] y) { a = my.twice(x) y = my.twice(a) }", functions=FUNCTION
    )
    before = model.SerializeToString()
    expanded = understand(model).proto
    assert model.SerializeToString() == before
    x = random(3, 2)
    assert (run(model, {"x": x})[0] == run(expanded, {"x": x})[0]).all()


def test_opset_is_that_of_the_default_domain():
    assert understand(build("(float x) => (float y) { y = Relu(x) }", opset=17)).opset == 17


@pytest.mark.parametrize(
    ("name", "outputs", "key"),
    [("n", ["y"], "n"), ("", ["", "h"], "h"), ("", [], "Relu")],
)
def test_nodes_are_called_by_name_output_or_operator(name, outputs, key):
    assert node_key(onnx.NodeProto(name=name, op_type="Relu", output=outputs)) == key


def test_places_read_outside_in():
    assert str(TensorHome("", "w")) == "w"
    assert str(TensorHome("y.body", "w")) == "y.body/w"
