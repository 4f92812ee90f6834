"""A repair that does harm is undone and said; samples that judge take no part in it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from classifier import cnn, data_file, samples, written
from text_models import build, differences, random, run

import onnx_relief
from onnx_relief.cli import main
from onnx_relief.data import open_data
from onnx_relief.data.held_out import held_out
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.walk import TensorHome
from onnx_relief.repair import KINDS, Guard, kinds, repair

SHAPE = (2, 8, 8)


def data(count=40):
    arrays = samples(count, SHAPE, labelled=False)
    return open_data(arrays, input_specs(load(cnn()).proto))


def masked():
    model = cnn()
    kernels = random(4, 2, 3, 3, seed=1)
    kernels[:, 1, ::2] = 0
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(kernels, "k"))
    return model


def with_bias_of(value):
    """Return a way of repair that sets a bias, for better or for worse."""

    def way(work):
        values = {TensorHome("", "b"): np.full(4, value, np.float32)}
        return write_constants(work.pruned, values), ("it was tried",)

    return way


def repaired(kind, count=40):
    return repair(
        kind, load(masked()), load(cnn()), {}, held_out(data(count)), batch_size=16, provider="cpu"
    )


def test_a_repair_that_does_harm_is_undone(monkeypatch):
    monkeypatch.setitem(KINDS, "bias", with_bias_of(9.0))
    found = repaired("bias")
    assert found.undone
    assert found.after > found.before > 0
    assert differences(found.document.proto, masked()) == []
    assert "undone with it: it was tried" in found.notes


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_repair_that_gives_no_numbers_is_undone(monkeypatch, value):
    monkeypatch.setitem(KINDS, "bias", with_bias_of(value))
    found = repaired("bias")
    assert found.undone
    assert found.after == np.inf


def judged_logs(monkeypatch, before, after):
    """Return how a repair is judged that changes what a logarithm is taken of."""
    text = "(float[N,3] x) => (float[N,3] y) { z = Mul (x, b)  y = Log (z) }"
    arrays = {"x": 1 + np.random.default_rng(0).random((40, 3)).astype(np.float32)}
    dense, pruned = (load(build(text, b=np.float32(scale))) for scale in ([1, 1, 1], before))
    values = {TensorHome("", "b"): np.float32(after)}
    monkeypatch.setitem(KINDS, "bias", lambda work: (write_constants(work.pruned, values), ()))
    split = held_out(open_data(arrays, input_specs(dense.proto)))
    found = repair("bias", pruned, dense, {}, split, batch_size=3, provider="cpu")
    return found, np.log(arrays["x"][split.judge.rows])


@pytest.mark.parametrize("scale", [0.9, 0.1])
def test_models_that_both_give_no_numbers_are_judged_where_all_do(monkeypatch, scale):
    found, logs = judged_logs(monkeypatch, [-1, 0.5, 1], [-2, scale, 1])
    size = np.square(logs[:, 1:]).sum() / len(logs)
    assert found.before == pytest.approx(np.log(0.5) ** 2 / size, rel=1e-4)
    assert found.after == pytest.approx(np.log(scale) ** 2 / size, rel=1e-4)
    assert found.undone == (scale < 0.5)
    assert found.notes == (
        "NaN or infinity stands for 8 of the dense model's numbers in the pruned model and for 8 "
        "in the repaired one; there nothing is compared",
    )


def test_a_repair_after_which_more_are_no_numbers_is_undone(monkeypatch):
    found, _ = judged_logs(monkeypatch, [-1, 0.5, 1], [-1, -1, 1])
    assert found.undone
    assert found.after == np.inf


def test_models_that_give_no_numbers_at_all_are_not_judged(monkeypatch):
    found, _ = judged_logs(monkeypatch, [-1, -1, -1], [-2, -1, -1])
    assert (found.before, found.after, found.undone) == (None, None, False)
    assert found.notes == ("no output of the model can be compared, so the repair is not judged",)


def test_training_starts_without_least_squares_that_did_harm(monkeypatch):
    pytest.importorskip("onnx2fx")
    monkeypatch.setattr(kinds, "_least_squares", with_bias_of(9.0))
    found = repaired("reconstruct")
    assert "least squares made the outputs worse, so training starts without it" in found.notes
    assert not found.undone
    assert found.after < found.before


@pytest.mark.parametrize("kind", ["bias", "least-squares"])
def test_a_repair_that_does_good_is_kept(kind):
    found = repaired(kind)
    assert not found.undone
    assert found.after < found.before
    judge = Guard(load(cnn()), data(), batch_size=16, provider="cpu")
    assert judge.error(found.document) < judge.error(load(masked()))


def test_without_repair_nothing_is_run_or_changed():
    found = repaired("none")
    assert (found.before, found.after, found.undone) == (None, None, False)
    assert differences(found.document.proto, masked()) == []


def test_too_few_samples_judge_themselves_and_that_is_said():
    assert "fewer than 8 samples" in repaired("bias", 7).notes[0]
    assert not any("fewer than" in note for note in repaired("bias", 8).notes)


def test_bias_says_what_it_repaired_and_what_not():
    assert repaired("bias").notes == (
        "the units of 1 layer have their mean and variance again",
        "1 layer is not repaired: it has no bias of its own, and no room for one",
    )


@pytest.mark.parametrize("count", [8, 40, 1001])
def test_samples_that_judge_take_no_part(count):
    split = held_out(data(count))
    both = np.concatenate([split.work.rows, split.judge.rows])
    np.testing.assert_array_equal(np.sort(both), np.arange(count))
    assert len(split.judge.rows) == min(max(2, round(0.2 * count)), 100)
    assert (np.diff(split.judge.rows) > 0).all()


def test_an_unknown_kind_is_refused_with_those_that_exist():
    with pytest.raises(SettingsError, match="--repair 'magic' does not exist; choose one of none"):
        repaired("magic")


def test_the_error_is_that_of_numpy_on_all_outputs():
    graph = "(float[N,3] x) => (float[N,3] y, float[N,2] z, int64[N] i) {"
    graph += " y = Mul (x, a)  z = MatMul (x, w)  i = ArgMax <axis = 1, keepdims = 0> (x) }"
    dense, other = (build(graph, a=random(3), w=random(3, 2, seed=s)) for s in (1, 2))
    arrays = samples(30, (3,), labelled=False)
    judged = open_data(arrays, input_specs(load(dense).proto))
    found = Guard(load(dense), judged, batch_size=7, provider="cpu").error(load(other))
    z, now = run(dense, arrays)[1], run(other, arrays)[1]
    assert found == pytest.approx(np.square(now - z).sum() / np.square(z).sum() / 2, rel=1e-5)


def test_outputs_that_are_no_real_numbers_cannot_be_judged():
    graph = "(float[N,3] x) => (int64[N] y) { y = ArgMax <axis = 1, keepdims = 0> (x) }"
    model = load(build(graph))
    judged = open_data(samples(9, (3,), labelled=False), input_specs(model.proto))
    assert Guard(model, judged, batch_size=3, provider="cpu").error(model) is None


def test_prune_repairs_and_reports(tmp_path, capsys):
    model, path = written(tmp_path, cnn()), data_file(tmp_path, shape=SHAPE)
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    line = [*f"prune {model} --data {path} --alpha .6 -o {out}".split(), "--provider", "cpu"]
    assert main([*line, "--repair", "least-squares", "--report", str(report)]) == 0
    told = json.loads(report.read_text())["repair"]
    assert told["kind"] == "least-squares"
    assert told["after"] <= told["before"]
    assert "repair by least-squares takes" in " ".join(capsys.readouterr().out.split())
    assert main([*line, "--force", "--report", str(report), "--force"]) == 0
    assert json.loads(report.read_text())["repair"] is None


def test_a_replayed_plan_is_repaired_where_there_is_data(tmp_path, capsys):
    model, path = written(tmp_path, cnn()), data_file(tmp_path, shape=SHAPE)
    plan, out = tmp_path / "plan.json", tmp_path / "out.onnx"
    rest = ["--provider", "cpu", "--repair", "least-squares", "-o", str(out)]
    first = f"prune {model} --data {path} --alpha .6 --save-plan {plan}"
    assert main([*first.split(), *rest]) == 0
    bytes_before = out.read_bytes()
    assert main([*f"prune {model} --plan {plan} --data {path} --force".split(), *rest]) == 0
    assert out.read_bytes() == bytes_before
    capsys.readouterr()
    assert main([*f"prune {model} --plan {plan} --force".split(), *rest]) != 0
    assert "--repair least-squares needs sample data" in capsys.readouterr().err


def test_cut_channels_are_repaired_and_told(tmp_path, capsys):
    model, path = written(tmp_path, cnn()), data_file(tmp_path, shape=SHAPE)
    line = f"prune {model} --data {path} --granularity channel --ratio .5 --round-to 1 --json"
    rest = ["--repair", "least-squares", "-o", str(tmp_path / "out.onnx")]
    assert main([*line.split(), *rest]) == 0
    told = json.loads(capsys.readouterr().out)["repair"]
    assert told["kind"] == "least-squares"
    assert told["undone"] == (told["after"] > told["before"])


@pytest.mark.parametrize("how", [("magnitude", "bias"), ("obs", "least-squares")])
def test_units_of_signals_do_not_matter(how):
    graph = "(float[N,6] x) => (float[N,3] y) { h = Gemm (x, v, b)  r = Relu (h)"
    graph += "  y = Gemm (r, w, c) }"
    criterion, repair = how
    told = []
    for volts in (1.0, 2.0**-24):
        parts = {"v": random(6, 9), "b": random(9, seed=1) * np.float32(volts)}
        parts |= {"w": random(9, 3, seed=2) / np.float32(volts), "c": random(3, seed=3)}
        x = samples(60, (6,), labelled=False)["x"] * np.float32(volts)
        found = onnx_relief.prune(
            build(graph, **parts), x, sparsity=0.6, criterion=criterion, repair=repair
        ).report.repair
        told.append((found.before, found.after, found.undone))
    assert told[0] == pytest.approx(told[1], rel=1e-3)
    assert told[0][1] < told[0][0]


def test_models_that_draw_random_numbers_are_judged_on_the_same_ones():
    graph = """(float[N,6] x) => (float[N,4] y) {
        h = MatMul (x, w)  z = RandomNormalLike (h)  y = Add (h, z) }"""
    dense, other = (load(build(graph, w=random(6, 4) * scale)) for scale in (1, 1.001))
    opened = open_data({"x": random(300, 6, seed=1)}, input_specs(dense.proto))
    guard = Guard(dense, opened, batch_size=64, provider="cpu")
    for _ in range(2):
        assert guard.error(dense) == 0
        assert guard.error(other) < 1e-5
