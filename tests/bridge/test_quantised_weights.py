"""Weights that are stored as integers: trained as floats, seen and written as the file can."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from text_models import build, differences, random, run

import onnx_relief as relief
from onnx_relief.bridge.back import write_back
from onnx_relief.bridge.check import check, tensors
from onnx_relief.bridge.convert import convert, masks_for
from onnx_relief.bridge.ops.quantization import rounded
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import nonzero_elements
from onnx_relief.retraining.rewinding import rewound

GRAPH = """(float[N,3,6,6] x) => (float[N,5] y) {
    k = DequantizeLinear <axis = 0> (kq, ks, kz)
    c = DequantizeLinear (cq, cs)
    [conv] h = Conv (x, k, c)
    m = DequantizeLinear (mq, ms)
    n = BatchNormalization (h, gamma, beta, m, v)
    r = Relu (n)
    s = QuantizeLinear (r, rs, rz)
    t = DequantizeLinear (s, rs, rz)
    f = Flatten (t)
    w = DequantizeLinear <axis = 1> (wq, ws)
    [dense] y = MatMul (f, w)
}"""


def network(seed=0, **changed):
    draw = np.random.default_rng(seed)
    stored = {
        "kq": draw.integers(-60, 60, (4, 3, 3, 3)).astype(np.int8),
        "ks": (draw.random(4) / 100 + 0.001).astype(np.float32),
        "kz": np.array([0, 5, -3, 1], np.int8),
        # More digits than a float has.
        "cq": (2**30 + draw.integers(0, 2**20, 4)).astype(np.int32),
        "cs": np.float32(1e-9),
        "mq": draw.integers(-90, 90, 4).astype(np.int8),
        "ms": np.float32(0.01),
        "v": np.ones(4, np.float32),
        "gamma": np.ones(4, np.float32),
        "beta": np.full(4, 0.1, np.float32),
        "rs": np.float32(0.02),
        "rz": np.uint8(0),
        "wq": draw.integers(-127, 127, (64, 5)).astype(np.int8),
        "ws": np.array([0.01, 0.02, 0.0, 0.005, 0.01], np.float32),
    }
    return build(GRAPH, **{**stored, **changed})


def arrays(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def trained(module, feed, steps=4):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (module.run(feed)["y"] ** 2).mean().backward()
        optimizer.step()
    return module.eval()


FEED = {"x": random(8, 3, 6, 6, seed=1)}


def test_as_they_are_they_go_back_to_the_last_digit():
    document = load(network())
    module = convert(document)
    check(module, document, FEED, provider="cpu")
    assert differences(document.proto, write_back(module, document).proto) == []


def test_a_trained_module_computes_what_the_file_will():
    document = load(network())
    module = trained(convert(document), tensors(FEED))
    back = write_back(module, document)
    before, after = arrays(document.proto), arrays(back.proto)
    for name in ("kq", "cq", "mq", "wq"):
        assert after[name].dtype == before[name].dtype
        assert not np.array_equal(after[name], before[name])
    # Nothing has a gradient through a scale of zero.
    assert np.array_equal(after["wq"][:, 2], before["wq"][:, 2])
    assert before["kq"].min() <= after["kq"].min() < after["kq"].max() <= before["kq"].max()
    again = convert(back).eval()
    (mean,) = [name for name, home in module.homes.items() if home.name == "mq"]
    with torch.no_grad():
        # The running mean alone is rounded only when it is written.
        module.get_buffer(mean).copy_(again.get_buffer(mean))
        here, there = (m.run(tensors(FEED))["y"] for m in (module, again))
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)
    plain = [name for name in before if name in ("ks", "kz", "cs", "ms", "rs", "rz", "ws")]
    assert all(np.array_equal(after[name], before[name]) for name in plain)


def test_what_is_zero_is_held_at_its_zero_point():
    stored = arrays(network())
    kernels = stored["kq"].copy()
    kernels[:, 1] = stored["kz"][:, None, None]
    document = load(network(kq=kernels))
    module = convert(document)
    module.hold(masks_for(module, nonzero_elements(find_layers(document))))
    after = arrays(write_back(trained(module, tensors(FEED)), document).proto)
    assert np.array_equal(after["kq"][:, 1], kernels[:, 1])


def test_integers_are_rewound_with_their_scales():
    one, other = load(network()), load(network(seed=1))
    assert differences(rewound(one, other).proto, other.proto) == []
    shifted = load(network(seed=1, kz=np.zeros(4, np.int8)))
    with pytest.raises(SettingsError, match="'kq' other zero points"):
        rewound(one, shifted)


READ_TWICE = {
    "a lookup": "e = Gather (q, i) d = DequantizeLinear (e, s) h = Mul (x, d)",
    "itself": "e = Identity (q) d = DequantizeLinear (e, s) g = Gather (d, i) h = Mul (x, g)",
    "its transpose": "e = Transpose (q) d = DequantizeLinear (e, s) h = MatMul (x, d)",
    "a product of integers": "e = MatMulInteger (u, q) d = Cast <to = 1> (e) h = Add (x, d)",
}


@pytest.mark.parametrize("reader", READ_TWICE)
def test_integers_that_something_else_reads_stay(reader):
    stored = np.random.default_rng(0).integers(-90, 90, (5, 5)).astype(np.int8)
    model = build(
        f"""(float[N,5] x) => (float[N,4] y) {{
            {READ_TWICE[reader]}
            w = DequantizeLinear (q, s)  f = MatMul (h, w)  t = Tanh (f)  y = MatMul (t, k)
        }}""",
        q=stored,
        s=np.float32(0.01),
        i=np.array([0, 2, 1, 4], np.int64)[:1],
        u=np.ones((1, 5), np.uint8),
        k=random(5, 4),
    )
    document, feed = load(model), {"x": random(6, 5, seed=1)}
    module = trained(convert(document), tensors(feed))
    back = write_back(module, document)
    assert np.array_equal(arrays(back.proto)["q"], stored)
    check(module, back, feed, provider="cpu")


def test_scales_that_something_else_reads_stay_too():
    model = build(
        """(float[N,4] x) => (float[N,5] y) {
            w = DequantizeLinear <axis = 1> (q, s)  h = MatMul (x, w)  y = Mul (h, s)
        }""",
        q=np.random.default_rng(0).integers(-90, 90, (4, 5)).astype(np.int8),
        s=np.linspace(0.01, 0.05, 5, dtype=np.float32),
    )
    names = {str(home) for home in trainable_homes(model)}
    assert names == {"q"}


def trainable_homes(model):
    module = convert(load(model))
    return [module.homes[name] for name, _ in module.named_parameters()]


def test_a_bias_after_a_product_of_integers_is_trained():
    model = build(
        """(float[N,4] x) => (float[N,5] y) {
            w = DequantizeLinear <axis = 1> (q, s)  h = MatMul (x, w)  y = Add (h, b)
        }""",
        q=np.random.default_rng(0).integers(-90, 90, (4, 5)).astype(np.int8),
        s=np.full(5, 0.01, np.float32),
        b=random(5),
    )
    assert {str(home) for home in trainable_homes(model)} == {"q", "b"}


def test_integers_cannot_become_no_number():
    document = load(network())
    module = convert(document)
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    with pytest.raises(SettingsError, match="infinite or no number"):
        write_back(module, document)


def test_reconstruction_trains_what_the_file_can_store():
    draw = np.random.default_rng(2)
    x = draw.standard_normal((120, 3, 6, 6)).astype(np.float32)
    model, options = network(), {"sparsity": 0.6, "criterion": "magnitude", "provider": "cpu"}
    plain = relief.prune(model, {"x": x}, repair="none", **options)
    made = relief.prune(model, {"x": x}, repair="reconstruct", repair_epochs=10, **options)
    assert made.report.repair.kind == "reconstruct"
    assert not made.report.repair.undone
    before, after, zeros = arrays(model), arrays(made.model), arrays(plain.model)
    for name in ("kq", "wq"):
        assert after[name].dtype == np.int8
        dropped = zeros[name] != before[name]
        assert np.array_equal(after[name][dropped], zeros[name][dropped])

    def error(pruned):
        wanted, found = (run(m, {"x": x})[0] for m in (model, pruned))
        return np.square(wanted - found).sum() / np.square(wanted).sum()

    assert error(made.model) < 0.7 * error(plain.model)


@pytest.mark.parametrize("zero", [None, 0, 7])
def test_gradients_pass_within_the_range_and_no_further(zero):
    x = torch.tensor([-9.0, -2.0, 0.3, 1.9, 9.0], requires_grad=True)
    shift = None if zero is None else torch.tensor(zero, dtype=torch.int8)
    y = rounded(x, torch.tensor(0.5), shift, low=(zero or 0) - 6, high=(zero or 0) + 6)
    assert y.tolist() == [-3.0, -2.0, 0.5, 2.0, 3.0]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
