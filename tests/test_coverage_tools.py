"""What the coverage benchmark says: the share that half of every axis is, and float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from text_models import build, random, run

from onnx_relief.graph.document import load

TOOLS = Path(__file__).parents[1] / "tools"
FEED = {"x": random(2, 4, 5, 5, seed=9)}
CHAIN = build(
    """(float[n, 4, 5, 5] x) => (float[n, 3] y)
    {
        a = Conv(x, w1)
        b = Conv <group = 8> (a, depthwise)
        c = Relu(b)
        d = Conv(c, w2)
        e = GlobalAveragePool(d)
        f = Flatten(e)
        y = Gemm <transB = 1> (f, w3)
    }""",
    w1=random(8, 4, 1, 1),
    depthwise=random(8, 1, 3, 3, seed=1),
    w2=random(6, 8, 1, 1, seed=2),
    w3=random(3, 6, seed=3),
)


@pytest.fixture(autouse=True)
def _tools_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def test_half_of_every_axis_is_what_is_left_where_all_numbers_are_even():
    from coverage_cut import cut_share, half_of_every_axis

    from onnx_relief.graph.cost import count_parameters
    from onnx_relief.graph.layers import find_layers

    document = load(CHAIN)
    found = cut_share(document, FEED, 0.5)
    before, after = (count_parameters(find_layers(one))[0] for one in (document, found.smaller))
    expected = (32 / 2 + 72 / 2 + 48 / 4 + 18 / 2) / (32 + 72 + 48 + 18)
    assert half_of_every_axis(found) == pytest.approx(expected)
    assert after / before == pytest.approx(expected)


def test_channels_that_a_shuffle_ties_together_are_counted_as_one_kind():
    from coverage_cut import cut_share

    shuffled = build(
        """(float[n, 6, 5, 5] x) => (float[n, 3, 5, 5] y)
        {
            a = Conv <group = 2> (x, w1)
            shape = Constant <value_ints = [0, 2, 3, 5, 5]> ()
            back = Constant <value_ints = [0, 6, 5, 5]> ()
            b = Reshape(a, shape)
            c = Transpose <perm = [0, 2, 1, 3, 4]> (b)
            d = Reshape(c, back)
            e = Conv <group = 2> (d, w2)
            y = Conv(e, w3)
        }""",
        w1=random(6, 3, 1, 1),
        w2=random(4, 3, 1, 1, seed=1),
        w3=random(3, 4, 1, 1, seed=2),
    )
    found = cut_share(load(shuffled), {"x": random(2, 6, 5, 5)}, 0.5)
    assert found.alone == 1
    assert found.total == 3


def test_in_float64_the_cut_model_is_equal_to_the_masked_one_but_for_its_last_digits():
    from coverage_cut import cut_share, difference, largest_gap
    from in_double import outputs_in_double

    document = load(CHAIN)
    found = cut_share(document, FEED, 0.5)
    masked = found.masked()
    one, other = (outputs_in_double(model, FEED) for model in (masked, found.smaller))
    assert one["y"].dtype == np.float64
    assert largest_gap(one, other) < 1e-14
    assert largest_gap(one, {"y": run(masked.proto, FEED)[0]}) < 1e-5
    assert difference(masked, found.smaller, FEED) < 1e-5


def test_float64_stays_where_the_model_casts_to_fp32():
    from in_double import outputs_in_double

    model = build(
        """(float[n, 2] x) => (float[n, 2] y)
        {
            half = Constant <value_float = 0.3> ()
            a = Cast <to = 1> (x)
            b = MatMul(a, w)
            y = Mul(b, half)
        }""",
        w=random(2, 2),
    )
    feed = {"x": np.array([[1.0, 1 / 3]], np.float32)}
    found = outputs_in_double(load(model), feed)["y"]
    wide = feed["x"].astype(np.float64) @ random(2, 2).astype(np.float64)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wide * np.float64(np.float32(0.3)), rtol=1e-12)


def test_gap_notices_one_percent():
    from coverage_cut import largest_gap

    ones = {"y": np.ones(3, np.float32)}
    assert largest_gap(ones, {"y": np.full(3, 1.01)}) == pytest.approx(0.01)
    assert largest_gap(ones, {"y": np.ones(4)}) == float("inf")


def row(name, *, in_double=0.0, **more):
    """Return a row as `bench_coverage.examine` makes it."""
    shares = {"parameters": 0.3, "macs": 0.3, "million": 1.0}
    said = {"name": name, "origin": "here", "state": "cut", "heads": None, "peer": None}
    times = {"time": 0.25, "milliseconds": 186.0, "commit": "abc"}
    found = {"groups": 4, "removed": 2, "alone": 0, "stays": {}, "least": 0.3}
    gaps = {"difference": 6e-5, "rounding": 6e-5, "in_double": in_double}
    return said | shares | times | found | gaps | more


def test_page_says_what_is_over_and_why_a_target_is_missed():
    from coverage_page import page

    squeezed = row("light-squeezenet.random", parameters=0.36, least=0.355, alone=1)
    text = page([squeezed, row("other", in_double="no converter")], [], "Made so.")
    assert "0.25 of 190 ms" in text
    assert "In float64 the largest difference of all is 0 (1 of 2 models are carried)" in text
    assert "half of every axis leaves 0.355, so that 0.35 is out of reach" in text
    assert "| not carried |" in text
    assert "- **other**: the difference is 6e-05, above 1e-05" in text


def test_peer_that_leaves_as_much_to_the_shown_digits_is_not_called_better():
    from coverage_page import page

    peer = {"parameters": 0.2999, "macs": 0.3, "time": 0.2499}
    assert "onnxsim leaves" not in page([row("even", peer=peer)], [], "Made so.")
    better = page([row("behind", peer=peer | {"parameters": 0.29, "time": 0.2})], [], "Made so.")
    assert "- **behind**: onnxsim leaves 0.290 of the parameters" in better
    assert "- **behind**: onnxsim's is faster: 0.20 of the time" in better
