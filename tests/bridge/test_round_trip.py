"""ONNX -> torch -> ONNX: the same outputs, the same file, and the zeros stay zero."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from homes import KINDS, W1, feed_for, initializers, outside
from onnx import numpy_helper
from text_models import build, differences, random

import onnx_relief as relief
from onnx_relief.bridge.back import write_back
from onnx_relief.bridge.check import check, gap, tensors
from onnx_relief.bridge.convert import convert, masks_for
from onnx_relief.errors import SettingsError, UnsupportedError
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import nonzero_elements
from onnx_relief.graph.save import save
from onnx_relief.graph.storage import read


def trained(module, feed, steps=3, optimizer=torch.optim.Adam, **options):
    """Move all weights by some steps of training towards zero outputs."""
    chosen = optimizer(module.parameters(), lr=0.05, **options)
    module.train()
    for _ in range(steps):
        chosen.zero_grad()
        sum((output**2).mean() for output in module.run(tensors(feed)).values()).backward()
        chosen.step()
    return module.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_module_agrees_with_onnx_runtime_and_goes_back_to_the_same_file(kind):
    document = load(kind())
    module = convert(document)
    assert set(check(module, document, feed_for(document.proto))) == set(module.outputs)
    assert differences(document.proto, write_back(module, document).proto) == []


@pytest.mark.parametrize("kind", KINDS)
def test_trained_weights_go_back_and_nothing_else_changes(kind):
    document = load(kind())
    feed = feed_for(document.proto)
    module = convert(document)
    module.hold(masks_for(module, nonzero_elements(find_layers(document))))
    back = write_back(trained(module, feed), document)
    assert differences(document.proto, back.proto)
    check(module, back, feed)
    assert _without_values(back.proto) == _without_values(document.proto)


def _without_values(proto):
    """Return a model's fields but for the values of float constants."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for function_or_graph in (bare.graph, *bare.functions):
        for node in list(function_or_graph.node):
            if node.op_type in ("Constant", "ConstantOfShape"):
                node.ClearField("attribute")
                node.op_type, node.input[:] = "Constant", []
            for attribute in node.attribute:
                for inner in attribute.g.node:
                    if inner.op_type == "Constant":
                        inner.ClearField("attribute")
    for tensor in (*bare.graph.initializer, *(s.values for s in bare.graph.sparse_initializer)):
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
    return bare.SerializeToString(deterministic=True)


def test_external_data_goes_back_into_a_copy(tmp_path):
    document = load(outside(tmp_path))
    module = trained(convert(document), feed_for(document.proto))
    before = (tmp_path / "w.bin").read_bytes()
    back = write_back(module, document)
    save(back, tmp_path / "new.onnx")
    found = load(tmp_path / "new.onnx")
    stored = {t.name: read(found, t) for t in found.proto.graph.initializer}
    for name, home in module.homes.items():
        np.testing.assert_array_equal(
            stored[home.name], dict(module.named_parameters())[name].detach()
        )
    assert (tmp_path / "w.bin").read_bytes() == before


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.Adam, {"weight_decay": 0.1}),
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (torch.optim.RMSprop, {"momentum": 0.5}),
    ],
)
def test_zeros_stay_exactly_zero_in_any_training_loop(optimizer, options):
    weights = np.where(np.arange(30).reshape(6, 5) % 3 == 0, 0, W1)
    model = build("(float[N,6] x) => (float[N,5] y) { y = MatMul (x, w) }", w=weights)
    module = trained(relief.to_torch(model), feed_for(model), 5, optimizer, **options)
    back = numpy_helper.to_array(relief.from_torch(module, model).graph.initializer[0])
    np.testing.assert_array_equal(back == 0, weights == 0)
    assert not np.any(back[weights != 0] == weights[weights != 0])


def test_what_a_plan_dropped_is_held_though_the_file_is_dense():
    model = initializers()
    arrays = {"x": random(20, 6)}
    plan = relief.prune(model, arrays, alpha=0.6).plan
    module = trained(relief.to_torch(model, plan=plan), feed_for(model))
    back = relief.from_torch(module, model)
    assert relief.prune(back, plan=plan).model.SerializeToString() == back.SerializeToString()


def test_a_fresh_bias_of_zeros_may_grow_except_at_dead_units():
    weights = W1.copy()
    weights[:, 2] = 0
    model = build(
        "(float[N,6] x) => (float[N,5] y) { y = Gemm (x, w, b) }", w=weights, b=np.zeros(5, "f")
    )
    module = trained(relief.to_torch(model), feed_for(model))
    bias = numpy_helper.to_array(relief.from_torch(module, model).graph.initializer[1])
    np.testing.assert_array_equal(bias == 0, np.arange(5) == 2)


def test_frozen_weights_stay():
    model = initializers()
    module = relief.to_torch(model, freeze=["fc_w2"])
    assert {str(module.homes[name]) for name, _ in module.named_parameters()} == {"fc_w1", "fc_b1"}
    with pytest.raises(SettingsError, match="--freeze 'nothing' matches no weight"):
        relief.to_torch(model, freeze=["nothing"])


