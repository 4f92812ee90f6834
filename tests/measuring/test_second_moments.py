"""Second moments come with activity, in one walk through the data as far as there is memory."""

from __future__ import annotations

import pytest
from classifier import samples
from numpy.testing import assert_allclose
from text_models import build, random

import onnx_relief.measuring.measure
import onnx_relief.measuring.second_moments as together
from onnx_relief.budget import Budget
from onnx_relief.budgeting.targets import AS_IT_IS, prune_to
from onnx_relief.data import open_data
from onnx_relief.data.held_out import held_out
from onnx_relief.errors import DataError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.evidence import reading_of
from onnx_relief.measuring.measure import full_batches, measure
from onnx_relief.measuring.second_moments import SecondMoments, measure_at_once, moments_of
from onnx_relief.pipeline import fields_of, look
from onnx_relief.scoring.table import CRITERIA
from onnx_relief.settings import Estimator, Settings
from onnx_relief.structures import WEIGHT

# Two layers read one tensor, one layer sits in a branch, and one reads sums over positions.
MODEL = """(float[N,2,6,6] x) => (float[N,3] y) {
    [one] a = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, k1)
    [two] b = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, k2)
    s = Add (a, b)
    r = Relu (s)
    [deep] d = Conv <group = 2, dilations = [2, 1]> (r, k3)
    p = GlobalAveragePool (d)
    f = Flatten (p)
    yes = Constant <value = bool {1}> ()
    z = If (yes) <
        then_branch = t () => (float[N,3] u) { [inside] u = MatMul (f, w) },
        else_branch = e () => (float[N,3] v) { v = MatMul (f, w) }
    >
    [last] y = MatMul (z, last_w)
}"""


def model(batch="N"):
    return build(
        MODEL.replace("float[N,2", f"float[{batch},2"),
        k1=random(4, 2, 3, 3, seed=1),
        k2=random(4, 2, 3, 3, seed=2),
        k3=random(4, 2, 2, 2, seed=3),
        w=random(4, 3, seed=4),
        last_w=random(3, 3, seed=5),
    )


def opened(count=37, batch="N", inputs=None):
    document = load(model(batch))
    inputs = samples(count, (2, 6, 6), labelled=False) if inputs is None else inputs
    return find_layers(document), open_data(inputs, input_specs(document.proto))


def one_walk(survey, data, settings):
    """Return what one walk finds, and how often the model was run for second moments besides."""
    readings = [reading_of(site, memory=settings.memory) for site in survey.sites]
    readings = [one for one in readings if not isinstance(one, str)]
    measured, known = measure_at_once(survey, survey.sites, data, settings)
    more = []
    found = moments_of(
        survey.document,
        readings,
        held_out(data, settings.samples),
        settings,
        known=known,
        tick=more.append,
    )
    return measured, found, len(more)


def two_walks(survey, data, settings):
    batches = full_batches(data.take(settings.samples), settings.batch_size)
    measured = measure(survey, survey.sites, batches, settings)
    readings = [reading_of(site, memory=settings.memory) for site in survey.sites]
    readings = [one for one in readings if not isinstance(one, str)]
    samples = held_out(data, settings.samples)
    none = SecondMoments()
    found = moments_of(survey.document, readings, samples, settings, known=none)
    return measured, found


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for key, gram in one.items():
            assert gram.count == other[key].count
            assert_allclose(gram.second, other[key].second, rtol=1e-5, atol=1e-4)
            assert_allclose(gram.first, other[key].first, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("criterion", ["obs", "wanda", "magnitude"])
@pytest.mark.parametrize("memory", [2_000_000_000, 2_500])
@pytest.mark.parametrize("count", [37, 5])
def test_one_walk_finds_what_two_find(criterion, memory, count):
    survey, data = opened(count)
    settings = Settings(criterion=criterion, batch_size=8)
    object.__setattr__(settings, "memory", memory)  # as if the model were large
    (one, moments, more), (other, apart) = (
        one_walk(survey, data, settings),
        two_walks(survey, data, settings),
    )
    assert one.samples == other.samples == count
    assert one.unobserved == other.unobserved
    assert one.activities.keys() == other.activities.keys()
    for name, activity in one.activities.items():
        assert activity.positions == other.activities[name].positions
        for here, there in zip(activity.signals, other.activities[name].signals, strict=True):
            assert_allclose(here.measured, there.measured, rtol=1e-5)
    assert_same((moments.work, moments.judge), (apart.work, apart.judge))
    assert len(moments.work) == {"magnitude": 0}.get(criterion, 3)
    assert len(moments.judge) == (3 if criterion == "obs" and count > 5 else 0)
    assert (more > 0) == (criterion == "obs" and memory == 2_500)


@pytest.mark.parametrize("criterion", list(CRITERIA))
@pytest.mark.parametrize("estimator", list(Estimator))
def test_signals_that_nobody_looks_at_change_nothing_by_being_left_out(criterion, estimator):
    _, data = opened()
    settings = Settings(
        criterion=criterion,
        estimator=estimator,
        structure=WEIGHT,
        budget=Budget(sparsity=0.5),
    )
    document = load(model())
    seen = [look(document, data, settings, signals=signals) for signals in (True, False)]
    with_them, without = (
        prune_to(fields_of(one, data, settings), data, settings, judged=AS_IT_IS) for one in seen
    )
    assert same_bytes(with_them.document, without.document)
    for name, activity in seen[1].measured.activities.items():
        assert activity.positions == seen[0].measured.activities[name].positions
        for here, there in zip(
            activity.signals, seen[0].measured.activities[name].signals, strict=True
        ):
            assert ((here.reads > 0) == (there.reads > 0)).all()


def same_bytes(one, other):
    return one.proto.SerializeToString() == other.proto.SerializeToString()


def test_the_model_is_run_once_on_every_sample(monkeypatch):
    seen = []
    run = onnx_relief.measuring.measure.Observer.see
    monkeypatch.setattr(
        "onnx_relief.measuring.measure.Observer.see",
        lambda self, batch: seen.append(batch.count) or run(self, batch),
    )
    monkeypatch.setattr(together, "gram_matrices", None)
    survey, data = opened()
    one_walk(survey, data, Settings(criterion="obs", batch_size=8))
    assert sum(seen) == 37


def test_a_model_that_fixes_its_batch_counts_no_sample_twice():
    survey, data = opened(37, batch="8")
    settings = Settings(criterion="obs")
    one, moments, _ = one_walk(survey, data, settings)
    other, apart = two_walks(survey, data, settings)
    assert one.samples == other.samples == 32
    assert_same((moments.work, moments.judge), (apart.work, apart.judge))


def test_numbers_that_overflow_are_refused_by_name():
    inputs = samples(20, (2, 6, 6), labelled=False)
    inputs["x"][3] = 1e30
    survey, data = opened(inputs=inputs)
    with pytest.raises(DataError, match="'one' is NaN or infinite on this data"):
        measure_at_once(survey, survey.sites, data, Settings(criterion="obs"))
