"""Reconstruction brings outputs nearer to the dense model's, holds zeros, and touches no more."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from classifier import cnn, mlp, samples
from text_models import build, differences, random, run

import onnx_relief as relief
from onnx_relief.data import Batch, Preprocess, open_data
from onnx_relief.data.held_out import held_out
from onnx_relief.errors import SettingsError, UnsupportedError
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.taps import block_outputs, with_outputs
from onnx_relief.repair.reconstruction import default_epochs, reconstruct
from onnx_relief.settings import Reconstruction

torch = pytest.importorskip("torch")
pytest.importorskip("onnx2fx")
answers = pytest.importorskip("onnx_relief.bridge.answers")
lessons = pytest.importorskip("onnx_relief.bridge.lessons")
bridge = pytest.importorskip("onnx_relief.bridge.reconstruct")
open_teacher = pytest.importorskip("onnx_relief.bridge.train").open_teacher

CHAIN = """(float[N,3,6,6] x) => (float[N,5] y) {
    [first] a = Conv <pads = [1, 1, 1, 1]> (x, k1)
    n = BatchNormalization (a, s, o, m, v)
    r = Relu (n)
    [second] b = Conv <pads = [1, 1, 1, 1]> (r, k2, b2)
    j = Add (b, r)
    q = Relu (j)
    p = GlobalAveragePool (q)
    f = Flatten (p)
    [last] z = Gemm (f, w, b3)
    y = Softmax (z)
}"""


def network(units=(0, 1, 2, 3), dropped=()):
    """Return a residual network, with some of its four channels, some weights set to zero."""
    units = list(units)
    rng = np.random.default_rng(9)
    norm = {name: (rng.random(4).astype(np.float32) + 0.5)[units] for name in "somv"}
    first, second = random(4, 3, 3, 3, seed=1) / 5, random(4, 4, 3, 3, seed=2) / 6
    for unit, channel in dropped:
        second[unit, channel] = 0
    return build(
        CHAIN,
        **norm,
        k1=first[units],
        k2=second[units][:, units],
        b2=random(4, seed=3)[units],
        w=random(4, 5, seed=4)[units],
        b3=random(5, seed=5) / 5,
    )


def data_for(model, **options):
    return open_data(samples(labelled=False, **options), input_specs(model))


def error(model, dense, feed):
    one, other = run(model, feed)[0], run(dense, feed)[0]
    return float(((one - other) ** 2).mean())


def stored(model):
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def reconstructed(pruned, dense, stays=None, **options):
    return trained(pruned, dense, stays, **options).document.proto


def trained(pruned, dense, stays=None, *, epochs=20, flip=False, count=100, **options):
    shape = tuple(d.dim_value for d in dense.graph.input[0].type.tensor_type.shape.dim[1:])
    data = data_for(dense, count=count, shape=shape)
    return reconstruct(
        load(pruned),
        load(dense),
        stays or {},
        held_out(data),
        provider="cpu",
        training=Reconstruction(epochs=epochs, flip=flip),
        **{"batch_size": 9, **options},
    )


def test_blocks_end_where_one_tensor_is_live():
    survey = find_layers(load(network()))
    assert block_outputs(survey) == ("r", "q", "z")


def test_between_a_fork_and_the_end_nothing_is_compared():
    graph = """(float[N,4] x) => (float[N,4] y, float[N,4] u) {
        [first] h = MatMul (x, w)
        [one] a = MatMul (h, w)
        [two] b = MatMul (h, w)
        u = Relu (a)
        y = Mul (u, b)
    }"""
    assert block_outputs(find_layers(load(build(graph, w=random(4, 4))))) == ("h",)


def disturbed(dense, share):
    """Return a copy with this share of its weights set to zero."""
    rng = np.random.default_rng(3)
    pruned = onnx.ModelProto()
    pruned.CopyFrom(dense)
    for tensor in pruned.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if array.ndim > 1:
            array[rng.random(array.shape) < share] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return pruned


@pytest.mark.parametrize("make", [network, cnn, mlp])
def test_a_disturbed_model_comes_nearer_to_the_dense_one_on_other_samples(make):
    dense = make()
    pruned = disturbed(dense, 0.3)
    zeros = {name: array == 0 for name, array in stored(pruned).items() if array.ndim > 1}
    found = reconstructed(pruned, dense)
    shape = tuple(d.dim_value for d in dense.graph.input[0].type.tensor_type.shape.dim[1:])
    others = {"x": np.random.default_rng(8).standard_normal((50, *shape)).astype(np.float32)}
    assert error(found, dense, others) < 0.95 * error(pruned, dense, others)
    for name, places in zeros.items():
        np.testing.assert_array_equal(stored(found)[name] == 0, places)


def test_cut_channels_are_compared_with_those_that_stay():
    dense, small = network(), network(units=(0, 2, 3))
    stays = {name: {-3: np.array([0, 2, 3])} for name in "acrqz"}
    others = {"x": np.random.default_rng(8).standard_normal((50, 3, 6, 6)).astype(np.float32)}
    before = error(small, dense, others)
    for places in (stays, {}):
        assert error(reconstructed(small, dense, places), dense, others) < before


def test_a_model_that_lost_nothing_stays_as_it_is():
    assert differences(reconstructed(network(), network()), network()) == []


def test_how_training_went_is_told_and_what_would_make_it_better():
    few, many = (trained(disturbed(cnn(), 0.5), cnn(), epochs=40, count=n) for n in (8, 400))
    assert few.notes[0].startswith("of 40 epochs of training on 6 samples the best is ")
    assert "more samples would bring it down, and with photographs --flip" in few.notes[1]
    assert len(many.notes) == 1
    (once,) = trained(disturbed(mlp(), 0.5), mlp(), epochs=1).notes
    assert once.endswith("the best is the last: --repair-epochs gives more")
    (nothing,) = trained(network(), network()).notes
    assert nothing == "20 epochs of training on 80 samples made nothing better"


def test_only_weights_change_and_both_models_stay():
    dense, pruned = network(), network(dropped=[(0, 1), (3, 2)])
    copies = [model.SerializeToString(deterministic=True) for model in (dense, pruned)]
    paths = differences(pruned, reconstructed(pruned, dense))
    assert copies == [model.SerializeToString(deterministic=True) for model in (dense, pruned)]
    assert paths
    assert all(p.startswith("graph.initializer") and p.endswith("raw_data") for p in paths), paths


def test_with_little_memory_a_step_goes_through_its_samples_in_portions(monkeypatch):
    dense, pruned = network(), network(dropped=[(0, 1), (3, 2)])
    sizes = set()
    plain = lessons.portions

    def noted(rows, batch, most):
        parts = plain(rows, batch, most)
        sizes.update(part.count for _, part in parts)
        return parts

    monkeypatch.setattr(answers, "portions", noted)
    at_once = reconstructed(pruned, dense, epochs=6)
    assert max(sizes) == 9
    sizes.clear()
    in_portions = reconstructed(pruned, dense, epochs=6, memory=1)
    assert sizes == {1}
    for name, array in stored(at_once).items():
        np.testing.assert_allclose(stored(in_portions)[name], array, rtol=1e-3, atol=1e-4)


def test_a_batch_that_the_model_fixes_is_not_cut():
    text = """(float[8,4] x) => (float[8,2] y) {
        [one] h = MatMul (x, w)
        wide = Reshape (h, sides)
        r = Relu (wide)
        flat = Reshape (r, back)
        [two] y = MatMul (flat, v)
    }"""
    sides = {"sides": np.array([8, 3, 2]), "back": np.array([8, 6])}
    dense = build(text, w=random(4, 6, seed=1), v=random(6, 2, seed=2), **sides)
    pruned = build(text, w=random(4, 6, seed=1), v=0.5 * random(6, 2, seed=2), **sides)
    found = reconstructed(pruned, dense, epochs=3, memory=1)
    x = {"x": random(8, 4, seed=8)}
    assert error(found, dense, x) < error(pruned, dense, x)


@pytest.mark.parametrize("most", [1, 4, 7, 100])
def test_portions_hold_every_sample_once(most):
    batch = Batch(feed={"x": np.arange(14).reshape(7, 2)}, labels=None, count=7)
    parts = lessons.portions(np.arange(7), batch, most)
    assert max(part.count for _, part in parts) <= most
    assert sum(part.count for _, part in parts) == 7
    assert np.concatenate([rows for rows, _ in parts]).tolist() == list(range(7))
    found = np.concatenate([part.feed["x"] for _, part in parts])
    np.testing.assert_array_equal(found, batch.feed["x"])


def test_a_batch_that_is_no_list_of_samples_stays_whole():
    feed = {"x": np.zeros((4, 2)), "length": np.array(3)}
    batch = Batch(feed=feed, labels=None, count=4)
    assert lessons.portions(None, batch, 1) == [(None, batch)]


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    dense, pruned = network(), network(dropped=[(0, 1), (3, 2)])
    one, same, other = (reconstructed(pruned, dense, epochs=12, seed=s) for s in (1, 1, 2))
    assert differences(one, same) == []
    assert differences(one, other)


def test_mirrored_pictures_teach_as_well():
    dense, pruned = network(), network(dropped=[(0, 1), (3, 2)])
    plain, mirrored = (reconstructed(pruned, dense, flip=flip) for flip in (False, True))
    others = {"x": np.random.default_rng(8).standard_normal((50, 3, 6, 6)).astype(np.float32)}
    assert differences(plain, mirrored)
    assert error(mirrored, dense, others) < error(pruned, dense, others)


def test_what_is_no_picture_cannot_be_mirrored():
    with pytest.raises(SettingsError, match="--flip needs pictures"):
        reconstructed(mlp(), mlp(), flip=True)


def test_progress_counts_every_step():
    told = []
    dense, pruned = network(), network(dropped=[(0, 1)])
    reconstructed(
        pruned, dense, epochs=2, batch_size=10, progress=lambda *heard: told.append(heard)
    )
    assert told[-1][1] == told[-1][2] == 2 * 8  # 80 of 100 samples train


def test_a_large_model_or_much_data_is_walked_through_less_often():
    model = network()
    survey = find_layers(load(model))
    few = default_epochs(survey, data_for(model, count=60, shape=(3, 6, 6)), "cpu")
    assert few == 200
    many = open_data({"x": np.zeros((3_000_000, 3, 6, 6), bool)}, input_specs(model))
    assert 8 <= default_epochs(survey, many, "cpu") < few


def test_a_model_that_only_decides_follows_the_scores_behind():
    graph = """(float[N,6] x) => (int64[N] y) {
        [first] h = MatMul (x, w1)  r = Tanh (h)  [second] s = MatMul (r, w2)
        y = ArgMax <axis = 1, keepdims = 0> (s)
    }"""
    weights = {"w1": random(6, 8, seed=1), "w2": random(8, 5, seed=2)}
    dense = build(graph, **weights)
    weights["w2"][1::2] = 0
    pruned = build(graph, **weights)
    found = reconstructed(pruned, dense)
    others = {"x": np.random.default_rng(8).standard_normal((200, 6)).astype(np.float32)}
    agree = [np.mean(run(model, others)[0] == run(dense, others)[0]) for model in (pruned, found)]
    assert agree[1] > agree[0]


def test_a_model_without_float_outputs_is_refused():
    graph = """(float[N,6] x) => (int64[N,5] y) {
        [first] h = MatMul (x, w1)
        y = Cast <to = 7> (h)
    }"""
    model = build(graph, w1=random(6, 5, seed=1))
    with pytest.raises(UnsupportedError, match="no output of floats to follow"):
        reconstructed(model, model)


def test_decisions_that_are_floats_cannot_be_followed_either():
    graph = """(float[N,6] x) => (float[N] y) {
        [first] h = MatMul (x, w1)
        k = ArgMax <axis = 1, keepdims = 0> (h)
        y = Cast <to = 1> (k)
    }"""
    model = build(graph, w1=random(6, 5, seed=1))
    repaired = relief.prune(model, random(40, 6), sparsity=0.5, repair="reconstruct").report.repair
    assert "it is repaired by least squares alone: nothing that is compared" in repaired.notes[-1]


@pytest.mark.parametrize(
    ("prune", "budget"),
    [(relief.prune, {"sparsity": 0.5}), (relief.prune_channels, {"ratio": 0.5})],
)
def test_the_seed_arrives_from_the_functions_that_users_call(prune, budget):
    options = {"criterion": "magnitude", "repair": "reconstruct", "repair_epochs": 12, **budget}
    data = samples(count=100, shape=(3, 6, 6), labelled=False)
    one, same, other = (
        prune(network(), data, seed=seed, **options).document.proto for seed in (0, 0, 1)
    )
    assert differences(one, same) == []
    assert differences(one, other)


@pytest.mark.parametrize(
    ("prune", "budget"),
    [(relief.prune, {"sparsity": 0.5}), (relief.prune_channels, {"ratio": 0.5})],
)
def test_how_it_trains_arrives_from_the_functions_that_users_call(prune, budget):
    data = {"x": np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)}
    stages = []
    said = {"crop_padding": 2, "crop_scale": 0.5, "flip": True, "color_jitter": 0.1, "cutmix": 0.5}
    for option, value in said.items():
        with pytest.raises(SettingsError, match=f"--{option.replace('_', '-')} needs pictures"):
            prune(
                mlp(),
                data,
                repair="reconstruct",
                progress=lambda *told: stages.append(told),
                **{option: value},
                **budget,
            )
    assert not stages, "it is refused before the long work"


def around(seed, frame):
    """Return pictures, (100, 3, 10, 10), that differ only outside the middle 6 x 6."""
    generator = np.random.default_rng(0)
    middle = generator.integers(0, 256, (100, 3, 6, 6), dtype=np.uint8)
    pictures = np.random.default_rng(seed).integers(0, 256, (100, 3, 10, 10), dtype=np.uint8)
    pictures[:, :, frame:-frame, frame:-frame] = middle
    return pictures


@pytest.mark.parametrize(("scale", "same"), [(0.5, False), (1.0, True)])
def test_enlarged_parts_come_from_what_the_crop_leaves_out_too(scale, same):
    dense, pruned = network(), network(dropped=[(0, 1), (0, 2), (2, 3)])
    training = Reconstruction(epochs=12, crop_scale=scale)
    made = []
    for seed in (1, 2):
        data = open_data(
            around(seed, frame=2),
            input_specs(dense),
            preprocess=Preprocess(crop=6, scale=1 / 64, mean=(2.0,)),
        )
        found = reconstruct(load(pruned), load(dense), {}, held_out(data), training=training)
        made.append(stored(found.document.proto)["k2"])
    assert np.array_equal(*made) == same
    assert not np.array_equal(made[0], stored(pruned)["k2"])


RECURRENT = """(float[N,T,3] x) => (float[N,T,2] y) {
    t = Transpose <perm = [1, 0, 2]> (x)
    [first] h = MatMul (t, w)
    r = Relu (h)
    back = Transpose <perm = [1, 0, 2]> (r)
    [last] y = MatMul (back, v)
}"""


def steps_first(steps, lesson, most):
    """Return what the dense model gives at its block, whose first axis is that of time steps."""
    dense = build(RECURRENT, w=random(3, 4, seed=1), v=random(4, 2, seed=2))
    x = np.random.default_rng(0).standard_normal((40, steps, 3)).astype(np.float32)
    data = open_data({"x": x}, input_specs(dense))
    points = {"r": lessons.Point(), "y": lessons.Point(is_output=True)}
    teacher = open_teacher(with_outputs(load(dense), {"r": 1}), provider="cpu")
    walk = answers.Walk(answers.Targets(teacher, points, data, lesson, most), data, lesson)
    return walk, np.maximum(x.transpose(1, 0, 2) @ random(3, 4, seed=1), 0)


@pytest.mark.parametrize("most", [4, 100])
@pytest.mark.parametrize("steps", [7, 8])
@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_answers_are_of_the_samples_wherever_their_axis_is(steps, most, memory):
    lesson = lessons.Lesson(epochs=2, batch_size=8, memory=memory)
    walk, expected = steps_first(steps, lesson, most)
    for epoch in range(2):
        for rows, batch in walk.batches_of(epoch):
            parts = list(walk.source.steps(rows, batch))
            assert [part.count for part in parts] == [min(most, 8)] * (8 // min(most, 8))
            found = torch.cat([part.targets["r"] for part in parts], 1)
            np.testing.assert_allclose(found, expected[:, rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("memory", "most", "kept"), [(1, 2, False), (1 << 20, 8, True)])
def test_the_dense_model_answers_no_more_at_a_time_than_there_is_room_for(memory, most, kept):
    dense = mlp()
    counts = []
    session = open_teacher(load(dense), provider="cpu")

    def teacher(feed):
        counts.append(len(feed["x"]))
        return session(feed)

    data, points = data_for(dense), {"y": lessons.Point(is_output=True)}
    lesson = lessons.Lesson(epochs=1, batch_size=8, memory=memory)
    source = answers.Targets(teacher, points, data, lesson, 8 if kept else 1)
    judge = answers.Answered(source, data, points, lesson).held()
    assert max(counts) == most
    assert sum(step.count for step in judge) == sum(step.count for step in judge) == data.size
    assert isinstance(judge, list) == kept


@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_as_many_time_steps_as_samples_teach_what_others_teach(memory):
    dense = build(RECURRENT, w=random(3, 4, seed=1), v=random(4, 2, seed=2))
    pruned = build(RECURRENT, w=random(3, 4, seed=1), v=0.5 * random(4, 2, seed=2))
    x = np.random.default_rng(0).standard_normal((100, 8, 3)).astype(np.float32)
    data = held_out(open_data({"x": x}, input_specs(dense)))
    lesson = lessons.Lesson(epochs=20, batch_size=8, memory=memory)
    found = reconstruct(load(pruned), load(dense), {}, data, lesson=lesson).document.proto
    assert error(found, dense, {"x": x}) < 0.02 * error(pruned, dense, {"x": x})


def test_shapes_that_differ_are_refused_and_not_stretched():
    points = {"y": lessons.Point(is_output=True)}
    found, target = {"y": torch.zeros(4, 1, 2)}, {"y": torch.zeros(1, 4, 2)}
    with pytest.raises(UnsupportedError, match="'y' has shape"):
        bridge._loss(found, target, points, {"y": 1.0})