def test_a_module_of_another_model_does_not_go_back():
    module = relief.to_torch(initializers())
    with pytest.raises(SettingsError, match="give the model that the module was made of"):
        relief.from_torch(
            module, build("(float[N,6] x) => (float[N,5] y) { y = MatMul (x, w) }", w=W1)
        )
    with pytest.raises(SettingsError, match="not a Linear"):
        relief.from_torch(torch.nn.Linear(2, 2), initializers())


def test_constants_that_are_no_weights_are_not_trained():
    module = convert(
        load(
            build(
                """(float[N,6] x) => (float[N,5] y) {
                    n = Sub (x, mean)  h = MatMul (n, w)  b = Add (h, bias)
                    half = Constant <value = float {0.5}> ()  s = Mul (b, half)
                    y = Clip (s, low, high)
                }""",
                mean=random(4, 6)[0],
                w=W1,
                bias=random(5),
                low=np.float32(-9),
                high=np.float32(9),
            )
        )
    )
    names = {str(module.homes[name]) for name, _ in module.named_parameters()}
    assert names == {"w", "bias"}


def test_biases_of_units_along_several_axes_are_trained():
    graph = """(float[N,7,6] x) => (float[N,7,2,3] y) {
        h = Einsum <equation = "nld,hkd->nlhk"> (x, w)  b = Add (h, bias)  y = Add (b, grid)
    }"""
    constants = {"w": random(2, 3, 6), "bias": random(2, 3), "grid": random(7, 2, 3)}
    module = convert(load(build(graph, **constants)))
    names = {str(module.homes[name]) for name, _ in module.named_parameters()}
    assert names == {"w", "bias"}


def test_outputs_that_teach_nothing_are_left_out():
    model = build(
        """(float[N,6] x) => (int64[N,1] label, float[N,5] p) {
            p = MatMul (x, w)  label = ArgMax <axis = 1> (p)
        }""",
        w=W1,
    )
    assert relief.to_torch(model).outputs == ("p",)


def test_an_operator_without_converter_is_named():
    model = build("(float[N,6] x) => (float[N,5] y) { h = my.Odd (x)  y = MatMul (h, w) }", w=W1)
    with pytest.raises(UnsupportedError, match=r"no converter to torch for my::Odd \(opset 1\)"):
        convert(load(model))


def test_a_model_without_weights_cannot_be_trained():
    with pytest.raises(UnsupportedError, match="no weights"):
        convert(load(build("(float[N,6] x) => (float[N,6] y) { y = Relu (x) }")))


def test_the_first_node_that_differs_is_named(monkeypatch):
    document = load(initializers())
    monkeypatch.setattr(torch, "relu", lambda value: value)
    with pytest.raises(UnsupportedError, match=r"first node that differs is Relu 'a'"):
        check(convert(document), document, feed_for(document.proto))


BROKEN = {
    "top": "y = MatMul (x, w)",
    "body": """n = Constant <value_int = 2> ()
        s, y = Loop <body = b (int64 i, bool c, float[N,6] x)
            => (bool d, float[N,6] t, float[N,5] z) {
            d = Identity (c)  t = Identity (x)  z = MatMul (x, w)
        }> (n, , x)""",
}


@pytest.mark.parametrize("place", BROKEN)
def test_a_module_that_cannot_run_says_so_and_prints_nothing(place, monkeypatch, capfd):
    document = load(build(f"(float[N,6] x) => (float y) {{ {BROKEN[place]} }}", w=W1))
    monkeypatch.setattr(torch, "matmul", torch.dot)  # which takes vectors alone
    with pytest.raises(UnsupportedError, match="the torch module cannot run"):
        check(convert(document), document, {"x": random(2, 6)})
    assert capfd.readouterr().err == ""


def test_the_comparison_can_fail():
    array = np.array([1.0, -2.0], "f")
    assert gap(array, array) == 0
    assert gap(array, array * 1.01) == pytest.approx(0.01)
    assert gap(array, array[:1]) == float("inf")
    assert gap(array, np.array([1.0, np.nan], "f")) == float("inf")
    assert gap(np.array([1, 2]), np.array([1, 3])) == 0.5


def test_inputs_come_in_order_by_name_or_in_a_mapping():
    module = relief.to_torch(initializers())
    x = torch.ones(2, 6)
    first = module(x)["y"]
    assert torch.equal(first, module(x=x)["y"])
    assert torch.equal(first, module({"x": x})["y"])
    with pytest.raises(relief.DataError, match="takes 'x'"):
        module(z=x)


def test_a_model_that_draws_random_numbers_is_refused_with_the_reason():
    document = load(
        build(
            """(float[N,6] x) => (float[N,4] y) {
                h = MatMul (x, w)  z = RandomNormalLike (h)  y = Add (h, z) }""",
            w=random(6, 4),
        )
    )
    with pytest.raises(UnsupportedError, match="draws random numbers \\(RandomNormalLike\\)"):
        check(convert(document), document, {"x": random(8, 6, seed=1)})
