"""Dead units that are constant: folded exactly into what reads them, or left with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structures import PADS, kernels, norm
from text_models import build, initializer, random, run

from onnx_relief.compaction.compact import compact
from onnx_relief.graph.document import load
from onnx_relief.graph.orphans import drop_orphans


def feed(*shape):
    return {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def dead(weight, units, axis=0):
    """Return the weight with nothing left at some units."""
    weight = weight.copy()
    weight[(slice(None),) * axis + (units,)] = 0
    return weight


def smaller(model, inputs, removed):
    """Compact a model, see that so many groups went, and that it gives the same."""
    found = compact(load(model), inputs, provider="cpu", round_to=1)
    assert found.removed == removed, found.kept
    assert_equal(model, found.document.proto, inputs)
    return found


def assert_equal(model, other, inputs):
    for one, two in zip(run(model, inputs), run(other, inputs), strict=True):
        assert one.shape == two.shape
        assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()


def test_the_checker_notices_a_small_error():
    model = build("(float[N,6] x) => (float[N,5] y) { y = MatMul (x, w) }", w=random(6, 5))
    other = build("(float[N,6] x) => (float[N,5] y) { y = MatMul (x, w) }", w=random(6, 5) * 1.0001)
    with pytest.raises(AssertionError):
        assert_equal(model, other, feed(2, 6))


def test_a_constant_goes_into_the_bias_of_a_gemm():
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            h = Gemm (x, w1, b1)  r = Sigmoid (h)  y = Gemm <alpha = 0.5, beta = 2.0> (r, w2, b2)
        }""",
        w1=dead(random(6, 8), [1, 3, 4], axis=1),
        b1=random(8),
        w2=random(8, 5, seed=1),
        b2=random(5, seed=2),
    )
    found = smaller(model, feed(4, 6), 3)
    constant = 1 / (1 + np.exp(-random(8)[[1, 3, 4]].astype(np.float64)))
    expected = random(5, seed=2) + 0.25 * constant @ random(8, 5, seed=1)[[1, 3, 4]]
    np.testing.assert_allclose(initializer(found.document.proto, "b2"), expected, rtol=1e-6)


def test_through_normalisation_activation_and_pooling():
    model = build(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv (x, k1, b1)  n = BatchNormalization (a, s, o, m, v)  r = HardSwish (n)
            p = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (r)
            c = Conv <strides = [2, 2]> (p, k2)  q = Elu (c)  g = GlobalAveragePool (q)
            f = Flatten (g)  y = Gemm (f, w)
        }""",
        **dict(zip("somv", norm(6), strict=True)),
        k1=dead(kernels(6, 3), [0, 5]),
        b1=random(6),
        k2=dead(kernels(7, 6, 1, seed=1), [2]),
        w=random(7, 5),
    )
    smaller(model, feed(2, 3, 8, 8), 3)


def test_a_unit_that_reads_only_constants_is_one():
    first, second = dead(random(6, 8), [0, 1], axis=1), random(8, 7, seed=1)
    second[2:, 3] = 0
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            h = Gemm (x, w1, b1)  r = Tanh (h)  i = MatMul (r, w2)  j = Add (i, b2)
            s = Softplus (j)  y = Gemm (s, w3)
        }""",
        w1=first,
        b1=random(8),
        w2=second,
        b2=random(7),
        w3=random(7, 5, seed=2),
    )
    smaller(model, feed(4, 6), 3)


