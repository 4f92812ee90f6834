"""The package's scores against the equations written a second time, for all kinds of layers."""
from __future__ import annotations
import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
import reference
from scored import assert_scores, one_layer, run, scores_of
from onnx_relief.errors import ModelError
from onnx_relief.graph.probes import Estimator, Granularity

@st.composite
def convolutions(draw, transposed):
    rank = draw(st.integers(1, 3))
    small = {1: 4, 2: 3, 3: 2}[rank]
    kernel = tuple(draw(st.lists(st.integers(1, small), min_size=rank, max_size=rank)))
    size = tuple(draw(st.integers(1, {1: 9, 2: 5, 3: 4}[rank])) for _ in kernel)
    attributes = {}
    if draw(st.booleans()):
        attributes["strides"] = [draw(st.integers(1, 3)) for _ in kernel]
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if draw(st.booleans()) and (transposed or not mode.startswith("SAME")):
        attributes["dilations"] = [draw(st.integers(1, 2)) for _ in kernel]
    if mode != "NOTSET":
        attributes["auto_pad"] = mode
    elif draw(st.booleans()):
        attributes["pads"] = [draw(st.integers(0, k)) for k in kernel * 2]
    if transposed:
        dil = attributes.get("dilations", [1]*rank); stri=attributes.get("strides",[1]*rank)
        if draw(st.booleans()):
            attributes["output_padding"] = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stri, dil)]
        if draw(st.integers(0, 3)) == 0:
            attributes["output_shape"] = [draw(st.integers(1, 8)) for _ in kernel]
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    width = draw(st.integers(1, 3)); per_group = draw(st.integers(1, 3))
    attributes["group"] = groups
    _, out = reference.output_frame(size, kernel, attributes, transposed=transposed)
    assume(all(0 < o <= 12 for o in out))
    if transposed and "output_shape" in attributes:
        nat = reference.output_frame(size, kernel, {k:v for k,v in attributes.items() if k not in ("output_shape","auto_pad","pads")}, transposed=True)[1]
    return kernel, size, attributes, groups, width, per_group, draw(st.booleans()), draw(st.integers(0, 2**32-1))

def check(case, transposed, estimator, granularity):
    kernel, size, attributes, groups, width, per_group, has_bias, seed = case
    rng = np.random.default_rng(seed)
    shape = (groups*width, per_group, *kernel) if transposed else (groups*per_group, width, *kernel)
    w = rng.standard_normal(shape).astype(np.float32)
    x = (rng.standard_normal((3, groups*width, *size))*rng.choice([0.1,1,30.])).astype(np.float32)
    x[:, rng.integers(groups*width)] *= rng.choice([0, 1])
    b = rng.standard_normal(groups*per_group).astype(np.float32)
    constants = {"w": w} | ({"b": b} if has_bias else {})
    model = one_layer("ConvTranspose" if transposed else "Conv", ["x", *constants], constants, {"x": x}, **attributes)
    seen = reference.seen_by_taps(x, kernel, attributes, transposed=transposed)
    kernels = reference.kernels_by_unit(w, groups, transposed=transposed)
    try:
        y = run(model, {"x": x})["y"]
    except ModelError as e:
        from hypothesis import event; event(str(e)[-90:])
        assume(False)
    mine = reference.convolution_output(seen, kernels, groups)
    if has_bias: mine = mine + b[:, None]
    np.testing.assert_allclose(y.reshape(mine.shape), mine, rtol=1e-3, atol=1e-4*abs(mine).max())
    scores = scores_of(model, {"x": x[:2]}, {"x": x[2:]}, estimator=estimator, granularity=granularity)["layer"]
    signals = reference.convolution_signals(seen, kernels, groups, mean_map=estimator is Estimator.MEAN_MAP, weights=granularity is Granularity.WEIGHT)
    bias = (np.abs(b.astype(float))*np.sqrt(seen.shape[-1]))[:, None] if has_bias else np.zeros((len(kernels), 0))
    assert_scores(scores, *reference.shares(signals, bias), rtol=1e-5, atol=1e-8)

@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("estimator", Estimator)
@pytest.mark.parametrize("transposed", [False, True])
def test_conv(transposed, estimator, granularity):
    @settings(max_examples=1500, deadline=None)
    @given(convolutions(transposed))
    def go(case): check(case, transposed, estimator, granularity)
    go()
