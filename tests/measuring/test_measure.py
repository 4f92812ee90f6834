"""Laws of measuring: what a layer is said to have seen depends on the samples alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from reference import convolution_signals, kernels_by_unit, seen_by_taps, shares
from scored import assert_scores, measured, model_of, one_layer, scores_of

from onnx_relief import structures
from onnx_relief.activity.record import Record
from onnx_relief.data.batch import Batch, whole_dataset
from onnx_relief.errors import DataError, ModelError, OutputError
from onnx_relief.graph.document import load
from onnx_relief.graph.instrument import instrument
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.probes import probes_for
from onnx_relief.measuring.digest import digest, finish, merged
from onnx_relief.measuring.measure import _kernel_banks, full_batches, measure
from onnx_relief.runtime import open_session
from onnx_relief.settings import Estimator, Settings

RNG = np.random.default_rng(3)
SAMPLES = RNG.standard_normal((6, 2, 5, 4)).astype(np.float32)


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def net() -> Any:
    """Return a small net with every kind of statistics in it."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="gram", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="kernels", group=12, pads=[1] * 4),
        helper.make_node("Conv", ["c", "w3"], ["d"], name="taps", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], name="features"),
    ]
    weights = {"w1": numbers(12, 2, 3, 3), "b1": numbers(12), "w2": numbers(12, 1, 3, 3)}
    weights |= {"w3": numbers(3, 12, 1, 1), "w4": numbers(3, 5), "b4": numbers(5)}
    return model_of(nodes, weights, {"x": SAMPLES}, ["y"])


NET = net()
SETTINGS = [
    {"estimator": estimator, "structure": structure}
    for estimator in Estimator
    for structure in (structures.KERNEL, structures.WEIGHT)
]
each_setting = pytest.mark.parametrize(
    "said", SETTINGS, ids=lambda s: f"{s['estimator'].value} {s['structure']}"
)


def assert_same(one: Any, other: Any, rtol: float) -> None:
    """Compare two measurements, layer by layer."""
    assert one.samples == other.samples
    assert one.activities.keys() == other.activities.keys()
    for name, activity in one.activities.items():
        twin = other.activities[name]
        assert activity.bias_gain == pytest.approx(twin.bias_gain, rel=rtol)
        assert activity.positions == pytest.approx(twin.positions, rel=rtol)
        for mine, its in zip(activity.signals, twin.signals, strict=True):
            np.testing.assert_allclose(mine.measured, its.measured, rtol=rtol, atol=0)
            np.testing.assert_array_equal(mine.reads > 0, its.reads > 0)


@each_setting
@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5)))
def test_neither_batches_nor_their_order_matter(
    said: Any, order: list[int], cuts: set[int]
) -> None:
    whole = measured(NET, {"x": SAMPLES}, **said)
    parts = np.split(SAMPLES[order], sorted(cuts))
    assert_same(measured(NET, *({"x": part} for part in parts), **said), whole, rtol=1e-5)


def record_of(survey: Any, plan: Any, *feeds: Any) -> Record:
    """Return the record of some feeds, the way `measure` makes it."""
    made = instrument(survey, plan, _kernel_banks(survey, plan))
    session, sites = open_session(made.proto), {site.layer.name: site for site in survey.sites}
    record = Record()
    for feed in feeds:
        record = merged(record, digest(survey, sites, plan, made, session.run(feed)))
    return record


@each_setting
def test_two_halves_merged_are_the_whole(said: Any) -> None:
    survey = find_layers(load(NET))
    plan = {s.layer.name: probes_for(s, **said) for s in survey.sites}
    feeds = [{"x": part} for part in np.split(SAMPLES, 3)]
    first, rest = record_of(survey, plan, feeds[0]), record_of(survey, plan, *feeds[1:])
    both, whole = first.merge(rest), record_of(survey, plan, *feeds)
    for site in survey.sites:
        mine, its = (
            finish(survey, site, plan[site.layer.name], record, 6, Settings(**said))
            for record in (both, whole)
        )
        for one, other in zip(mine.signals, its.signals, strict=True):
            np.testing.assert_allclose(one.measured, other.measured, rtol=1e-14, atol=0)


# --- maps of several sizes -----------------------------------------------------------------------

WEIGHT, BIAS = numbers(12, 2, 3, 3), numbers(12)
SMALL, LARGE = numbers(2, 2, 4, 6), numbers(1, 2, 7, 5)
CONVOLUTION = one_layer(
    "Conv", ["x", "w", "b"], {"w": WEIGHT, "b": BIAS}, {"x": SMALL}, pads=[1] * 4, strides=[2, 1]
)


@pytest.mark.parametrize("structure", [structures.KERNEL, structures.WEIGHT], ids=str)
def test_paper_takes_maps_of_several_sizes(structure: structures.Structure) -> None:
    said = {"pads": (1,) * 4, "strides": (2, 1)}
    kernels = kernels_by_unit(WEIGHT, 1, transposed=False)
    signals, roots = 0, 0
    for x in (SMALL, LARGE):
        seen = seen_by_taps(x, (3, 3), said, transposed=False)
        weights = structure == structures.WEIGHT
        signals += len(x) * convolution_signals(seen, kernels, 1, mean_map=False, weights=weights)
        roots += len(x) * np.sqrt(seen.shape[-1])
    bias = np.abs(BIAS.astype(float))[:, None] * roots / 3
    scores = scores_of(CONVOLUTION, {"x": SMALL}, {"x": LARGE}, structure=structure)["layer"]
    assert_scores(scores, *shares(signals / 3, bias), rtol=1e-5, atol=0)