def test_a_product_without_a_bias_gets_an_add():
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            h = Gemm (x, w1, b1)  r = Relu (h)  y = MatMul (r, w2)
        }""",
        w1=dead(random(6, 8), [1, 3], axis=1),
        b1=np.abs(random(8)),
        w2=random(8, 5, seed=1),
    )
    proto = smaller(model, feed(4, 6), 2).document.proto
    assert [node.op_type for node in proto.graph.node] == ["Gemm", "Relu", "MatMul", "Add"]
    assert proto.graph.output == model.graph.output


def test_past_zero_padding_one_constant_stays_for_all_and_says_so():
    model = build(
        f"""(float[N,3,8,8] x) => (float[N,2,8,8] y) {{
            a = Conv {PADS} (x, k0, b0)  r = Relu (a)  y = Conv {PADS} (r, k1)
        }}""",
        k0=dead(kernels(6, 3), [0, 1, 2]),
        b0=np.array([1, -1, 2, 0, 0, 1], np.float32),
        k1=kernels(2, 6, seed=1),
    )
    found = smaller(model, feed(2, 3, 8, 8), 2)
    why = "they are constants other than 0, and zero padding of Conv would change it at the border"
    assert found.kept[why] == 1


@pytest.mark.parametrize(
    ("reader", "merged"),
    [
        ("y = ConvTranspose <strides = [2, 2]> (r, k1)", 1),
        (
            "p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> "
            "(r)  y = Conv (p, k1)",
            0,
        ),
        ("p = LpPool <kernel_shape = [2, 2]> (r)  y = Conv (p, k1)", 0),
        ("p = Pad (r, around)  y = Conv (p, k1)", 0),
        (
            "b = GlobalAveragePool (x)  bc = MatMul (b, one)  bv = Squeeze (bc)  "
            "y = Conv (r, k1, bv)",
            0,
        ),
    ],
)
def test_what_is_uneven_or_has_no_room_keeps_a_constant(reader, merged):
    model = build(
        f"""(float[1,4,8,8] x) => (float[A,B,C,D] y) {{
            a = Conv (x, k0, b0)  r = Relu (a)  {reader}
        }}""",
        k0=dead(kernels(4, 4, 1), [0, 1]),
        b0=np.ones(4, np.float32),
        k1=kernels(4, 4, 3, seed=1),
        around=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        one=np.ones((1, 1), np.float32),
    )
    found = compact(load(model), feed(1, 4, 8, 8), provider="cpu", round_to=1)
    assert_equal(model, found.document.proto, feed(1, 4, 8, 8))
    assert found.removed == merged


def test_a_bias_that_two_layers_share_is_not_corrected():
    model = build(
        """(float[N,6] x) => (float[N,5] y, float[N,5] z) {
            h = Gemm (x, w1, b1)  r = Relu (h)  y = Gemm (r, w2, b2)  z = Gemm (x, w3, b2)
        }""",
        w1=dead(random(6, 8), [1, 3], axis=1),
        b1=np.abs(random(8)),
        w2=random(8, 5, seed=1),
        b2=random(5),
        w3=random(6, 5, seed=2),
    )
    found = smaller(model, feed(4, 6), 0)
    assert any("no bias of its own" in why for why in found.kept)


def test_depthwise_layers_pass_constants_on():
    model = build(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv (x, k0, b0)  r = Clip (a, low, high)  d = Conv <group = 6> (r, k1, b1)
            s = Sigmoid (d)  c = Conv <group = 2> (s, k2)  g = GlobalMaxPool (c)  f = Flatten (g)
            y = MatMul (f, w)
        }""",
        k0=dead(kernels(6, 3, 1), [0, 3]),
        b0=random(6) * 9,
        low=np.float32(0),
        high=np.float32(6),
        k1=kernels(6, 1, seed=1),
        b1=random(6, seed=1),
        k2=kernels(4, 3, seed=2),
        w=random(4, 5),
    )
    smaller(model, feed(2, 3, 8, 8), 1)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_convolution_gets_what_it_lost(data):
    """Against a sum in float64, whatever the stride, groups, dilation and padding."""
    draw = data.draw
    groups, wide = draw(st.sampled_from([1, 2])), draw(st.integers(1, 3))
    size = draw(st.integers(1, 3))
    pads = draw(st.sampled_from([[0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]]))
    strides, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    channels = groups * (wide + 1)
    gone = draw(st.sets(st.integers(0, channels - 1), min_size=1))
    model = build(
        f"""(float[N,3,9,9] x) => (float[N,M,H,W] y) {{
            a = Conv (x, k0, b0)  r = LeakyRelu <alpha = 0.3> (a)
            y = Conv <group = {groups}, pads = {pads}, strides = [{strides}, {strides}],
                dilations = [{dilation}, {dilation}]> (r, k1, b1)
        }}""",
        k0=dead(kernels(channels, 3, 1), sorted(gone)),
        b0=random(channels),
        k1=kernels(2 * groups, wide + 1, size, seed=1),
        b1=random(2 * groups, seed=1),
    )
    found = compact(load(model), feed(2, 3, 9, 9), provider="cpu", round_to=1)
    small = found.document.proto
    assert_equal(model, small, feed(2, 3, 9, 9))
    if any(pads) and groups == 1:
        assert found.removed >= len(gone) - 1
    elif any(pads):
        assert found.removed == 0
    elif groups == 1:
        assert found.removed == min(len(gone), channels - 1)
        lost = sorted(gone)[-found.removed :] if found.removed < len(gone) else sorted(gone)
        value = random(channels).astype(np.float64)
        value = np.where(value < 0, np.float64(np.float32(0.3)) * value, value)
        weight = initializer(model, "k1").astype(np.float64).sum(axis=(2, 3))
        expected = random(2, seed=1) + weight[:, lost] @ value[lost]
        np.testing.assert_allclose(initializer(small, "b1"), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 16), share=st.floats(0.1, 0.9))
