"""Weights that a graph puts together of whole constants are pruned where their parts are stored."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from text_models import assert_outputs_agree, build, differences, function, random

import onnx_relief as relief
from onnx_relief.graph.document import load
from onnx_relief.graph.folded import with_whole_weights
from onnx_relief.graph.layers import find_layers

WIDE = 6
GATES = """z = Constant <value = int64[1] {{0}}> ()  one = Constant <value = int64[1] {{6}}> ()
    three = Constant <value = int64[1] {{18}}> ()  four = Constant <value = int64[1] {{24}}> ()
    """
CUT = """{w}i = Slice ({w}, z, one, z)  {w}o = Slice ({w}, three, four, z)
    {w}m = Slice ({w}, one, three, z)  {w}c = Concat <axis = 0> ({w}i, {w}o, {w}m)
    {w}u = Unsqueeze ({w}c, z)  """


def gates(*names):
    """Return nodes that bring gates from the order of PyTorch into that of ONNX."""
    return GATES.format() + "".join(CUT.format(w=name) for name in names)


def recurrent(*, twice=False):
    """Return an LSTM as the newer exporter of PyTorch writes it, in one or in both directions."""
    ways = ("f", "b") if twice else ("f",)
    names = [kind + way for way in ways for kind in ("w", "r", "i", "h")]
    sizes = {"w": (24, 8), "r": (24, WIDE), "i": (24,), "h": (24,)}
    weights = {name: random(*sizes[name[0]], seed=at) for at, name in enumerate(names)}
    for way in ways:
        names.remove(f"i{way}"), names.remove(f"h{way}")
    joined = gates(*names)
    for way in ways:
        joined += "".join(CUT.format(w=f"{kind}{way}") for kind in "ih")
        joined += f"p{way} = Concat <axis = 1> (i{way}u, h{way}u)  "
    found = {kind: f"{kind}fu" for kind in "wr"} | {"p": "pf"}
    if twice:
        joined += "".join(
            f"{kind} = Concat <axis = 0> ({kind}f{end}, {kind}b{end})  "
            for kind, end in (("w", "u"), ("r", "u"), ("p", ""))
        )
        found = {kind: kind for kind in found}
    way = "bidirectional" if twice else "forward"
    count = len(ways)
    return build(
        f"""(float[N,5,8] x) => (float[N,5,3] y) {{ {joined}
            s = Transpose <perm = [1, 0, 2]> (x)
            a = LSTM <hidden_size = 6, direction = "{way}"> (s, {found["w"]}, {found["r"]},
            {found["p"]})
            b = Transpose <perm = [2, 0, 1, 3]> (a)  c = Reshape (b, flat)  y = MatMul (c, v) }}""",
        **weights,
        v=random(count * WIDE, 3, seed=99),
        flat=np.array([0, 0, count * WIDE]),
    )


def projections():
    """Return queries, keys and values of one product, whose weights are stored apart."""
    return build(
        """(float[N,5,8] x) => (float[N,5,3] y) {
            t = Transpose (vt)  w = Concat <axis = 1> (q, k, t)  b = Concat <axis = 0> (bq, bk, bv)
            m = MatMul (x, w)  h = Add (m, b)  r = Relu (h)  y = MatMul (r, o) }""",
        q=random(8, 4, seed=1),
        k=random(8, 4, seed=2),
        vt=random(4, 8, seed=3),
        bq=random(4, seed=4),
        bk=random(4, seed=5),
        bv=random(4, seed=6),
        o=random(12, 3, seed=7),
    )


MODELS = {
    "LSTM": recurrent(),
    "LSTM both ways": recurrent(twice=True),
    "projections": projections(),
}
X = random(64, 5, 8, seed=50)
CHOICES = (
    {"alpha": 0.8},
    {"sparsity": 0.5, "granularity": "weight", "repair": "none"},
    {"sparsity": 0.5, "granularity": "weight", "criterion": "wanda"},
    {"sparsity": 0.4, "granularity": "row", "criterion": "magnitude", "repair": "none"},
    {"granularity": "2:4", "repair": "none"},
)


def numbers(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("chosen", CHOICES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_they_lose_what_a_whole_weight_loses(name, chosen):
    model = MODELS[name]
    whole = with_whole_weights(load(model)).proto
    one, other = (relief.prune(proto, X, **chosen) for proto in (model, whole))
    for mine, its in zip(one.plan, other.plan, strict=True):
        assert all(map(np.array_equal, mine.keep, its.keep))
        np.testing.assert_array_equal(mine.keep_bias, its.keep_bias)
    assert_outputs_agree(one.model, other.model, {"x": X}, rtol=1e-6, atol=1e-6)
    for count in ("connections", "parameters", "macs", "dead_units"):
        totals = [found.report.to_dict()["totals"][count] for found in (one, other)]
        assert totals[0] == totals[1]
    before, after = numbers(model), numbers(one.model)
    assert {key: value.shape for key, value in before.items()} == {
        key: value.shape for key, value in after.items()
    }
    assert sum(int((value == 0).sum()) for value in after.values()) > 10


@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_their_parts_changes(name):
    model = MODELS[name]
    chosen = {"sparsity": 0.5, "granularity": "weight", "criterion": "wanda", "repair": "none"}
    found = relief.prune(model, X, **chosen)
    changed = differences(found.model, model)
    assert changed
    assert all(path.endswith("].raw_data") for path in changed)
    assert differences(found.model, relief.prune(model, plan=found.plan).model) == []
    untouched = relief.prune(model, X, alpha=1.0, granularity="weight").model
    assert_outputs_agree(
        untouched,
        model,
        {"x": X},
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize(
    "made",
    [
        "w = Concat <axis = 0> (a, a)",  # every number twice
        "s = Slice (a, z, two)  w = Concat <axis = 0> (s, b)",  # some not at all
        "d = Add (a, a)  w = Concat <axis = 0> (d, b)",  # others than what is stored
        "w = Concat <axis = 0> (a, b)  also = Relu (a)",  # a part is an output, too
    ],
)
def test_what_is_no_rearrangement_is_refused(made):
    outputs = "float[N,3] y, float[4,3] also" if "also" in made else "float[N,3] y"
    constants = {"a": random(4, 3), "b": random(4, 3, seed=1), "z": np.array([0])}
    constants |= {"two": np.array([2])}
    used = {name: value for name, value in constants.items() if name in made}
    text = f"(float[N,D] x) => ({outputs}) {{ {made}  y = MatMul (x, w) }}"
    assert find_layers(load(build(text, **used))).sites == ()


@pytest.mark.parametrize(
    "made",
    ["w = Concat <axis = 7> (a, b)", "g = Gather (a, far)  w = Concat <axis = 0> (g, b)"],
)
def test_what_cannot_be_computed_is_a_reason(made):
    constants = {"a": random(4, 3), "b": random(4, 3, seed=1), "far": np.array([9])}
    used = {name: value for name, value in constants.items() if name in made}
    text = f"(float[N,D] x) => (float[N,3] y) {{ {made}  y = MatMul (x, w) }}"
    document = load(build(text, **used))
    assert [refusal.op for refusal in find_layers(document).refusals] == ["MatMul"]
    assert with_whole_weights(document) is document


def test_a_part_of_a_function_that_is_called_twice_is_one_constant():
    held = function("half", "() => (w)", "w = Constant <value_floats = [1.0, 2.0, 3.0]> ()")
    model = build(
        """(float[N,6] x) => (float[N] y) {
            a = my.half ()  b = my.half ()  w = Concat <axis = 0> (a, b)  y = MatMul (x, w) }""",
        functions=held,
    )
    assert find_layers(load(model)).sites == ()


def test_a_part_that_another_layer_reads_is_refused_for_both():
    found = find_layers(
        load(
            build(
                """(float[N,8] x, float[N,4] u) => (float[N,3] y, float[N,3] z) {
                    w = Concat <axis = 0> (a, b)  y = MatMul (x, w)  z = MatMul (u, a) }""",
                a=random(4, 3),
                b=random(4, 3, seed=1),
            )
        )
    )
    assert found.sites == ()


def test_an_expression_that_is_written_twice_is_one_weight():
    model = build(
        """(float[N,8] x, float[N,8] u) => (float[N,3] y, float[N,3] z) {
            w = Concat <axis = 0> (a, b)  y = MatMul (x, w)
            v = Concat <axis = 0> (a, b)  z = MatMul (u, v) }""",
        a=random(4, 3),
        b=random(4, 3, seed=1),
    )
    data = {"x": random(40, 8, seed=2), "u": random(40, 8, seed=3)}
    found = relief.prune(model, data, sparsity=0.5, granularity="weight", repair="none")
    kept = [entry.keep[0] for entry in found.plan]
    np.testing.assert_array_equal(kept[0], kept[1])
    assert sum(int((value == 0).sum()) for value in numbers(found.model).values()) == 12


def test_data_files_keep_their_size(tmp_path):
    path, target = tmp_path / "model.onnx", tmp_path / "out" / "small.onnx"
    target.parent.mkdir()
    model = MODELS["LSTM"]
    onnx.save(
        onnx.ModelProto.FromString(model.SerializeToString()),
        path,
        save_as_external_data=True,
        location="model.data",
        size_threshold=100,
    )
    found = relief.prune(path, X, sparsity=0.5, granularity="weight", repair="none")
    found.save(target)
    (data,) = (file for file in target.parent.iterdir() if file != target)
    assert data.stat().st_size == (tmp_path / "model.data").stat().st_size
    alone = relief.prune(model, X, sparsity=0.5, granularity="weight", repair="none").model
    after = numbers(onnx.load(target))
    assert all(np.array_equal(after[name], value) for name, value in numbers(alone).items())


def test_training_keeps_their_zeros():
    chosen = {"sparsity": 0.5, "granularity": "weight", "criterion": "wanda"}
    found = relief.prune(MODELS["LSTM"], X, **chosen, repair="none")
    trained = relief.retrain(
        found.model, X, teacher=MODELS["LSTM"], epochs=2, lr=0.01, seed=1
    ).document.proto
    before, after = numbers(found.model), numbers(trained)
    assert any((before[name] != after[name]).any() for name in ("wf", "rf"))
    for name in ("wf", "rf"):
        assert (after[name][before[name] == 0] == 0).all()


def test_gradients_reach_their_parts():
    chosen = {"sparsity": 0.5, "granularity": "weight", "criterion": "taylor", "repair": "none"}
    whole = with_whole_weights(load(MODELS["LSTM both ways"])).proto
    one, other = (relief.prune(m, X, **chosen) for m in (MODELS["LSTM both ways"], whole))
    for mine, its in zip(one.plan, other.plan, strict=True):
        assert all(map(np.array_equal, mine.keep, its.keep))


@pytest.mark.parametrize("pattern", ["wf", "rf", "w?"])
def test_a_layer_is_found_by_a_part_of_its_weight(pattern):
    found = relief.prune(MODELS["LSTM both ways"], X, sparsity=0.5, skip=[pattern])
    rows = {row["name"]: row["left_alone"] for row in found.report.to_dict()["layers"]}
    assert rows == {"a": f"--skip {pattern}", "y": None}