@pytest.mark.parametrize("other", [(7, 5), (4, 1), (1, 1)])
def test_mean_map_refuses_maps_of_several_sizes(other: tuple[int, int]) -> None:
    feeds = {"x": SMALL}, {"x": numbers(1, 2, *other)}
    with pytest.raises(
        DataError, match=r"maps of one size, and 'x' has .*\(4, 6\).*--estimator paper"
    ):
        measured(CONVOLUTION, *feeds, estimator=Estimator.MEAN_MAP)


# --- folding, scales -----------------------------------------------------------------------------


def test_folding_a_batch_normalization_changes_no_score() -> None:
    weight, gamma = numbers(12, 2, 3, 3), numbers(12)
    beta, mean, var = numbers(12), numbers(12), RNG.random(12).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="layer"),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["y"]),
    ]
    constants = {"w": weight, "gamma": gamma, "beta": beta, "mean": mean, "var": var}
    apart = model_of(nodes, constants, {"x": SAMPLES}, ["y"])
    factor = gamma / np.sqrt(var + 1e-5)
    folded = one_layer(
        "Conv", ["x", "w"], {"w": weight * factor[:, None, None, None]}, {"x": SAMPLES}
    )
    one, other = (scores_of(model, {"x": SAMPLES})["layer"] for model in (apart, folded))
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-5, atol=0)


@each_setting
@pytest.mark.parametrize("units", [2, 12])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_weights_changes_no_score(said: Any, units: int, scale: float) -> None:
    weight = RNG.random((units, 2, 3, 3)).astype(np.float32) + 0.5
    one, other = (
        scores_of(one_layer("Conv", ["x", "w"], {"w": w}, {"x": SAMPLES}), {"x": SAMPLES}, **said)
        for w in (weight, (weight * scale).astype(np.float32))
    )
    np.testing.assert_allclose(one["layer"].weights, other["layer"].weights, rtol=1e-5, atol=0)


def test_an_input_channel_of_zeros_has_no_score_and_is_not_read() -> None:
    x = SAMPLES.copy()
    x[:, 1] = 0
    for units in (2, 12):
        model = one_layer("Conv", ["x", "w"], {"w": numbers(units, 2, 3, 3)}, {"x": x})
        assert not scores_of(model, {"x": x})["layer"].weights[0][:, 1].any()
        (signal,) = measured(model, {"x": x}).activities["layer"].signals
        assert (signal.reads > 0).tolist() == [True, False]


# --- NaN, nothing, errors ------------------------------------------------------------------------

TWO = [
    helper.make_node("MatMul", ["x", "v"], ["a"], name="first"),
    helper.make_node("Gemm", ["a", "w", "b"], ["y"], name="second"),
]
WEIGHTS = {"v": numbers(3, 2), "w": numbers(2, 4), "b": numbers(4)}
ROWS = numbers(5, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_data_that_is_no_number_is_refused_and_the_layer_named(bad: float) -> None:
    x = ROWS.copy()
    x[2, 1] = bad
    with pytest.raises(DataError, match="the input of layer 'first' is NaN or infinite"):
        measured(model_of(TWO, WEIGHTS, {"x": x}, ["y"]), {"x": ROWS}, {"x": x})


@each_setting
@pytest.mark.parametrize("units", [2, 12])
@pytest.mark.parametrize("kernel", [1, 2])
def test_maps_that_are_no_numbers_are_refused(said: Any, units: int, kernel: int) -> None:
    x = SAMPLES.copy()
    x[-1, 1, 2, 2] = np.nan
    weight = numbers(units, 2, kernel, kernel)
    with pytest.raises(DataError, match="the input of layer 'layer' is NaN or infinite"):
        measured(one_layer("Conv", ["x", "w"], {"w": weight}, {"x": x}), {"x": x}, **said)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("name", "layer"), [("v", "first"), ("w", "second"), ("b", "second")])
def test_weights_that_are_no_numbers_are_refused_and_their_layer_named(
    bad: float, name: str, layer: str
) -> None:
    weights = {key: value.copy() for key, value in WEIGHTS.items()}
    weights[name].flat[1] = bad
    with pytest.raises(
        DataError, match=f"'{name}' of layer '{layer}' holds NaN or infinity.*--skip"
    ):
        measured(model_of(TWO, weights, {"x": ROWS}, ["y"]), {"x": ROWS})


def test_no_data_is_refused() -> None:
    with pytest.raises(DataError, match="no complete batch; give more samples"):
        measured(model_of(TWO, WEIGHTS, {"x": ROWS}, ["y"]))


