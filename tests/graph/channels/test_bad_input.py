"""Models that compaction has to be careful with: each is refused by name, or comes out equal."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from classifier import mlp, written
from onnx import TensorProto, helper
from structures import chain, residual
from test_cut import Traced, feed_for
from text_models import assert_outputs_agree, build, function, random

from onnx_relief.cli import main
from onnx_relief.compaction.compact import compact
from onnx_relief.graph.channels.coupled import stays
from onnx_relief.graph.document import load

EVERY = slice(None)


def with_zeros(model, **units):
    """Write zeros where some entries of the last axis of weights are; EVERY for all."""
    for tensor in model.graph.initializer:
        if tensor.name in units:
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[..., units[tensor.name]] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model


def shapes(model):
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def compacted(model, feed=None):
    """Return what is left of a model, after checking that it gives the same."""
    feed = feed or feed_for(model)
    found = compact(load(model), feed, provider="cpu", round_to=1)
    assert_outputs_agree(model, found.document.proto, feed, rtol=1e-4, atol=1e-5)
    return found


def test_a_mask_that_cuts_the_output_off_is_refused_with_the_layer(tmp_path, capsys):
    model, out = written(tmp_path, with_zeros(mlp(), w1=EVERY)), tmp_path / "small.onnx"
    assert main(f"compact {model} -o {out}".split()) == 5
    assert "since layer 'first' has no weights left" in capsys.readouterr().err
    assert not out.exists()
    assert main(f"compact {model} -o {out} --json --force".split()) == 0
    assert json.loads(capsys.readouterr().out)["cut_off"] == {"y": "first"}
    assert main(f"compact {model} -o {out} --force".split()) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "output 'y' is the same whatever the input: layer 'first' has no weights left" in told
    assert_outputs_agree(onnx.load(model), onnx.load(out), feed_for(mlp()), rtol=0, atol=0)


def test_the_last_layer_keeps_its_width_without_weights():
    found = compacted(with_zeros(mlp(), w2=EVERY))
    assert shapes(found.document.proto) == {"w1": (6, 1), "w2": (1, 3)}
    assert dict(found.cut_off) == {"y": "second"}


def test_a_branch_without_weights_cuts_nothing_off():
    found = compacted(with_zeros(residual(), k1=EVERY))
    assert dict(found.cut_off) == {}
    assert shapes(found.document.proto)["k2"] == (6, 1, 3, 3)


def test_a_custom_operator_is_refused_by_name(tmp_path, capsys):
    model = build(
        """(float[N,6] x) => (float[N,3] y) { h = MatMul (x, w1) a = my.Twist (h)
        y = MatMul (a, w2) }""",
        w1=random(6, 5),
        w2=random(5, 3),
    )
    out = tmp_path / "small.onnx"
    assert main(f"compact {written(tmp_path, model)} -o {out}".split()) != 0
    assert "Twist" in capsys.readouterr().err
    assert not out.exists()


def test_around_an_operator_without_a_rule_channels_stay_with_the_reason():
    model = build(
        """(float[N,6] x) => (float[N,3] y) { h = MatMul (x, w1)  a = CumSum (h, last)
        b = MatMul (a, w2)  r = Relu (b)  y = MatMul (r, w3) }""",
        w1=random(6, 5),
        last=np.array(1),
        w2=random(5, 4),
        w3=random(4, 3),
    )
    traced = Traced(model)
    assert len(traced.roots) == 4
    assert stays(traced.groups) == {
        "they meet CumSum 'a', which is not followed": 5,
        "they reach the output 'y'": 3,
    }


def test_local_functions_are_written_out():
    twice = function("Twice", "(a) => (b)", "b = Add (a, a)")
    model = build(
        """(float[N,6] x) => (float[N,3] y) { h = MatMul (x, w1)  a = my.Twice (h)
        y = MatMul (a, w2) }""",
        functions=twice,
        w1=random(6, 5),
        w2=random(5, 3),
    )
    found = compacted(with_zeros(model, w1=[0, 3]))
    assert shapes(found.document.proto) == {"w1": (6, 3), "w2": (3, 3)}


def test_free_sizes_stay_free():
    """Batch, height and width are free, and one target copies them from the input."""
    model = build(
        """(float[N,C,H,W] x) => (float[A,B,D,E] y) {
            a = Conv (x, k0)  r = Relu (a)  shape = Shape (r)  flat = Reshape (r, three)
            back = Reshape (flat, shape)  y = Conv (back, k1)
        }""",
        k0=random(6, 3, 1, 1),
        three=np.array([0, 6, -1]),
        k1=random(2, 6, 1, 1, seed=1),
    )
    k0 = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    k0[[1, 4]] = 0
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(k0, "k0"))
    found = compacted(model, {"x": random(1, 3, 4, 5)}).document.proto
    assert found.graph.input == model.graph.input
    assert found.graph.output == model.graph.output
    assert shapes(found)["k1"] == (2, 4, 1, 1)
    assert_outputs_agree(model, found, {"x": random(3, 3, 7, 2)}, rtol=1e-5, atol=1e-5)


def test_a_compacted_model_stays_as_it_is(tmp_path, capsys):
    model = written(tmp_path, with_zeros(mlp(), w1=[1, 3]))
    once, twice = tmp_path / "once.onnx", tmp_path / "twice.onnx"
    assert main(f"compact {model} -o {once} --round-to 1 -q".split()) == 0
    assert main(f"compact {once} -o {twice} --round-to 1 --json".split()) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 0
    assert once.read_bytes() == twice.read_bytes()


def test_wrong_shapes_in_the_file_lead_nowhere():
    """What the file says of tensors inside is not believed; what is cut is corrected."""
    model = with_zeros(mlp(), w1=[1, 3])
    for name, dims in (("h", [7, 9]), ("a", [None, 5])):
        told = helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        model.graph.value_info.append(told)
    found = compacted(model).document.proto
    sizes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in found.graph.value_info]
    assert sizes == [[7, 3], [0, 3]]


def test_tensors_may_have_the_names_that_the_tool_would_give():
    """New constants are called after what they replace: such names may be taken, in bodies too."""
    model = build(
        """(float[N,6] x) => (float[N,3] y) {
            h = MatMul (x, w1)  three_cut = Reshape (h, three)  r = Relu (three_cut)
            total = ReduceSum <keepdims = 0> (x)  positive = Greater (total, zero)
            back = Reshape (r, two)
            y = If (positive) <
                then_branch = t () => (float[N,3] c) { three_cut2 = Neg (back)
                    c = MatMul (three_cut2, w2) },
                else_branch = e () => (float[N,3] d) { d = MatMul (back, w2) }>
        }""",
        w1=random(6, 8),
        three=np.array([0, 2, 4]),
        two=np.array([0, 8]),
        zero=np.float32(0),
        w2=random(8, 3),
    )
    found = compacted(with_zeros(model, w1=[1, 5])).document.proto
    assert shapes(found)["w2"] == (6, 3)
    assert "three_cut3" in shapes(found)


def test_a_new_bias_takes_no_name_of_a_body():
    """A unit that is a constant is folded into a bias that is new: its name is free everywhere."""
    model = build(
        """(float[N,6] x, bool flag) => (float[N,3] y) {
            h = Gemm (x, w1, b1)  r = Relu (h)  g = Gemm (r, w2)
            y = If (flag) <
                then_branch = t () => (float[N,3] c) { g_bias = Neg (g)  c = Relu (g_bias) },
                else_branch = e () => (float[N,3] d) { d = Relu (g) }>
        }""",
        w1=random(6, 40),
        b1=np.ones(40, np.float32),
        w2=random(40, 3),
    )
    model = with_zeros(model, w1=slice(0, 20))
    for flag in (True, False):
        feed = {"x": random(2, 6, seed=4), "flag": np.array(flag)}
        found = compacted(model, feed).document.proto
        assert shapes(found)["w2"] == (20, 3)


@pytest.mark.parametrize("least", [1, 8])
def test_a_chain_of_dead_layers_keeps_one_channel_each(least):
    model = with_zeros(chain(), w1=EVERY)
    found = compact(load(model), feed_for(model), provider="cpu", round_to=least)
    assert_outputs_agree(model, found.document.proto, feed_for(model), rtol=1e-4, atol=1e-5)
    assert all(size > 0 for dims in shapes(found.document.proto).values() for size in dims)
