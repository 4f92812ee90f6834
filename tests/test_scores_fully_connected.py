"""Scores of Gemm and MatMul against the equations written a second time, in every orientation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from onnx import helper
from reference import matmul_signals, shares
from scored import assert_scores, model_of, one_layer, run, scores_of

few = settings(max_examples=80, deadline=None)
sizes = st.integers(1, 4)
seeds = st.integers(0, 2**32 - 1)


def numbers(seed: int, *shape: int) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * rng.choice([0.1, 1, 30])).astype(np.float32)


@st.composite
def products(draw: Any) -> tuple[Any, Any, bool]:
    """Return x, a weight, and whether the weight stands on the left; any ranks and broadcasting."""
    rows, inner, columns = draw(sizes), draw(sizes), draw(sizes)
    batches = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
    left = (*batches.input_shapes[0], rows, inner)
    right = (*batches.input_shapes[1], inner, columns)
    if draw(st.integers(0, 4)) == 0:
        left = (inner,)
    if draw(st.integers(0, 4)) == 0:
        right = (inner,)
    on_left, seed = draw(st.booleans()), draw(seeds)
    of_x, of_weight = (right, left) if on_left else (left, right)
    return numbers(seed, *of_x), numbers(seed + 1, *of_weight), on_left


@few
@given(products())
def test_matmul(case: tuple[Any, Any, bool]) -> None:
    x, weight, on_left = case
    names = ["w", "x"] if on_left else ["x", "w"]
    model = one_layer("MatMul", names, {"w": weight}, {"x": x})
    y = weight @ x if on_left else x @ weight
    np.testing.assert_allclose(run(model, {"x": x})["y"], y, rtol=0, atol=1e-5 * np.abs(y).max())
    expected = shares(matmul_signals(x, weight, weight_left=on_left))
    scores = scores_of(model, {"x": x})["layer"]
    assert_scores(scores, *expected, np.zeros((len(expected[0]), 0)), rtol=1e-5, atol=1e-8)


@st.composite
def einsums(draw: Any) -> dict[str, Any]:
    """Return operands of an Einsum that joins axes to a matrix, its equation, and a bias."""
    names = draw(st.permutations("abcdefgh"))
    # Of inputs of length 1, ONNX Runtime would repeat the weight where the data is longer.
    inputs = draw(st.lists(st.integers(2, 5), min_size=1, max_size=2))
    units = draw(st.lists(sizes, min_size=1, max_size=2))
    places = draw(st.lists(sizes, min_size=0, max_size=2))
    of_inputs, of_units, of_places = names[:2], names[2:4], names[4:6]
    read, made = of_inputs[: len(inputs)], of_units[: len(units)]
    rest = "..." if draw(st.booleans()) else "".join(of_places[: len(places)])
    lengths = dict(zip([*read, *made], [*inputs, *units], strict=True))
    lies = draw(st.permutations([*read, *made]))
    on_left, seed = draw(st.booleans()), draw(seeds)
    terms = [rest + "".join(read), "".join(lies)]
    return {
        "x": numbers(seed, *places, *inputs),
        "w": numbers(seed + 1, *(lengths[one] for one in lies)),
        "b": numbers(seed + 2, *units) if draw(st.booleans()) else None,
        "equation": ",".join(terms[::-1] if on_left else terms) + f"->{rest}{''.join(made)}",
        "names": ["w", "x"] if on_left else ["x", "w"],
        "matrix": [*(lies.index(one) for one in read), *(lies.index(one) for one in made)],
        "inputs": int(np.prod(inputs)),
    }


@few
@given(einsums())
def test_einsum(case: dict[str, Any]) -> None:
    nodes = [helper.make_node("Einsum", case["names"], ["a"], "layer", equation=case["equation"])]
    constants, out = {"w": case["w"]}, "a"
    if case["b"] is not None:
        nodes.append(helper.make_node("Add", ["a", "b"], ["y"]))
        constants["b"], out = case["b"], "y"
    model = model_of(nodes, constants, {"x": case["x"]}, [out])
    matrix = case["w"].transpose(case["matrix"]).reshape(case["inputs"], -1)
    rows = case["x"].reshape(-1, case["inputs"])
    plain = (rows @ matrix).reshape(-1, matrix.shape[1])
    added = 0 if case["b"] is None else case["b"].reshape(-1)
    found = run(model, {"x": case["x"]})[out].reshape(plain.shape)
    np.testing.assert_allclose(found, plain + added, rtol=0, atol=1e-4 * np.abs(plain).max())
    strength = np.zeros((matrix.shape[1], 0 if case["b"] is None else 1))
    if case["b"] is not None:
        strength = np.abs(case["b"].astype(np.float64).reshape(-1, 1))
    expected = shares(matmul_signals(rows, matrix, weight_left=False), strength)
    scores = scores_of(model, {"x": case["x"]})["layer"]
    assert_scores(scores, *expected, rtol=1e-5, atol=1e-8)


@st.composite
def gemms(draw: Any) -> dict[str, Any]:
    """Return operands of one Gemm by name, and what it is told to do with them."""
    rows, inner, columns, seed = draw(sizes), draw(sizes), draw(sizes), draw(seeds)
    turn_a, turn_b, on_left = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    a = numbers(seed, *((inner, rows) if turn_a else (rows, inner)))
    b = numbers(seed + 1, *((columns, inner) if turn_b else (inner, columns)))
    per_unit = (rows, 1) if on_left else (columns,)
    shape = draw(st.sampled_from([None, per_unit, (1, columns), (rows, 1), (rows, columns), ()]))
    factor = st.sampled_from([1.0, 0.5, -3.0])
    return {
        "x": b if on_left else a,
        "w": a if on_left else b,
        "c": None if shape is None else numbers(seed + 2, *shape),
        "on_left": on_left,
        "said": {
            "transA": int(turn_a),
            "transB": int(turn_b),
            "alpha": draw(factor),
            "beta": draw(factor),
        },
    }


@few
@given(gemms())
def test_gemm(case: dict[str, Any]) -> None:
    x, weight, bias, on_left, said = (case[key] for key in ("x", "w", "c", "on_left", "said"))
    constants = {"w": weight} | ({} if bias is None else {"c": bias})
    names = [*(["w", "x"] if on_left else ["x", "w"]), *([] if bias is None else ["c"])]
    model = one_layer("Gemm", names, constants, {"x": x}, **said)
    a, b = (weight, x) if on_left else (x, weight)
    a, b = a.T if said["transA"] else a, b.T if said["transB"] else b
    data, matrix = (b, a) if on_left else (a, b)
    signals = matmul_signals(data, matrix * said["alpha"], weight_left=on_left)
    strength = np.zeros((len(signals), 0))
    if bias is not None and adds_to_units(bias, len(signals), on_left):
        strength = np.abs(bias.astype(np.float64).reshape(-1, 1) * said["beta"])
    scores = scores_of(model, {"x": x})["layer"]
    assert_scores(scores, *shares(signals, strength), rtol=1e-5, atol=1e-8)


def adds_to_units(bias: Any, units: int, on_left: bool) -> bool:
    """Whether `bias` has one value per unit: along the rows of the output, or its columns."""
    return bias.size == units and (
        bias.ndim == 2 and bias.shape[0] == units if on_left else bias.shape[-1:] == (units,)
    )


@pytest.mark.parametrize(
    ("op", "names", "shape"),
    [
        ("MatMul", ["x", "w"], (4,)),
        ("MatMul", ["x", "w"], (1, 4)),
        ("MatMul", ["w", "x"], (4, 1)),
        ("Gemm", ["x", "w"], (4,)),
        ("Gemm", ["w", "x"], (4, 1)),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_bias_in_a_following_add_competes(
    op: str, names: list[str], shape: tuple[int, ...], first: bool
) -> None:
    x, weight, bias = numbers(0, 4, 4), numbers(1, 4, 4), numbers(2, *shape)
    nodes = [
        helper.make_node(op, names, ["before"], name="layer"),
        helper.make_node("Add", ["b", "before"] if first else ["before", "b"], ["y"]),
    ]
    model = model_of(nodes, {"w": weight, "b": bias}, {"x": x}, ["y"])
    signals = matmul_signals(x, weight, weight_left=names[0] == "w")
    expected = shares(signals, np.abs(bias.astype(np.float64)).reshape(4, 1))
    assert_scores(scores_of(model, {"x": x})["layer"], *expected, rtol=1e-5, atol=1e-8)
