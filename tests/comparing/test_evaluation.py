"""Two models on data: which metric looks at which output, and what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from classifier import mlp, samples
from PIL import Image
from text_models import build, random, run

from onnx_relief.comparing.evaluation import compare_models, evaluate_model, try_out
from onnx_relief.comparing.judge import Judge, points_lost
from onnx_relief.comparing.tally import margin
from onnx_relief.data import Preprocess, open_data
from onnx_relief.errors import DataError, ModelError, SettingsError
from onnx_relief.graph.document import input_specs, load


def compare(dense, pruned=None, arrays=None, **options):
    """Compare two models on arrays; `pruned` is `dense` by default."""
    first, second = load(dense), load(pruned or dense)
    given = samples() if arrays is None else arrays
    data = open_data(given, input_specs(first.proto))
    return compare_models(first, second, data, **options)


def other():
    """Return the small network with a different last layer."""
    return mlp(w2=random(5, 3, seed=9))


def elementwise(body, inputs="float[N,6] x", outputs="float[N,6] y"):
    return build(f"({inputs}) => ({outputs}) {{ {body} }}")


def test_with_labels_accuracy_is_counted():
    arrays = samples()
    found = compare(mlp(), other(), arrays)
    for model, score in ((mlp(), found.dense), (other(), found.pruned)):
        (output,) = run(model, {"x": arrays["x"]})
        assert score == pytest.approx(100 * (output.argmax(1) == arrays["labels"]).mean())
    assert (found.metric, found.unit, found.output, found.samples) == ("accuracy", "%", "y", 40)


def test_without_labels_agreement_is_counted():
    arrays = samples(labelled=False)
    found = compare(mlp(), other(), arrays)
    first, second = (run(m, arrays)[0].argmax(1) for m in (mlp(), other()))
    assert found.metric == "agreement"
    assert found.dense is None
    assert found.pruned == pytest.approx(100 * (first == second).mean())
    assert 0 < found.pruned < 100


def test_the_batch_size_changes_nothing():
    small, large = (compare(mlp(), other(), batch_size=size) for size in (3, 64))
    assert small.dense == large.dense
    assert small.pruned == large.pruned
    assert small.differences[0].largest == pytest.approx(large.differences[0].largest)


def test_rows_that_fill_up_a_fixed_batch_do_not_count():
    model = build("(float[4,6] x) => (float[4,3] y) { y = MatMul (x, w) }", w=random(6, 3))
    arrays = samples(count=5)
    found = compare(model, None, arrays)
    free = build("(float[N,6] x) => (float[N,3] y) { y = MatMul (x, w) }", w=random(6, 3))
    assert found.samples == 5
    assert found.dense == pytest.approx(compare(free, None, arrays).dense)


def test_values_that_decide_nothing_are_compared_by_angle():
    arrays = {"x": np.full((3, 1, 2, 2), 2.0, np.float32)}
    text = "(float[N,1,2,2] x) => (float[N,1,2,2] y)"
    dense, pruned = (build(f"{text} {{ y = {op} (x) }}") for op in ("Identity", "Neg"))
    found = compare(dense, pruned, arrays)
    assert (found.metric, found.pruned) == ("cosine", pytest.approx(-1.0))


SINGLE = {
    "column": ("float[N,1] y", "y = ReduceSum (x, one)"),
    "row": ("float[N] y", "y = ReduceSum <keepdims = 0> (x, one)"),
    "scalar": ("float y", "y = ReduceSum <keepdims = 0> (x)"),
    "one for all": ("float[1] y", "y = ReduceSum <keepdims = 0> (f, one)"),
}


def single_numbers(form, factor=1.0):
    """Return a model that gives one number, for each sample or for a whole batch."""
    output, body = SINGLE[form]
    flat = "f = Reshape (x, r)" if "(f" in body else ""
    constants = {"one": np.array([1])} if "one)" in body else {}
    constants |= {"r": np.array([1, -1])} if flat else {}
    text = f"(float[N,6] z) => ({output}) {{ x = Mul (z, c) {flat} {body} }}"
    return build(text, c=np.float32(factor), **constants)


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("form", SINGLE)
def test_single_numbers_are_compared_by_their_error_since_their_angle_is_only_a_sign(form, size):
    arrays = {"z": 2 + samples()["x"]}
    dense, larger = single_numbers(form), single_numbers(form, 1.5)
    found = compare(dense, larger, arrays, batch_size=size)
    batches = [arrays["z"][start : start + size] for start in range(0, len(arrays["z"]), size)]
    given = np.concatenate([run(dense, {"z": z})[0].reshape(-1) for z in batches])
    expected = 0.5 * np.linalg.norm(given) / np.linalg.norm(given - given.mean())
    assert (found.metric, found.pruned) == ("error", pytest.approx(expected, rel=1e-4))
    with pytest.raises(SettingsError, match=r"--metric cosine suits no .*angle.*sign.*error"):
        compare(dense, larger, arrays, metric="cosine", batch_size=size)


@pytest.mark.parametrize("level", [0.0, 120.0])
def test_a_constant_has_an_error_of_one_whatever_its_size(level):
    arrays = {"x": random(50, 3)}
    text = "(float[N,3] x) => (float[N,1] y) { z = MatMul (x, w)  y = Add (z, b) }"
    weight = random(3, 1)
    dense = build(text, w=weight, b=np.float32([level]))
    mean = run(dense, arrays)[0].mean()
    found = compare(dense, build(text, w=0 * weight, b=np.float32([mean])), arrays)
    assert (found.metric, found.pruned) == ("error", pytest.approx(1, rel=1e-3))
    assert found.differences[0].cosine is None


def test_single_numbers_of_a_feed_of_several_rows_are_numbers_too():
    feeds = [{"z": 2 + samples()["x"]}]
    found = compare(single_numbers("column"), single_numbers("column", 1.5), feeds)
    assert (found.metric, found.samples) == ("error", 1)


def test_a_single_number_that_stops_being_a_share_falls_back_to_the_error():
    model = build("(float[N,1] x) => (float[N,1] y) { y = Identity (x) }")
    arrays = {"x": np.array([[0.5], [0.7], [3.0]], np.float32)}
    found = compare(model, None, arrays, batch_size=2)
    assert (found.metric, found.pruned) == ("error", 0)
    assert any("not always a decision; error is used" in note for note in found.notes)


def test_embeddings_are_compared_by_angle_unless_something_else_is_asked_for():
    text = "(float[N,16] x) => (float[N,16] y) { y = LpNormalization <axis = 1> (x) }"
    arrays = {"x": np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)}
    assert compare(build(text), None, arrays).metric == "cosine"
    assert compare(build(text), None, arrays, metric="agreement").metric == "agreement"


@pytest.mark.parametrize("tail", ["y = Identity (s)", "y = Unsqueeze (s, two)"])
def test_of_sigmoids_the_labels_that_either_model_finds_count(tail):
    """Where neither finds one, nothing is decided."""
    shape = "N,3" if "Identity" in tail else "N,3,1"
    text = f"(float[N,3] x) => (float[{shape}] y) {{ a = Add (x, b)  s = Sigmoid (a)  {tail} }}"
    constants = {"two": np.array([2])} if "two" in tail else {}
    dense, pruned = (
        build(text, b=np.float32(bias), **constants) for bias in ([0, 0, 0], [0.4, 0, 0])
    )
    x = np.array([[-5, -5, -4.9], [-5, 5, 5], [-0.2, 5, 5], [-5, 5, 4.9]], np.float32)
    found = compare(dense, pruned, {"x": x})
    assert (found.metric, found.samples) == ("agreement", 4)
    assert found.pruned == pytest.approx(600 / 7)  # of seven labels six are found by both
    assert found.margin is None, "labels of one sample go together"
    silent = compare(dense, pruned, {"x": x[:1]})
    assert silent.metric == "cosine"
    assert any("reaches 0.5" in note for note in silent.notes)


def test_of_a_single_sigmoid_yes_and_no_are_decisions():
    text = "(float[N,1] x) => (float[N,1] y) { a = Add (x, b)  y = Sigmoid (a) }"
    dense, pruned = (build(text, b=np.float32([bias])) for bias in (0, 1))
    x = np.array([[-5], [-4], [-0.5], [5]], np.float32)
    found = compare(dense, pruned, {"x": x})
    assert (found.metric, found.pruned) == ("agreement", 75.0)
    assert found.margin is not None


def test_a_detector_that_finds_nothing_any_more_agrees_with_nothing():
    text = "(float[N,50,3] x) => (float[N,50,3] y) { a = Sub (x, b)  y = Sigmoid (a) }"
    dense, silent = (build(text, b=np.float32([bias] * 3)) for bias in (0, 9))
    x = np.full((4, 50, 3), -5, np.float32)
    x[:, 7, 1] = 5
    assert compare(dense, silent, {"x": x}).pruned == 0
    assert compare(dense, dense, {"x": x}).pruned == 100


def test_an_output_that_stops_deciding_falls_back_to_the_angle():
    model = build("(float[N,1,1,2] x) => (float[N,1,1,2] y) { y = Identity (x) }")
    arrays = {"x": np.array([0.5, 0.7, 3.0], np.float32).repeat(2).reshape(3, 1, 1, 2)}
    found = compare(model, None, arrays, batch_size=2)
    assert found.metric == "cosine"
    assert found.pruned == pytest.approx(1.0)
    assert any("not always a decision" in note for note in found.notes)


def test_metric_and_output_can_be_named():
    model = build(
        "(float[N,6] x) => (float[N,6] a, float[N,6] b) { a = Relu (x)  b = Neg (x) }",
    )
    found = compare(model, None, samples(labelled=False), metric="error", output="b")
    assert (found.metric, found.output, found.pruned) == ("error", "b", 0.0)
    assert [gap.output for gap in found.differences] == ["a", "b"]


def test_the_first_output_that_suits_is_taken():
    model = build(
        "(float[N,6] x) => (float[N,2,3] a, float[N,6] b) { a = Reshape (x, s)  b = Neg (x) }",
        s=np.array([-1, 2, 3]),
    )
    assert compare(model).output == "b"


def test_of_several_outputs_labels_belong_to_the_one_with_as_many_classes():
    model = build(
        """(float[N,6] x) => (float[N,12] embedding, float[N,3] scores) {
            embedding = MatMul (x, u)  scores = MatMul (x, v)
        }""",
        u=random(6, 12),
        v=random(6, 3),
    )
    assert compare(model).output == "scores"
    assert evaluate(model, samples()).output == "scores"


def test_labels_of_scikit_learn_are_understood():
    model = build(
        """(float[N,6] x) => (int64[N] label, seq(map(int64, float)) probabilities) {
            s = Softmax (x)
            label = ArgMax <axis = 1, keepdims = 0> (x)
            probabilities = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2, 3, 4, 5]> (s)
        }"""
    )
    found = compare(model)
    assert (found.output, found.metric) == ("label", "accuracy")
    assert found.notes == ("output 'probabilities' is a sequence or map, so it is not compared",)


def test_text_is_skipped():
    model = build(
        """(float[N,6] x) => (string[N] label, float[N,6] y) {
            c = ArgMax <axis = 1, keepdims = 0> (x)
            label = ai.onnx.ml.LabelEncoder <keys_int64s = [0], values_strings = ["a"]> (c)
            y = Softmax (x)
        }"""
    )
    found = compare(model)
    assert found.output == "y"
    assert "output 'label' is text, so it is not compared" in found.notes


def test_nan_is_said():
    model = elementwise("y = Sqrt (x)")
    found = compare(model, None, samples(labelled=False), metric="error")
    (gap,) = found.differences
    assert gap.nan_dense == gap.nan_pruned > 0
    assert any("NaN" in note for note in found.notes)


def test_nan_of_one_model_is_said_and_counts_as_wrong():
    arrays = {"x": np.tile(np.float32([[4, 1], [-1, 4]]), (1, 3)), "labels": [0, 0]}
    model = load(elementwise("y = Sqrt (x)"))
    score = evaluate_model(model, open_data(arrays, input_specs(model.proto)), batch_size=1)
    assert score.value == 50
    assert "output 'y' of the model holds 3 NaN on this data" in score.notes


def test_nan_that_the_pruning_made_is_said():
    arrays = {"x": np.tile(np.float32([[1, 2], [-1, 3], [2, 2]]), (1, 3))}
    dense, pruned = (elementwise(f"z = {op} (x)  y = Sqrt (z)") for op in ("Identity", "Neg"))
    notes = compare(dense, pruned, arrays).notes
    assert "output 'y' of the dense model holds 3 NaN on this data" in notes
    assert "output 'y' of the pruned model holds 15 NaN on this data" in notes


def test_outputs_of_other_shapes_are_not_compared():
    dense, pruned = (
        elementwise(f"z = {op} (x)  y = NonZero (z)", outputs="int64[R,M] y")
        for op in ("Identity", "Relu")
    )
    found = compare(dense, pruned, samples(labelled=False))
    assert found.differences == ()
    assert any("changes its shape" in note for note in found.notes)


def test_outputs_of_other_widths_agree_on_nothing():
    dense, wider = mlp(), mlp(w2=random(5, 4, seed=9))
    wider.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    found = compare(dense, wider, samples(labelled=False), metric="agreement")
    assert (found.pruned, found.margin, found.differences) == (None, None, ())
    assert found.notes == (
        "output 'y' changes its shape, from (16, 3) to (16, 4), so it is not compared",
    )
    labelled = compare(dense, wider)
    assert labelled.dense is not None
    assert labelled.pruned is not None


@pytest.mark.parametrize("metric", ["cosine", "error"])
@pytest.mark.parametrize(
    ("output", "body"),
    [
        ("int64[N] y", "y = ArgMax <axis = 1, keepdims = 0> (x)"),
        ("int64[N,6] y", "y = Cast <to = 7> (x)"),
        ("bool[N,6] y", "y = Less (x, x)"),
    ],
)
def test_class_numbers_have_neither_angle_nor_norm(metric, output, body):
    with pytest.raises(SettingsError, match=r"suits no output.*class numbers.*agreement"):
        compare(elementwise(body, outputs=output), None, samples(labelled=False), metric=metric)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"metric": "f1"}, "choose one of accuracy"),
        ({"output": "z"}, "--output 'z' does not exist; the model gives 'y'"),
        ({"metric": "accuracy"}, "--metric accuracy needs labels, and the data has none"),
        ({"metric": "top5"}, "--metric top5 needs labels"),
    ],
)
def test_a_metric_that_does_not_go_is_a_sentence(options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        compare(mlp(), None, samples(labelled=False), **options)


def test_an_output_of_the_wrong_rank_is_a_sentence():
    model = build(
        "(float[N,6] x) => (float[N,2,3] y) { y = Reshape (x, s) }", s=np.array([-1, 2, 3])
    )
    with pytest.raises(SettingsError, match=r"suits no output .*\(1, 2, 3\).*--output.*--metric"):
        try_out(
            load(model),
            open_data(samples(), input_specs(model)),
            metric=None,
            output=None,
            provider="cpu",
        )


def test_labels_beyond_the_classes_are_a_sentence():
    arrays = samples()
    arrays["labels"][7] = 12
    with pytest.raises(DataError, match="label 12, but the output has 3 classes"):
        compare(mlp(), None, arrays)


def test_two_models_with_other_outputs_are_a_sentence():
    with pytest.raises(ModelError, match="gives 'y' and model gives 'z', so they cannot be"):
        compare(elementwise("y = Relu (x)"), elementwise("z = Relu (x)", outputs="float[N,6] z"))


def test_two_models_with_other_inputs_are_a_sentence():
    with pytest.raises(ModelError, match="takes 'x' and model takes 'z'"):
        compare(elementwise("y = Relu (x)"), elementwise("y = Relu (z)", inputs="float[N,6] z"))


@pytest.mark.parametrize("inputs", ["float[N,6,1] x", "float[N,7] x", "double[N,6] x"])
def test_two_models_that_take_other_numbers_are_a_sentence(inputs):
    other = elementwise("y = Relu (x)", inputs=inputs, outputs=inputs.replace("x", "y"))
    with pytest.raises(ModelError, match=r"takes 'x' as float32 \(N, 6\) and model as .*so they"):
        compare(elementwise("y = Relu (x)"), other)


def test_the_model_that_cannot_be_run_is_named():
    text = "(float[N,6] x) => (float[R,M] y) { y = Reshape (x, s) }"
    dense, broken = (load(build(text, s=np.array([width, -1]))) for width in (3, 7))
    data = open_data(samples(labelled=False), input_specs(dense.proto))
    with pytest.raises(ModelError, match=r"^other\.onnx: ONNX Runtime cannot run the model: "):
        compare_models(dense, replace(broken, name="other.onnx"), data)


def test_every_sample_is_told():
    told = []
    compare(mlp(), tick=told.append, batch_size=16)
    assert told == [16, 16, 8]


def test_models_are_left_as_they_were():
    model = load(mlp())
    before = model.proto.SerializeToString()
    compare_models(model, model, open_data(samples(), input_specs(model.proto)))
    assert model.proto.SerializeToString() == before


def evaluate(model, arrays, **options):
    return evaluate_model(load(model), open_data(arrays, input_specs(model)), **options)


def test_one_model_is_judged_by_labels():
    arrays = samples()
    found = evaluate(mlp(), arrays)
    assert found.value == pytest.approx(compare(mlp(), None, arrays).dense)
    assert (found.metric, found.samples, found.unit) == ("accuracy", 40, "%")


def test_top5_is_at_least_accuracy():
    arrays = samples()
    assert evaluate(mlp(), arrays, metric="top5").value == 100.0


def test_one_model_without_labels_is_a_sentence():
    with pytest.raises(DataError, match=r"has no labels.*--against"):
        evaluate(mlp(), samples(labelled=False))


def test_one_model_alone_agrees_with_nobody():
    with pytest.raises(SettingsError, match="--metric agreement compares two models"):
        evaluate(mlp(), samples(), metric="agreement")


def test_whole_feeds_bring_their_own_labels():
    arrays = samples(count=4)
    feeds = [
        ({"x": arrays["x"][:3]}, arrays["labels"][:3]),
        ({"x": arrays["x"][3:]}, arrays["labels"][3:]),
    ]
    document = load(mlp())
    data = open_data(feeds, input_specs(document.proto))
    found = compare_models(document, document, data)
    assert found.samples == 4
    assert found.dense == pytest.approx(compare(mlp(), None, arrays).dense)


def test_half_precision_outputs_are_compared():
    model = build("(float[N,6] x) => (float16[N,6] y) { y = Cast <to = 10> (x) }")
    found = compare(model, None, samples(labelled=False))
    assert found.pruned == 100.0
    assert found.differences[0].largest == 0


def test_a_label_beyond_the_classes_shows_before_any_long_work():
    arrays = samples()
    arrays["labels"][-1] = 7
    data = open_data(arrays, input_specs(mlp()))
    with pytest.raises(DataError, match="label 7, but the output has 3 classes"):
        try_out(load(mlp()), data, metric=None, output=None, provider="cpu")
    try_out(load(mlp()), data, metric="agreement", output=None, provider="cpu")


def test_labels_that_stop_before_the_classes_do_are_doubted():
    arrays = samples()
    few = {"x": arrays["x"], "labels": arrays["labels"] % 2}
    (note,) = compare(mlp(), arrays=few).notes
    assert "2 classes, but the output tells 3 apart" in note
    data = open_data(few, input_specs(load(mlp()).proto))
    assert evaluate_model(load(mlp()), data).notes == (note,)
    assert compare(mlp(), arrays=arrays).notes == ()


def test_steps_of_a_sequence_are_not_taken_for_samples():
    model = build("(float[N,5,3] x) => (float[N,5,3] y) { y = Identity (x) }")
    document = load(model)
    inputs = {"x": np.random.default_rng(0).standard_normal((8, 5, 3)).astype(np.float32)}
    data = open_data(inputs, input_specs(document.proto))
    found = compare_models(document, document, data, metric="agreement")
    assert found.pruned == 100
    assert found.margin is None


@pytest.mark.parametrize(
    ("metric", "unit", "value", "points"),
    [("accuracy", "%", 88.0, 2.0), ("cosine", "", 0.88, 2.0), ("error", "", 0.92, 2.0)],
)
def test_points_are_percent_or_hundredths(metric, unit, value, points):
    start = 90.0 if unit else 0.9
    assert points_lost(metric, unit, value, start) == pytest.approx(points)
    assert points_lost(metric, unit, start, start) == 0


LOG = "(float[N,6] x) => (float[N,4] y) { h = MatMul (x, w)  r = Relu (h)  y = Log (r) }"
SHARE = "(float[N,6] x) => (float[N,1] y) { h = MatMul (x, w)  y = Add (h, b) }"


def test_outputs_that_are_no_numbers_any_more_are_no_match():
    x = np.abs(samples()["x"])
    weight = np.abs(random(6, 4, seed=1))
    half = weight.copy()
    half[:, :2] = 0  # the logarithm of nothing
    found = compare(build(LOG, w=weight), build(LOG, w=half), {"x": x}, metric="cosine")
    (gap,) = found.differences
    assert (gap.broken, gap.largest, gap.relative_error) == (80, np.inf, np.inf)
    assert found.pruned == 0
    assert "infinite or NaN in 80 places" in " ".join(found.notes)
    same = compare(build(LOG, w=half), build(LOG, w=half), {"x": x}, metric="error")
    assert same.pruned == 0  # what the dense model does not say cannot be lost


def share(scale):
    """Return a model of one number, from 0 to 1 for the scale 1 and beyond that for others."""
    x = samples()["x"]
    weight = random(6, 1, seed=1)
    low, high = (x @ weight).min(), (x @ weight).max()
    return build(
        SHARE,
        w=scale * weight / (high - low),
        b=np.array([0.5 + scale * (-low / (high - low) - 0.5)], np.float32),
    )


def test_a_share_that_leaves_its_range_stays_a_choice():
    whole, wide = share(0.999), share(3.0)  # on the same side of one half everywhere
    arrays = samples(labelled=False)
    found = compare(whole, wide, arrays)
    assert (found.metric, found.pruned) == ("agreement", 100)
    labels = (run(whole, arrays)[0][:, 0] > 0.5).astype(np.int64)
    labelled = {**arrays, "labels": labels}
    assert compare(whole, wide, labelled).pruned == 100
    data = open_data(labelled, input_specs(whole))
    assert Judge(data=data, dense=load(whole)).score(load(wide)).value == 100
    with pytest.raises(SettingsError, match="only between 0 and 1"):
        Judge(data=data, dense=None).score(load(wide))


@pytest.mark.parametrize(("both", "one"), [(0.2, 0.1), (0.02, 0.6), (0.0, 0.3)])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(both, one):
    rng = np.random.default_rng(2109)
    n, draws = 200, 4000
    first, second, _ = rng.multinomial(n, [one, both, 1 - one - both], draws).T
    widths = np.array([margin(b + c, b - c, n) for b, c in zip(first, second, strict=True)])
    inside = np.abs(100 * (first - second) / n - 100 * (one - both)) <= widths
    assert 0.93 < inside.mean() < 0.98


def test_numbers_are_compared_before_integers_if_nobody_says_what():
    text = """(float[N,6] x) => (int64[R] length, float[N,3] y) {
        s = Shape (x)  length = Identity (s)  y = MatMul (x, w)
    }"""
    dense, pruned = (build(text, w=random(6, 3, seed=seed)) for seed in (1, 2))
    arrays = samples(labelled=False)
    found = compare(dense, pruned, arrays)
    assert (found.metric, found.output) == ("agreement", "y")
    assert found.pruned < 90
    assert compare(dense, pruned, arrays, output="length").pruned == 100


NAMED = """(float[N,4] x) => (string[N] y) {
    h = MatMul (x, w)
    i = ArgMax <axis = 1, keepdims = 0> (h)
    y = Gather (names, i)
}"""


def test_names_of_classes_agree_or_not():
    names = np.array(["cat", "dog", "eel"], dtype=object)
    models = [build(NAMED, w=random(4, 3, seed=s), names=names) for s in (1, 2)]
    arrays = {"x": random(40, 4)}
    dense, pruned = (run(model, arrays)[0] for model in models)
    found = compare(*models, arrays, batch_size=7)
    assert (found.metric, found.output, found.notes) == ("agreement", "y", ())
    assert found.pruned == pytest.approx(100 * np.mean(dense == pruned))
    assert 0 < found.pruned < 100


@pytest.mark.parametrize("metric", ["cosine", "error"])
def test_of_a_join_the_part_that_is_farthest_off_counts(metric):
    text = """(float[N,4] x) => (float[N,2,3] y) {
        b = MatMul (x, large)  s = MatMul (x, w)
        c = Unsqueeze (b, one)  t = Unsqueeze (s, one)  y = Concat <axis = 1> (c, t)
    }"""
    large, one = 1000 * random(4, 3, seed=3), np.array([1])
    models = [build(text, w=random(4, 3, seed=s), large=large, one=one) for s in (1, 2)]
    alone = [
        build("(float[N,4] x) => (float[N,3] y) { y = MatMul (x, w) }", w=random(4, 3, seed=s))
        for s in (1, 2)
    ]
    arrays = {"x": random(30, 4)}
    found = compare(*models, arrays, metric=metric)
    assert found.pruned == pytest.approx(compare(*alone, arrays, metric=metric).pruned)
    assert [gap.output for gap in found.differences] == ["y", "y, part c", "y, part t"]
    assert found.notes == (
        f"output 'y' joins 2 tensors; {metric} is that of 't', the farthest off",
    )
    if metric == "cosine":
        assert compare(*models, arrays) == found


PARTS = """(float[N,4] x) => (float[N,M] y) {
    a = MatMul (x, v)  b = MatMul (x, w)  y = Concat <axis = 1> (a, b)
}"""


@pytest.mark.parametrize("metric", [None, "cosine", "error"])
def test_a_part_that_is_silent_counts_within_the_whole(metric):
    noise = 10 * random(4, 3, seed=5)
    models = [build(PARTS, v=random(4, 3), w=0 * noise), build(PARTS, v=random(4, 3), w=noise)]
    found = compare(*models, {"x": random(30, 4)}, metric=metric or "error")
    assert found.pruned < 0.5 if metric == "cosine" else found.pruned > 2


@pytest.mark.parametrize("width", [1, 3])
def test_parts_of_single_numbers_are_compared_by_their_error(width):
    text = """(float[N,4] x) => (float[N,1,M] y) {
        a = MatMul (x, v)  b = MatMul (x, w)  c = Concat <axis = 1> (a, b)  y = Unsqueeze (c, one)
    }"""
    other, one = random(4, 1, seed=6), np.array([1])
    first = {"v": random(4, width), "one": one}
    models = [build(text, w=w, **first) for w in (random(4, 1), other)]
    alone = [
        build("(float[N,4] x) => (float[N,1] y) { y = MatMul (x, w) }", w=w)
        for w in (random(4, 1), other)
    ]
    arrays = {"x": random(30, 4)}
    found = compare(*models, arrays)
    assert (found.metric, found.pruned) == ("error", compare(*alone, arrays).pruned)


def test_numbers_say_more_than_names():
    text = """(float[N,4] x) => (string[N] name, float[N,2,3,5] map) {
        i = ArgMax <axis = 1, keepdims = 0> (x)  name = Gather (names, i)
        h = MatMul (x, w)  map = Reshape (h, shape)
    }"""
    more = {"names": np.array(list("abcd"), dtype=object), "shape": np.array([-1, 2, 3, 5])}
    models = [build(text, w=random(4, 30, seed=s), **more) for s in (1, 2)]
    found = compare(*models, {"x": random(20, 4)})
    assert (found.metric, found.output) == ("cosine", "map")


def test_an_empty_folder_of_a_class_counts_for_the_output_of_labels(tmp_path):
    for name in "abcd":
        (tmp_path / name).mkdir()
    for name in "abc":
        Image.new("RGB", (2, 2)).save(tmp_path / name / "1.png")
    graph = """(float[N,3,2,2] x) => (float[N,20] embedding, float[N,4] scores) {
        f = Flatten (x)  embedding = MatMul (f, v)  scores = MatMul (f, w)
    }"""
    model = load(build(graph, v=random(12, 20), w=random(12, 4)))
    prepare = Preprocess(scale=1.0)
    data = open_data(str(tmp_path), input_specs(model.proto), preprocess=prepare)
    assert evaluate_model(model, data).output == "scores"


def test_integers_do_not_stand_for_numbers_that_decide_nothing():
    text = """(float[N,4] x) => (float[N,3,2] features, int64[N] lengths) {
        h = MatMul (x, w)  r = Reshape (h, shape)  features = Transpose <perm = [0, 2, 1]> (r)
        s = ReduceSum <keepdims = 0> (x, one)  lengths = Cast <to = 7> (s)
    }"""
    more = {"shape": np.array([-1, 2, 3]), "one": np.array([1])}
    models = [build(text, w=random(4, 6, seed=s), **more) for s in (1, 2)]
    found = compare(*models, {"x": random(20, 4)})
    assert (found.metric, found.output) == ("cosine", "features")


@pytest.mark.parametrize("labelled", [True, False])
def test_samples_that_are_all_answered_alike_are_doubted(labelled):
    arrays = samples(labelled=labelled)
    arrays["x"] = np.zeros_like(arrays["x"])
    metric = None if labelled else "agreement"
    (note,) = compare(mlp(), other(), arrays, metric=metric).notes
    assert note.startswith("the dense model gives the same 'y' for all 40 samples")
    assert not compare(mlp(), other(), samples(labelled=labelled), metric=metric).notes


def test_samples_are_not_doubted_because_the_pruned_model_gives_no_numbers():
    broken = elementwise("y = Sqrt (x)")
    arrays = {"x": -1 - np.abs(random(40, 6))}
    notes = compare(elementwise("y = Neg (x)"), broken, arrays, metric="agreement").notes
    assert len(notes) == 1
    assert "NaN" in notes[0]


def test_what_is_taken_for_a_decision_unasked_is_said():
    (note,) = compare(mlp(), other(), samples(labelled=False)).notes
    assert note.startswith("the highest of the 3 numbers of 'y' is taken for a decision")
    assert note.endswith("give --metric error")
    graph = """(float[N,6] x) => (float[N,3,1,1] y) {
        h = MatMul (x, w)  y = Unsqueeze (h, axes) }"""
    pixels = [build(graph, w=random(6, 3, seed=s), axes=np.array([2, 3])) for s in (1, 2)]
    (note,) = compare(*pixels, {"x": random(40, 6)}).notes
    assert note.startswith("the highest of the 3 numbers")
    shares = elementwise("y = Softmax (x)")
    side = build(
        "(float[N,6] x) => (float[N,1] y) { y = MatMul (x, w) }",
        w=np.full((6, 1), 1 / 6, np.float32),
    )
    assert compare(side, arrays={"x": np.abs(np.tanh(random(40, 6)))}).metric == "agreement"
    for quiet in (
        compare(side, arrays={"x": np.abs(np.tanh(random(40, 6)))}),
        compare(mlp(), other(), samples()),
        compare(mlp(), other(), samples(labelled=False), metric="agreement"),
        compare(shares, elementwise("r = Relu (x)  y = Softmax (r)"), {"x": random(40, 6)}),
    ):
        assert not any("taken for a decision" in note for note in quiet.notes)


@pytest.mark.parametrize("size", [3, 40])
def test_decisions_that_are_all_the_same_are_doubted(size):
    arrays = samples(labelled=False)
    (decided,) = (found.argmax(1) for found in run(mlp(), arrays))
    one = {"x": np.tile(arrays["x"][decided == decided[0]], (10, 1))[:40]}
    one["x"] += np.random.default_rng(0).normal(scale=1e-6, size=one["x"].shape).astype("f")
    (note,) = compare(mlp(), other(), one, batch_size=size, metric="agreement").notes
    assert note.startswith("the dense model decides the same by 'y' for all 40 samples")
    one["x"][-1] = arrays["x"][decided != decided[0]][0]
    assert not compare(mlp(), other(), one, batch_size=size, metric="agreement").notes


def test_random_numbers_do_not_hang_on_where_a_node_stands():
    noise = "n = RandomNormalLike (x)  y = Add (x, n)"
    found = compare(elementwise(noise), elementwise(f"u = Neg (x)  {noise}"), metric="error")
    assert found.pruned == 0