def test_a_model_that_does_not_run_says_so_in_one_sentence() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["a"]), *TWO[1:]]
    constants = WEIGHTS | {"shape": np.array([7, 2])}
    with pytest.raises(ModelError, match=r"^ONNX Runtime cannot run the model: [^\n]*$"):
        measured(model_of(nodes, constants, {"x": ROWS}, ["y"]), {"x": ROWS})


def test_a_model_that_the_runtime_does_not_know_says_so_in_one_sentence() -> None:
    model = model_of(TWO, WEIGHTS, {"x": ROWS}, ["y"])
    model.graph.node[0].CopyFrom(helper.make_node("Strange", ["x"], ["a"], domain="nobody"))
    model.opset_import.add(domain="nobody", version=1)
    with pytest.raises(ModelError, match=r"^ONNX Runtime refuses the model: [^\n]*nobody[^\n]*$"):
        measured(model, {"x": ROWS})


# --- the rest ------------------------------------------------------------------------------------


def survey_and_batches(*parts: Any) -> tuple[Any, Iterable[Batch]]:
    survey = find_layers(load(model_of(TWO, WEIGHTS, {"x": ROWS}, ["y"])))
    return survey, [Batch(feed={"x": part}, labels=None, count=len(part)) for part in parts]


def test_progress_is_told_in_samples() -> None:
    survey, batches = survey_and_batches(ROWS, ROWS[:2])
    ticks: list[int] = []
    found = measure(survey, survey.sites, batches, Settings(), tick=ticks.append)
    assert ticks == [5, 2]
    assert found.samples == 7


def test_positions_are_counted_per_sample() -> None:
    tokens = numbers(4, 7, 3)
    model = one_layer("MatMul", ["x", "w"], {"w": WEIGHTS["v"]}, {"x": tokens})
    assert measured(model, {"x": tokens}).activities["layer"].positions == 7
    found = measured(NET, {"x": SAMPLES[:2]}, {"x": SAMPLES[2:]}).activities
    assert [activity.positions for activity in found.values()] == [20, 20, 6, 1]


def test_a_transposed_convolution_applies_its_weights_at_every_input() -> None:
    x, weight = numbers(2, 1, 4, 5), numbers(1, 1, 3, 3)
    model = one_layer("ConvTranspose", ["x", "w"], {"w": weight}, {"x": x}, strides=[2, 2])
    assert measured(model, {"x": x}).activities["layer"].positions == 20


def test_dumps_hold_what_the_layers_read(tmp_path: Path) -> None:
    survey, batches = survey_and_batches(ROWS[:3], ROWS[3:])
    measure(survey, survey.sites, batches, Settings(), dump=tmp_path)
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.npy"))
    assert files == [f"{name}/00000{i}.npy" for name in ("first", "second") for i in (0, 1)]
    np.testing.assert_array_equal(np.load(tmp_path / "first" / "000001.npy"), ROWS[3:])
    read = np.load(tmp_path / "second" / "000000.npy")
    np.testing.assert_allclose(read, ROWS[:3] @ WEIGHTS["v"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (("a/b", "a_b"), ["a_b", "a_b_"]),
        (("fc", "FC"), ["FC_", "fc"]),
        (("..", "."), ["_", "__"]),
        (("../../up", "/root"), ["_.._up", "_root"]),
    ],
)
def test_dumps_of_two_layers_never_mix_nor_leave_their_folder(
    names: tuple[str, str], folders: list[str], tmp_path: Path
) -> None:
    model = model_of(TWO, WEIGHTS, {"x": ROWS}, ["y"])
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    survey, batch = find_layers(load(model)), Batch(feed={"x": ROWS}, labels=None, count=5)
    measure(survey, survey.sites, [batch], Settings(), dump=tmp_path / "dumps")
    assert sorted(folder.name for folder in (tmp_path / "dumps").iterdir()) == folders
    assert len(list(tmp_path.rglob("*.npy"))) == 2


def test_dumps_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    survey, batches = survey_and_batches(ROWS)
    (tmp_path / "first").write_text("a file where a folder is needed")
    with pytest.raises(OutputError, match="--dump-activations: cannot write"):
        measure(survey, survey.sites, batches, Settings(), dump=tmp_path)


@dataclass(frozen=True)
class Rows:
    """A source of ten rows for a model with a fixed batch; the last batch is filled up."""

    size: int = 10
    has_labels: bool = False
    class_count: int = 0
    whole_feeds: bool = False
    skipped: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def read(self, rows: Any, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            filled = np.resize(part, batch_size).astype(np.float32)
            yield Batch(feed={"x": filled[:, None]}, labels=None, count=len(part))


@pytest.mark.parametrize(
    ("batch_size", "counts"), [(5, [5, 5]), (4, [4, 4]), (10, [10]), (16, [10])]
)
def test_filled_up_batches_are_left_out_unless_there_is_no_other(
    batch_size: int, counts: list[int]
) -> None:
    batches = full_batches(whole_dataset("rows", Rows()), batch_size)
    assert [batch.count for batch in batches] == counts


def test_whole_feeds_are_never_left_out() -> None:
    data = whole_dataset("feeds", Rows(whole_feeds=True))
    assert [batch.count for batch in full_batches(data, 4)] == [4, 4, 2]
