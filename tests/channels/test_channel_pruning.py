"""Structured pruning: smaller models that run, and biases that keep the mean signal."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from classifier import data_file, samples, written
from classifier import weights as weights_of
from text_models import build, random, run

from onnx_relief.channels import pruning
from onnx_relief.channels.pruning import prune_channels, rank_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.channels.worth import group_prices
from onnx_relief.cli import main
from onnx_relief.data import open_data
from onnx_relief.data.held_out import held_out
from onnx_relief.errors import DataError, SettingsError, UnsupportedError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.repair import repair
from onnx_relief.settings import Settings

LINEAR = """(float[N,6] x) => (float[N,3] y) {
    h = Gemm (x, w1, b1)  g = Gemm (h, w2)  m = MatMul (g, w3)  y = Add (m, b3)
}"""
CNN = """(float[N,3,8,8] x) => (float[N,4] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, k1, b1)  r = Relu (a)  c = Conv (r, k2)  s = Relu (c)
    g = GlobalAveragePool (s)  f = Flatten (g)  y = Gemm (f, w, b)
}"""


def linear(width=40):
    return build(
        LINEAR,
        w1=random(6, width, seed=1),
        b1=random(width),
        w2=random(width, width, seed=2),
        w3=random(width, 3, seed=3),
        b3=random(3),
    )


def cnn(first=16, second=48):
    return build(
        CNN,
        k1=random(first, 3, 3, 3, seed=1),
        b1=random(first),
        k2=random(second, first, 3, 3, seed=2),
        w=random(second, 4, seed=3),
        b=random(4),
    )


def cut(model, *, shape=(6,), feed=None, **channels):
    document = load(model)
    feed = samples(shape=shape, labelled=False) if feed is None else feed
    data = open_data(feed, input_specs(document.proto))
    return prune_channels(document, data, Settings(provider="cpu"), ChannelSettings(**channels))


def opened(model, feed):
    return open_data(feed, input_specs(load(model).proto))


def weights(document):
    return [part.view.shape for site in find_layers(document).sites for part in site.parts]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_biases_keep_the_mean_of_a_linear_network(ratio):
    model, x = linear(), samples(labelled=False)
    x = {"x": x["x"][held_out(opened(model, x)).work.rows]}  # what means were taken of
    found = cut(model, ratio=ratio, round_to=1, repair="mean")
    raw = cut(model, ratio=ratio, round_to=1, repair="none")
    dense = run(model, x)[0].mean(axis=0)
    np.testing.assert_allclose(run(found.document.proto, x)[0].mean(axis=0), dense, rtol=1e-3)
    assert np.abs(run(raw.document.proto, x)[0].mean(axis=0) - dense).max() > 0.1
    assert found.corrected == 2
    assert (found.repair.kind, found.repair.undone) == ("mean", False)
    assert found.repair.after < found.repair.before


@pytest.mark.parametrize("repair", ["mean", "bias"])
def test_means_that_do_harm_on_new_samples_are_not_given_back(repair):
    model, x = linear(), samples(labelled=False)["x"] + 5
    x[held_out(opened(model, {"x": x})).judge.rows] *= -1
    raw = cut(model, feed={"x": x}, ratio=0.5, round_to=1, repair="none")
    found = cut(model, feed={"x": x}, ratio=0.5, round_to=1, repair=repair)
    assert weights_of(found.document.proto).keys() == weights_of(raw.document.proto).keys()
    assert found.corrected == raw.corrected == 0
    assert found.repair.undone
    assert found.repair.kind == repair
    said = "biases that give back the mean signal made the outputs worse" in str(found.repair.notes)
    assert said == (repair != "mean")


def test_a_repair_is_told_what_weights_were_before_they_made_up_for_others(monkeypatch):
    told = {}

    def repaired(kind, pruned, *others, origin, **more):
        told.update(pruned=pruned.proto, origin=origin.proto)
        return repair(kind, pruned, *others, origin=origin, **more)

    monkeypatch.setattr(pruning, "repair", repaired)
    x = samples(labelled=False)
    ranked(linear(), x, "obs").prune(ChannelSettings(ratio=0.5, round_to=1, repair="bias"))
    dense = weights_of(linear())["w1"]
    pruned, origin = (weights_of(told[name]) for name in ("pruned", "origin"))
    assert {name: pruned[name].shape for name in origin} == {n: w.shape for n, w in origin.items()}
    assert np.isin(origin["w2"], weights_of(linear())["w2"]).all()
    assert not np.isin(pruned["w2"], weights_of(linear())["w2"]).all()
    assert np.isin(origin["w1"], dense).all()


def test_a_layer_without_a_bias_gets_one():
    found = cut(linear(), ratio=0.5, round_to=1, repair="mean").document.proto
    gemm = found.graph.node[1]
    assert len(gemm.input) == 3
    bias = next(t for t in found.graph.initializer if t.name == gemm.input[2])
    assert list(bias.dims) == [20]


def with_beta(beta, bias=None):
    """Return a model whose second layer multiplies its bias, if it has one, by beta."""
    constants = {} if bias is None else {"b2": bias}
    return build(
        f"""(float[N,6] x) => (float[N,4] y) {{
            h = Gemm (x, w1, b1)  r = Relu (h)
            y = Gemm <beta = {beta}> (r, w2{"".join(f", {name}" for name in constants)})
        }}""",
        w1=random(6, 12, seed=1),
        b1=np.ones(12, np.float32),
        w2=random(12, 4, seed=2),
        **constants,
    )


@pytest.mark.parametrize("criterion", ["relief", "obs"])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_a_new_bias_gives_back_the_same_however_the_layer_multiplies_it(criterion, beta):
    x = samples(labelled=False)
    channels = ChannelSettings(ratio=0.5, round_to=1, repair="mean")
    one, other = (
        run(ranked(with_beta(scale), x, criterion).prune(channels).document.proto, x)[0]
        for scale in (1.0, beta)
    )
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("criterion", ["relief", "obs"])
@pytest.mark.parametrize("bias", [None, random(4, seed=3)], ids=["no bias", "bias"])
def test_a_bias_that_the_layer_multiplies_by_zero_gives_nothing_back(criterion, bias):
    found = ranked(with_beta(0.0, bias), samples(labelled=False), criterion).prune(
        ChannelSettings(ratio=0.5, round_to=1, repair="mean")
    )
    assert found.corrected == 0
    assert len(found.document.proto.graph.node[-1].input) == (2 if bias is None else 3)


@pytest.mark.parametrize("first", ["", ", zeros"], ids=["its own layer", "another layer, too"])
def test_zeros_are_corrected_if_one_layer_that_is_applied_twice_has_them_for_bias(first):
    towers = " ".join(
        f"h{at} = Gemm ({x}, w0{first})  r{at} = Relu (h{at})  s{at} = Gemm (r{at}, w1, zeros)"
        for at, x in enumerate(("x", "z"))
    )
    model = build(
        f"""(float[N,6] x) => (float[N,5] y) {{
            z = Neg (x) {towers}  d = Sub (s0, s1)  t = Tanh (d)  y = MatMul (t, w2)
        }}""",
        w0=random(6, 12),
        w1=random(12, 12, seed=1),
        w2=random(12, 5, seed=2),
        zeros=np.zeros(12, np.float32),
    )
    found = cut(model, ratio=0.5, round_to=1, repair="mean", scope="layer")
    zeros = weights_of(found.document.proto)["zeros"]
    assert zeros.shape == (6,)
    assert found.corrected == (0 if first else 2)
    assert zeros.any() == (not first)


def test_models_that_are_cut_from_one_ranking_are_those_that_are_cut_alone():
    """The second convolution gets a bias in each of them, and none is left over for the next."""
    document = load(cnn())
    data = open_data(samples(shape=(3, 8, 8), labelled=False), input_specs(document.proto))
    ranked = rank_channels(document, data, Settings(provider="cpu"))
    for ratio in (0.2, 0.5, 0.2):
        channels = ChannelSettings(ratio=ratio, round_to=1)
        alone = prune_channels(document, data, Settings(provider="cpu"), channels)
        assert ranked.prune(channels).document.proto == alone.document.proto


def test_in_an_old_model_the_new_bias_is_an_input_too():
    model = build(LINEAR, ir=3, opset=11, **weights_of(linear()))
    for tensor in model.graph.initializer:
        kind = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(kind)
    found = cut(model, ratio=0.5, round_to=1).document.proto
    assert {t.name for t in found.graph.initializer} < {value.name for value in found.graph.input}
    run(found, samples(labelled=False))


def test_the_share_that_was_asked_for_goes():
    found = cut(cnn(), shape=(3, 8, 8), ratio=0.5, round_to=1)
    assert weights(found.document) == [(8, 3, 3, 3), (24, 8, 3, 3), (24, 4)]
    assert (found.groups, found.removed) == (64, 32)
    onnx.checker.check_model(found.document.proto)


def test_channels_that_are_always_zero_go_first():
    model = cnn()
    kernels = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    bias = onnx.numpy_helper.to_array(model.graph.initializer[1]).copy()
    kernels[[2, 5, 11]], bias[[2, 5, 11]] = 0, 0
    for index, (name, array) in enumerate((("k1", kernels), ("b1", bias))):
        model.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(array, name))
    found = cut(model, shape=(3, 8, 8), ratio=3 / 16, round_to=1, repair="none")
    left = onnx.numpy_helper.to_array(found.document.proto.graph.initializer[0])
    np.testing.assert_array_equal(left, np.delete(kernels, [2, 5, 11], axis=0))


def test_auto_takes_a_multiple_that_it_has_timed():
    found = cut(cnn(16, 70), shape=(3, 8, 8), ratio=0.5)
    expected = {16: [8, 48], 8: [8, 40], 1: [8, 35]}
    assert [one.multiple for one in found.decision.tried] == [16, 8, 1]
    widths = [shape[0] for shape in weights(found.document)[:2]]
    assert widths == expected[found.decision.multiple]


def test_auto_times_nothing_where_there_is_nothing_to_choose():
    assert cut(cnn(16, 64), shape=(3, 8, 8), ratio=0.5).decision.tried == ()


@pytest.mark.parametrize(
    ("times", "taken"),
    [
        ({48: 1.02, 40: 1.0, 35: 1.0}, 16),  # what makes no difference stays
        ({48: 1.04, 40: 1.02, 35: 1.0}, 8),
        ({48: 1.2, 40: 1.1, 35: 1.0}, 1),
        ({48: 1.0, 40: 1.1, 35: 2.0}, 16),
    ],
)
def test_units_stay_whose_loss_brings_no_time(monkeypatch, times, taken):
    def measured(_watch, documents, _stage):
        return [times[weights(document)[1][0]] for document in documents]

    monkeypatch.setattr("onnx_relief.channels.budget.Stopwatch.milliseconds", measured)
    assert cut(cnn(16, 70), shape=(3, 8, 8), ratio=0.5).decision.multiple == taken


@pytest.mark.parametrize(
    ("losses", "taken"),
    [
        ({48: 1.4, 40: 1.2, 35: 1.0}, 16),  # other runtimes may like it
        ({48: 1.6, 40: 1.2, 35: 1.0}, 8),
        ({48: 9.0, 40: 2.0, 35: 1.0}, 1),
    ],
)
def test_a_multiple_that_loses_far_more_gives_way(monkeypatch, losses, taken):
    monkeypatch.setattr(
        "onnx_relief.channels.budget.Stopwatch.milliseconds", lambda _w, docs, _s: [1.0] * len(docs)
    )
    monkeypatch.setattr(
        "onnx_relief.channels.budget.Choice.lost",
        lambda choice, gone: losses[weights(choice.model(gone))[1][0]],
    )
    assert cut(cnn(16, 70), shape=(3, 8, 8), ratio=0.5).decision.multiple == taken


def test_no_multiple_keeps_most_of_what_shall_go(monkeypatch):
    monkeypatch.setattr(
        "onnx_relief.channels.budget.Stopwatch.milliseconds", lambda _w, docs, _s: [1.0] * len(docs)
    )
    finest = cut(cnn(16, 24), shape=(3, 8, 8), ratio=0.3, round_to=1)
    assert 2 * cut(cnn(16, 24), shape=(3, 8, 8), ratio=0.3).removed >= finest.removed > 0


def test_a_multiple_holds_in_every_group_of_a_convolution():
    graph = """(float[N,3,8,8] x) => (float[N,4] y) {
        a = Conv (x, k1)  r = Relu (a)  c = Conv <group = 2> (r, k2)  s = Relu (c)
        g = GlobalAveragePool (s)  f = Flatten (g)  y = Gemm (f, w)
    }"""
    model = build(graph, k1=random(48, 3, 3, 3), k2=random(48, 24, 3, 3), w=random(48, 4), opset=17)
    found = weights(cut(model, shape=(3, 8, 8), ratio=0.5, round_to=8).document)
    assert found == [(32, 3, 3, 3), (32, 16, 3, 3), (32, 4)]


def by_weights(monkeypatch, floor=0.0):
    """Let a run take as long as the model has weights, and at least a share of all."""

    def measured(_watch, documents, _stage):
        sizes = [sum(np.prod(s) for s in weights(document)) for document in documents]
        return [max(size, floor * max(sizes)) for size in sizes]

    monkeypatch.setattr("onnx_relief.channels.budget.Stopwatch.milliseconds", measured)


@pytest.mark.parametrize("target", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("round_to", [1, 8])
def test_a_target_in_time_is_reached_and_hardly_more(monkeypatch, target, round_to):
    by_weights(monkeypatch)
    found = cut(cnn(64, 96), shape=(3, 8, 8), round_to=round_to, target_latency=target)
    assert found.decision.missed is None
    assert target - 0.2 < found.decision.latency <= target
    dense, left = ([np.prod(s) for s in weights(d)] for d in (load(cnn(64, 96)), found.document))
    assert sum(left) / sum(dense) == pytest.approx(found.decision.latency)


def test_a_multiple_that_is_too_coarse_for_a_target_gives_way(monkeypatch):
    by_weights(monkeypatch)  # 16 leaves a layer of 32 half or all of its channels
    alike = {"shape": (3, 8, 8), "scope": "layer"}
    coarse = cut(cnn(32, 32), round_to=16, target_latency=0.6, **alike).decision
    found = cut(cnn(32, 32), target_latency=0.6, **alike).decision
    assert coarse.latency < 0.4 < 0.5 < found.latency <= 0.6
    work = cut(cnn(32, 32), target_params=0.6, **alike).decision
    assert 0.5 < work.left <= 0.6


def test_a_target_in_time_that_no_cut_reaches_gives_the_fastest(monkeypatch):
    by_weights(monkeypatch, floor=0.4)
    found = cut(cnn(), shape=(3, 8, 8), round_to=1, target_latency=0.3)
    assert "measured at 40% of its latency at best, not at 30%" in found.decision.missed
    assert weights(found.document)[0][0] == 1


def test_a_target_in_time_on_this_machine():
    found = cut(cnn(64, 96), shape=(3, 8, 8), target_latency=0.7)
    assert found.decision.missed or found.decision.latency <= 0.7
    assert found.removed > 0


@pytest.mark.parametrize("target", ["target_params", "target_macs"])
def test_a_target_is_reached_and_hardly_more(target):
    found = cut(cnn(), shape=(3, 8, 8), round_to=1, **{target: 0.4})
    dense, left = ([np.prod(s) for s in weights(d)] for d in (load(cnn()), found.document))
    share = sum(left) / sum(dense)
    assert 0.25 < share < 0.5


@pytest.mark.parametrize("target", ["target_params", "target_macs"])
@pytest.mark.parametrize("share", [0.45, 0.5, 0.65, 0.7, 0.85, 0.9])
def test_few_large_channels_do_not_make_a_target_coarse(target, share):
    # One of the five channels takes a fifth of the work, one of the forty a fortieth.
    found = cut(cnn(40, 5), shape=(3, 8, 8), round_to=1, least=2, **{target: share})
    dense, left = (
        [part.view.shape for s in find_layers(d).sites for part in s.parts]
        for d in (load(cnn(40, 5)), found.document)
    )
    assert share - 1 / 39 < found.decision.left <= share
    assert all(min(shape[:2]) >= 2 for shape in left)
    if target == "target_params":
        sizes = [sum(np.prod(shape) for shape in shapes) for shapes in (dense, left)]
        assert sizes[1] / sizes[0] == pytest.approx(found.decision.left)


@pytest.mark.parametrize(("target", "coarser"), [(0.7, True), (0.8, False)])
def test_multiples_that_would_cut_too_much_are_named(tmp_path, capsys, target, coarser):
    model, data = written(tmp_path, cnn(16, 24)), data_file(tmp_path, shape=(3, 8, 8))
    words = f"prune {model} --data {data} --granularity channel --target-macs {target}"
    assert main([*words.split(), "-o", str(tmp_path / "small.onnx")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ("would have cut too much (to 45.4%); --round-to 8 or 16" in said) == coarser


def test_a_target_is_met_in_multiples():
    found = cut(cnn(40, 16), shape=(3, 8, 8), round_to=8, target_params=0.75)
    assert [shape[0] % 8 for shape in weights(found.document)[:2]] == [0, 0]
    assert 0.6 < found.decision.left <= 0.75


def test_a_target_that_no_cut_reaches_gives_the_smallest():
    found = cut(cnn(), shape=(3, 8, 8), round_to=1, target_params=0.001, least=8)
    assert re.search(r"can be cut to .* at most, not to 0\.1%", found.decision.missed)
    less = cut(cnn(), shape=(3, 8, 8), round_to=1, target_params=0.0001, least=8)
    assert "at most, not to 0.01%" in less.decision.missed
    assert weights(found.document) == [(8, 3, 3, 3), (8, 8, 3, 3), (8, 4)]


QUERIES = """(float[N,5,8] x) => (float[N,5,8] y) {
    q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
    t = Transpose <perm = [0, 2, 1]> (k)  s = MatMul (q, t)  p = Softmax (s)
    h = MatMul (p, v)  y = MatMul (h, wo)
}"""


def ranked(model, feed, criterion="obs"):
    document = load(model)
    data = open_data(feed, input_specs(document.proto))
    return rank_channels(
        document, data, Settings(provider="cpu", criterion=criterion), compare=True
    )


@pytest.mark.parametrize("criterion", ["obs", "wanda"])
def test_channels_that_no_layer_reads_are_not_free(criterion):
    shapes = {"wq": (8, 16), "wk": (8, 16), "wv": (8, 16), "wo": (16, 8)}
    weights = {name: random(*shapes[name], seed=n) for n, name in enumerate(shapes)}
    found = ranked(build(QUERIES, **weights), {"x": random(40, 5, 8, seed=9)}, criterion)
    losses = [found.worth.losses[kind] for kind in found.kinds]
    assert len(losses) == 2
    assert all(loss[-1] > 1e-3 and (np.diff(loss) >= 0).all() for loss in losses)
    # To ask nothing leaves attention even: half of its queries can go before that.
    assert found.prune(ChannelSettings(target_params=0.8, round_to=1)).repair.after < 0.5


@pytest.mark.parametrize("criterion", ["obs", "wanda"])
def test_channels_that_a_recurrent_layer_reads_besides(criterion):
    model = build(
        """(float[N,7,8] x) => (float[N,7,4] y, float[1,N,5] h) {
            a = MatMul (x, w1)  r = Relu (a)  y = MatMul (r, w2)
            t = Transpose <perm = [1, 0, 2]> (r)  s, h = LSTM <hidden_size = 5> (t, wl, rl)
        }""",
        w1=random(8, 12, seed=1),
        w2=random(12, 4, seed=2),
        wl=random(1, 20, 12, seed=3),
        rl=random(1, 20, 5, seed=4),
    )
    found = ranked(model, {"x": random(40, 7, 8, seed=9)}, criterion)
    assert found.prune(ChannelSettings(ratio=0.5, scope="global", round_to=1)).removed == 6


def test_a_missing_bias_is_worth_as_much_as_one_of_zeros():
    graph = """(float[N,3,8,8] x) => (float[N,4] y) {{
        a = Conv <pads = [1, 1, 1, 1]> (x, k1, b1)  r = Relu (a)  c = Conv (r, k2{}) s = Relu (c)
        g = GlobalAveragePool (s)  f = Flatten (g)  y = MatMul (f, w)
    }}"""
    shapes = {"k1": (16, 3, 3, 3), "b1": (16,), "k2": (16, 16, 3, 3), "w": (16, 4)}
    weights = {name: random(*shapes[name], seed=n) for n, name in enumerate(shapes)}
    weights["b1"] = np.abs(weights["b1"])
    feed = {"x": random(60, 3, 8, 8, seed=9)}
    zero = ranked(build(graph.format(", z"), **weights, z=np.zeros(16, np.float32)), feed)
    none = ranked(build(graph.format(""), **weights), feed)
    for one, other in zip(zero.kinds, none.kinds, strict=True):
        np.testing.assert_allclose(zero.worth.losses[one], none.worth.losses[other], rtol=1e-4)


def test_a_model_without_channels():
    with pytest.raises(UnsupportedError, match="no channels that could go"):
        cut(build("(float[N,6] x) => (float[N,3] y) { y = MatMul (x, w) }", w=random(6, 3)))


def test_patterns_that_leave_no_channels_are_named():
    """A channel runs through the layer that makes it and the one that reads it."""
    document = load(linear())
    data = opened(linear(), samples(shape=(6,), labelled=False))
    settings = Settings(provider="cpu", only=("g",))
    with pytest.raises(UnsupportedError, match="through layers that --only or --skip leaves alone"):
        prune_channels(document, data, settings, ChannelSettings())
    found = prune_channels(
        document, data, Settings(provider="cpu", only=("g", "h")), ChannelSettings(round_to=1)
    )
    assert weights(found.document) == [(6, 28), (28, 40), (40, 3)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ratio": 1.0}, "--ratio is a share between"),
        ({"scope": "all"}, "--scope 'all' does not exist"),
        ({"repair": "all"}, "--repair 'all' does not exist"),
        ({"round_to": 0}, "--round-to must be"),
        ({"least": 0}, "--min-units must be"),
        ({"target_macs": 2.0}, "--target-macs is a share"),
        ({"target_macs": 0.5, "target_params": 0.5}, "--target-params and --target-macs say how"),
        ({"ratio": 0.5, "target_latency": 0.5}, "--ratio and --target-latency say how"),
        ({"target_latency": 0.0}, "--target-latency is a share"),
        ({"latency_batch": 0}, "--latency-batch must be"),
    ],
)
def test_settings_that_make_no_sense(wrong, said):
    with pytest.raises(SettingsError, match=said):
        ChannelSettings(**wrong)


def test_the_command_writes_a_smaller_model(tmp_path, capsys):
    model = written(tmp_path, cnn())
    data, out = data_file(tmp_path, shape=(3, 8, 8)), tmp_path / "small.onnx"
    flags = f"--granularity channel --ratio .5 --round-to 1 --json -o {out}"
    assert main(f"prune {model} --data {data} {flags}".split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["removed"] == 32
    assert told["comparison"]["second"]["name"] == str(out)
    assert out.stat().st_size < 0.5 * model.stat().st_size
    run(onnx.load(out), {"x": samples(shape=(3, 8, 8))["x"]})


@pytest.mark.parametrize("repair", ["none", "least-squares"])
def test_a_model_with_a_data_file_becomes_one_file_where_some_weights_stay(tmp_path, repair):
    """A data file would be saved whole, beside all that was cut out of it."""
    model, out = tmp_path / "model.onnx", tmp_path / "small.onnx"
    onnx.save_model(
        linear(), model, save_as_external_data=True, location="model.bin", size_threshold=0
    )
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    data = data_file(tmp_path, shape=(6,))
    flags = f"--granularity channel --ratio .2 --round-to 1 --skip m --repair {repair} -q -o {out}"
    assert main(f"prune {model} --data {data} {flags}".split()) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.onnx", "model.bin", data.name, "small.onnx"}
    assert out.stat().st_size < before
    assert weights_of(out)["w2"].shape == (32, 40)
    np.testing.assert_array_equal(weights_of(out)["b3"], weights_of(model)["b3"])


def test_what_stops_while_models_are_compared_leaves_nothing(tmp_path, capsys, monkeypatch):
    model, data = written(tmp_path, cnn()), data_file(tmp_path, shape=(3, 8, 8))
    before = sorted(tmp_path.iterdir())

    def refuse(*_given, **_named):
        raise DataError("the data is gone")

    monkeypatch.setattr("onnx_relief.commands.channels.compare", refuse)
    words = f"prune {model} --data {data} --granularity channel --ratio .5 --round-to 1"
    outputs = f"-o {tmp_path / 'out.onnx'} --report {tmp_path / 'told.json'}"
    assert main(f"{words} {outputs}".split()) == 4
    assert "the data is gone" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_what_nobody_reads_is_not_made(tmp_path, capsys, monkeypatch):
    model, data = written(tmp_path, cnn()), data_file(tmp_path, shape=(3, 8, 8))
    words = f"prune {model} --data {data} --granularity channel --ratio .5 --round-to 1"
    told, report = tmp_path / "told.onnx", tmp_path / "report.json"
    assert main(f"{words} -q --report {report} -o {told}".split()) == 0
    assert json.loads(report.read_text())["removed"] == 32

    def never(*_given, **_named):
        raise AssertionError

    monkeypatch.setattr("onnx_relief.commands.channels.compare", never)
    silent = tmp_path / "silent.onnx"
    assert main(f"{words} -q -o {silent}".split()) == 0
    assert silent.read_bytes() == told.read_bytes()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ("--ratio 2", 2, "--ratio is a share between 0 and 1"),
        ("--ratio .5 --target-macs .5", 2, "not both"),
        ("--round-to some", 2, "--round-to 'some' is no number"),
        ("--save-plan plan.json", 2, "--save-plan does not go with --granularity channel"),
        ("--target-latency .5 --target-macs .5", 2, "give one of them, not both"),
        ("--target-latency fast", 2, "--target-latency 'fast' is no share"),
        ("--target-latency 150%", 2, "--target-latency is a share between 0 and 1, got 1.5"),
        ("--skip nothing", 2, "matches no layer"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, flags, code, said):
    model, data = written(tmp_path, cnn()), data_file(tmp_path, shape=(3, 8, 8))
    out = tmp_path / "small.onnx"
    words = f"prune {model} --data {data} --granularity channel -o {out} {flags}"
    assert main(words.split()) == code
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_the_best_is_written_where_a_target_is_not_reached(tmp_path, capsys):
    model, data = written(tmp_path, cnn()), data_file(tmp_path, shape=(3, 8, 8))
    out = tmp_path / "small.onnx"
    flags = "--target-params .001 --min-units 8 --round-to 1"
    words = f"prune {model} --data {data} --granularity channel -o {out} {flags}"
    assert main(words.split()) == 6
    found = capsys.readouterr()
    assert "at most, not to 0.1%" in found.err
    assert re.search(r"\d\.\d{3}% of the weights of all layers are left", found.out)
    assert weights(load(out)) == [(8, 3, 3, 3), (8, 8, 3, 3), (8, 4)]


@pytest.mark.parametrize("target", ["target_macs", "target_params"])
def test_channels_that_a_target_does_not_count_stay(target):
    graph = """(float[N,6] x) => (float[N,5] y) {
        h = MatMul (x, w0)  n = LayerNormalization (h, scale)
        a = Einsum <equation = "nd,dh->hn"> (n, w1)  r = Relu (a)
        b = Einsum <equation = "hn,hd->nd"> (r, w2)  s = Add (b, n)  y = Softmax (s)
    }"""  # what comes first is no layer's
    values = {"scale": random(5), "w1": random(5, 8, seed=1), "w2": random(8, 5, seed=2)}
    model = build(graph, w0=random(6, 5), **values)
    assert cut(model, ratio=0.5, round_to=1).removed == 4
    found = cut(model, round_to=1, **{target: 0.7})
    assert found.removed == 0
    assert "can be cut to 100% at most" in found.decision.missed


def test_a_weight_that_layers_share_works_in_each():
    graph = """(float[N,6] x) => (float[N,3] y) {
        a = MatMul (x, w1)  b = Relu (a)  c = MatMul (b, w2)  d = Relu (c)
        e = MatMul (d, w2)  y = MatMul (e, w3)
    }"""
    model = build(graph, w1=random(6, 9), w2=random(9, 9), w3=random(9, 3))
    found = ranked(model, samples(labelled=False))
    kinds = (found.survey, found.trace, found.groups, found.kinds)
    (work,) = group_prices(*kinds, found.positions).values()
    (weights,) = group_prices(*kinds, None).values()
    assert work > weights
    assert work - weights == pytest.approx(2 * 9)


def test_what_no_multiple_reaches_is_cut_as_far_as_the_finest_goes():
    auto = cut(cnn(64, 96), shape=(3, 8, 8), target_macs=1e-5)
    finest = cut(cnn(64, 96), shape=(3, 8, 8), target_macs=1e-5, round_to=1)
    assert auto.decision.missed is not None
    assert auto.decision.left == finest.decision.left


def test_latency_is_told_with_the_batch_that_it_was_measured_with(tmp_path, capsys):
    model, data = written(tmp_path, cnn()), data_file(tmp_path, count=3, shape=(3, 8, 8))
    words = f"prune {model} --data {data} --granularity channel -o {tmp_path / 'out.onnx'}"
    assert main(f"{words} --target-latency 0.9x --latency-batch 32".split()) in (0, 6)
    told = " ".join(capsys.readouterr().out.split())
    assert "batch 3, one thread" in told
    assert "batch 32" not in told


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_channels_of_a_branch_that_is_never_taken_stay(scope):
    branch = """() => (float[N,4] {n}) {{
        {n}a = MatMul (x, {n}1)  {n}b = Relu ({n}a)  {n}c = MatMul ({n}b, {n}2)
        {n}d = Relu ({n}c)  {n} = MatMul ({n}d, {n}3)
    }}"""
    text = f"""(float[N,6] x, bool c) => (float[N,4] y) {{
        y = If (c) <then_branch = one {branch.format(n="t")},
                    else_branch = two {branch.format(n="e")}>
    }}"""
    shapes = ((6, 20), (20, 24), (24, 4))
    made = {f"{n}{i}": random(*s, seed=i) for n in "te" for i, s in enumerate(shapes, 1)}
    document = load(build(text, **made))
    feeds = [{"x": x[None], "c": np.array(True)} for x in random(20, 6, seed=9)]
    data = open_data(feeds, input_specs(document.proto))
    chosen = ChannelSettings(ratio=0.5, scope=scope, round_to=1)
    found = prune_channels(document, data, Settings(provider="cpu"), chosen)
    sizes = weights_of(found.document.proto)
    assert all(sizes[f"e{i}"].shape == shape for i, shape in enumerate(shapes, 1))
    assert sizes["t2"].size < 20 * 24
    assert any("never run on this data" in why for why in found.unseen)


def test_only_the_samples_that_were_asked_for_are_compared(tmp_path, capsys):
    model, data = written(tmp_path, cnn()), data_file(tmp_path, shape=(3, 8, 8))
    flags = f"--granularity channel --ratio .5 --json -o {tmp_path / 'out.onnx'}"
    assert main(f"prune {model} --data {data} --samples 8 {flags}".split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comparison"]["evaluation"]["samples"] == 8


@pytest.mark.parametrize(("heads", "idle"), [(False, [1, 3]), (True, [0]), (True, [1])])
def test_of_axes_that_an_einsum_joins_those_go_whose_weights_are_idle(heads, idle):
    """Values of two heads of four, which one Einsum reads along both axes."""
    values, out = random(6, 2, 4, seed=1), random(2, 4, 6, seed=2)
    out[(idle,) if heads else (slice(None), idle)] *= 1e-3
    graph = """(float[N,5,6] x) => (float[N,5,6] y) {
        v = Einsum <equation = "bld,dhk->blhk"> (x, w)  r = Relu (v)
        o = Einsum <equation = "blhk,hkd->bld"> (r, u)  y = Add (o, b)
    }"""
    model = build(graph, w=values, u=out, b=random(6, seed=3))
    found = cut(model, shape=(5, 6), ratio=0.5, round_to=1, heads=heads)
    left = {t.name: onnx.numpy_helper.to_array(t) for t in found.document.proto.graph.initializer}
    stay = np.delete(values, idle, axis=1 if heads else 2)
    np.testing.assert_array_equal(left["w"], stay)


@pytest.mark.parametrize("idle", [[0, 1, 2], [1, 3, 4], [3, 4, 5]])
@pytest.mark.parametrize("of", ["queries", "keys"])
def test_of_queries_and_keys_those_go_that_say_least_together(of, idle):
    """No layer reads them. What is large of the ones may meet next to nothing of the others."""
    queries, keys = random(8, 6, seed=1), random(8, 6, seed=2)
    (queries if of == "queries" else keys)[:, idle] *= 0.01
    (keys if of == "queries" else queries)[:, idle] *= 10
    graph = """(float[N,5,8] x) => (float[N,5,8] y) {
        q = MatMul (x, wq)  k = MatMul (x, wk)  t = Transpose <perm = [0, 2, 1]> (k)
        s = MatMul (q, t)  p = Softmax (s)  y = MatMul (p, x)
    }"""
    found = cut(build(graph, wq=queries, wk=keys), shape=(5, 8), ratio=0.5, round_to=1)
    left = {t.name: onnx.numpy_helper.to_array(t) for t in found.document.proto.graph.initializer}
    np.testing.assert_array_equal(left["wq"], np.delete(queries, idle, axis=1))
    np.testing.assert_array_equal(left["wk"], np.delete(keys, idle, axis=1))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (
            'w = Reshape (v, to)  h = Einsum <equation = "bti,ihk->bthk"> (x, w)',
            "'w' is reshaped by",
        ),
        ("h = MatMul (x, u)", "MatMul has a batched or flat weight"),
    ],
)
def test_where_no_layer_makes_channels_that_is_why_none_can_go(layer, why):
    text = f"(float[N,2,6] x) => (float y) {{ {layer}  r = Relu (h)  y = ReduceSum (r, axes) }}"
    values = {"v": random(6, 8), "to": np.array([6, 2, 4]), "u": random(2, 6, 5)}
    with pytest.raises(UnsupportedError, match=re.escape(f"no channels that could go ({why}")):
        cut(build(text, axes=np.array([1, 2]), **values), shape=(2, 6), ratio=0.5)