def test_masks_of_any_kind_are_compacted_equally(seed, share):
    rng = np.random.default_rng(seed)

    def some(array):
        rows = rng.random(array.shape[0]) < share
        return dead(array * (rng.random(array.shape) < 0.9).astype(np.float32), rows)

    model = build(
        """(float[N,3,9,9] x) => (float[N,5] y) {
            a = Conv (x, k0, b0)  n = BatchNormalization (a, s, o, m, v)  r = Relu (n)
            b = Conv (r, k1)  c = Conv (r, k2, b2)  e = Add (b, c)  t = Tanh (e)
            p = AveragePool <kernel_shape = [2, 2]> (t)  f = Flatten (p)
            h = Gemm <transB = 1> (f, w1, c1)  g = Gelu (h)  i = MatMul (g, w2)  y = Add (i, c2)
        }""",
        **dict(zip("somv", norm(6), strict=True)),
        k0=some(kernels(6, 3)),
        b0=random(6),
        k1=some(kernels(5, 6, seed=1)),
        k2=some(kernels(5, 6, seed=2)),
        b2=random(5),
        w1=some(random(8, 80, seed=1)),
        c1=random(8, seed=2),
        w2=random(8, 5, seed=3),
        c2=random(5, seed=4),
    )
    found = compact(load(model), feed(2, 3, 9, 9), provider="cpu", round_to=1)
    assert_equal(model, found.document.proto, feed(2, 3, 9, 9))


def test_what_only_the_model_before_read_goes_and_nothing_else():
    """A chain goes with its nodes, types and constants; what nobody read before stays."""
    text = """(float[N,6] x) => (float[N,5] y) {{
        h = MatMul (x, w0)  shape = Shape (h)  half = Div (shape, two)  unread = Neg (x)
        a, b = Split <axis = 1> (h, {sizes})  y = MatMul (a, w1)
    }}"""
    arrays = {
        **{"w0": random(6, 8), "w1": random(4, 5), "alone": random(3)},
        **{"two": np.array([2, 2]), "known": np.array([4, 4])},
    }
    before = onnx.shape_inference.infer_shapes(build(text.format(sizes="half"), **arrays))
    after = onnx.shape_inference.infer_shapes(build(text.format(sizes="known"), **arrays))
    left = drop_orphans(load(after), load(before)).proto.graph
    assert [node.op_type for node in left.node] == ["MatMul", "Neg", "Split", "MatMul"]
    assert {tensor.name for tensor in left.initializer} == {"w0", "w1", "alone", "known"}
    assert {value.name for value in left.value_info} == {"h", "unread", "a", "b"}


def test_constants_have_to_be_the_same_everywhere():
    """A parameter that differs from place to place makes no constant."""
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv (x, k0, b0)  p = Add (a, place)  y = Conv (p, k1)
        }""",
        k0=dead(kernels(4, 3, 1), [0, 1]),
        b0=random(4),
        place=np.concatenate([np.ones((1, 4, 4)), random(3, 4, 4)]).astype(np.float32),
        k1=kernels(2, 4, 1, seed=1),
    )
    smaller(model, feed(2, 3, 4, 4), 1)


def test_a_bias_behind_a_reshape_leaves_room_for_another():
    """As Paddle writes it: a vector becomes a row of channels, and is added after the layer."""
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv (x, k0, b0)  r = Sigmoid (a)  c = Conv (r, k1)
            row = Reshape (b1, shape)  y = Add (c, row)
        }""",
        k0=dead(kernels(4, 3, 1), [0, 2]),
        b0=random(4),
        k1=kernels(2, 4, 1, seed=1),
        b1=random(2),
        shape=np.array([1, 2, 1, 1]),
    )
    found = smaller(model, feed(2, 3, 4, 4), 2)
    assert np.array_equal(initializer(found.document.proto, "b1"), random(2))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_one_constant_stands_for_all_that_several_layers_read(data):
    """Some readers pad, some do not; the constants differ from reader to reader."""
    draw = data.draw
    gone = sorted(draw(st.sets(st.integers(0, 7), min_size=2, max_size=7)))
    pads = draw(st.lists(st.integers(0, 1), min_size=3, max_size=3))
    offset = random(8, seed=draw(st.integers(0, 9)))
    model = build(
        f"""(float[N,3,6,6] x) => (float[N,2,H,W] y, float[N,2,I,J] z, float[N,3,K,L] u) {{
            a = Conv (x, k0, b0)  r = Relu (a)  t = Tanh (a)
            y = Conv <pads = [{pads[0]}, 0, 0, 0]> (r, k1)
            z = Conv <pads = [0, 0, 0, {pads[1]}]> (t, k2)
            u = ConvTranspose <pads = [0, {pads[2]}, 0, 0]> (a, k3)
        }}""",
        k0=dead(kernels(8, 3, 1), gone),
        b0=offset,
        k1=kernels(2, 8, seed=1),
        k2=kernels(2, 8, 2, seed=2),
        k3=random(8, 3, 2, 2, seed=3),
    )
    found = compact(load(model), feed(2, 3, 6, 6), provider="cpu", round_to=1)
    assert_equal(model, found.document.proto, feed(2, 3, 6, 6))
    assert found.removed == len(gone) - 1
