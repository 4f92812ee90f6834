"""Normalisations against ONNX Runtime and PyTorch's own modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridged import assert_agree, gradients_are_right, module_of, node_model, through_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from text_models import build, random

from onnx_relief.bridge.ops.normalization import BatchNormalization, freeze_batch_normalization


def parameters(*shape, dtype=np.float32, seed=0):
    """Return scale, bias, mean and variance."""
    found = [random(*shape, seed=seed + i, dtype=dtype) for i in range(4)]
    return [*found[:3], abs(found[3]) + dtype(0.5)]


def tensors(*arrays):
    return [torch.from_numpy(np.array(array)) for array in arrays]


shapes = st.lists(st.integers(1, 4), min_size=0, max_size=3)


@settings(max_examples=40, deadline=None)
@given(rest=shapes, opset=st.sampled_from([7, 9, 14, 15, 22]))
def test_evaluation_is_that_of_onnx_runtime(rest, opset):
    feed = [random(3, 2, *rest), *parameters(2)]
    assert_agree(node_model("BatchNormalization", feed, ["y"], opset=opset, epsilon=0.1), feed)


@settings(max_examples=40, deadline=None)
@given(rest=shapes, since_14=st.booleans())
def test_statistics_that_a_node_gives_out_are_those_of_onnx_runtime(rest, since_14):
    feed = [random(3, 2, *rest), *parameters(2)]
    outputs = ["y", "mean", "var", "saved_mean", "saved_var"][: 3 if since_14 else 5]
    mode = {"opset": 15, "training_mode": 1} if since_14 else {"opset": 9}
    assert_agree(node_model("BatchNormalization", feed, outputs, momentum=0.7, **mode), feed)


@pytest.mark.parametrize("opset", [1, 6, 8])
def test_older_opsets_normalise_by_running_statistics(opset):
    feed = [random(3, 2, 4), *parameters(2)]
    (y,) = through_torch(node_model("BatchNormalization", feed, ["y"], opset=opset), feed)
    (same,) = through_torch(node_model("BatchNormalization", feed, ["y"], opset=15), feed)
    np.testing.assert_array_equal(y, same)


def test_not_spatial_has_statistics_of_every_place():
    feed = [random(3, 2, 4), *parameters(2, 4)]
    assert_agree(node_model("BatchNormalization", feed, ["y"], opset=7, spatial=0), feed)


@pytest.mark.parametrize(("shape", "kind"), [((5, 3), 1), ((5, 3, 4), 1), ((5, 3, 4, 2), 2)])
@pytest.mark.parametrize("together", [False, True])
def test_training_is_that_of_pytorch(shape, kind, together, monkeypatch):
    if together:  # the formula that several processes use, in one
        monkeypatch.setattr("onnx_relief.bridge.ops.batch_normalization._processes", lambda: 2)
        monkeypatch.setattr("onnx_relief.bridge.ops.batch_normalization._sum", lambda x: 2 * x)
    scale, bias, mean, var = tensors(*parameters(3, dtype=np.float64))
    theirs = (torch.nn.BatchNorm1d if kind == 1 else torch.nn.BatchNorm2d)(
        3, eps=0.01, momentum=0.2, dtype=torch.float64
    )
    theirs.load_state_dict(
        {"weight": scale, "bias": bias, "running_mean": mean, "running_var": var}, strict=False
    )
    ours = BatchNormalization(0.8, 0.01).train()
    inputs = [t.requires_grad_() for t in (*tensors(random(*shape, dtype=np.float64)), scale, bias)]
    same = inputs[0].detach().clone().requires_grad_()
    y, other = ours(*inputs, mean, var), theirs(same)
    torch.testing.assert_close(y, other)
    if not together:  # two processes with the same batch have one more degree of freedom
        torch.testing.assert_close(var, theirs.running_var)
    torch.testing.assert_close(mean, theirs.running_mean)
    found = torch.autograd.grad(y.square().mul(0.5).sum() + y[0].sum(), inputs)
    wanted = torch.autograd.grad(
        other.square().mul(0.5).sum() + other[0].sum(), [same, theirs.weight, theirs.bias]
    )
    torch.testing.assert_close(found, wanted)


def trained_once(module, arrays):
    """Return what a module gives for a batch in training."""
    return module.train()(*tensors(*arrays))


def test_training_moves_the_statistics_in_the_module_and_frozen_does_not():
    feed = [random(5, 3), *parameters(3)]
    model = with_weights(node_model("BatchNormalization", feed, ["y"]), feed)
    module = module_of(model)
    before = {name: value.clone() for name, value in module.named_buffers()}
    assert freeze_batch_normalization(module, True) == 1
    torch.testing.assert_close(trained_once(module, feed[:1]), module.eval()(*tensors(feed[0])))
    assert all(value.equal(before[name]) for name, value in module.named_buffers())
    assert freeze_batch_normalization(module, False) == 1
    trained_once(module, feed[:1])
    moved = {name for name, value in module.named_buffers() if not value.equal(before[name])}
    assert moved == {"in3", "in4"}


def with_weights(model, feed):
    """Return the model with all inputs but the first as initializers."""
    initializers = [
        numpy_helper.from_array(array, value.name)
        for value, array in zip(model.graph.input, feed, strict=True)
    ][1:]
    model.graph.initializer.extend(initializers)
    return model


def test_nodes_in_bodies_are_frozen_too():
    branch = "() => (float[3, 2] y) { y = BatchNormalization(x, s, s, s, s) }"
    model = build(
        "(bool c, float[3, 2] x, float[2] s) => (float[3, 2] z) {"
        f"z = If (c) <then_branch = a {branch}, else_branch = b {branch}> }}"
    )
    assert freeze_batch_normalization(module_of(model), True) == 2


def test_one_value_per_channel_is_normalised_as_in_evaluation():
    module, arrays = BatchNormalization(0.9, 0.1), [random(1, 3), *parameters(3)]
    torch.testing.assert_close(trained_once(module, arrays), module.eval()(*tensors(*arrays)))


def share_of_batch(rank, folder, arrays):
    """Train on every second sample in one of two processes and leave the results in a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.save(results_of_training(*arrays, slice(rank, None, 2)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def results_of_training(x, scale, bias, mean, var, part):
    """Return the output, the gradients of a loss and the running statistics."""
    x, scale, bias = (tensor.clone().requires_grad_() for tensor in (x[part], scale, bias))
    mean, var = mean.clone(), var.clone()
    y = BatchNormalization(0.8, 0.01).train()(x, scale, bias, mean, var)
    gradients = torch.autograd.grad((y**3).sum(), [x, scale, bias])
    return [y.detach(), *gradients, mean, var]


def test_two_processes_are_as_one_with_the_whole_batch(tmp_path):
    arrays = tensors(random(6, 3, 4, dtype=np.float64), *parameters(3, dtype=np.float64))
    torch.multiprocessing.spawn(share_of_batch, (str(tmp_path), arrays), nprocs=2)
    y, dx, *others = results_of_training(*arrays, slice(None))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for rank, (part_y, part_dx, *_) in enumerate(parts):
        torch.testing.assert_close(part_y, y[rank::2])
        torch.testing.assert_close(part_dx, dx[rank::2])
    both = [first + second for first, second in zip(*(p[2:4] for p in parts), strict=True)]
    torch.testing.assert_close([*both, *parts[0][4:]], others)


def sample(*shape):
    return random(*shape, dtype=np.float64)


OTHERS = {
    "LayerNormalization": [
        ([sample(2, 3, 4), sample(4)], {}),
        ([sample(2, 3, 4), sample(3, 4), sample(3, 4)], {"axis": 1, "epsilon": 0.1}),
        ([sample(2, 3, 4), sample(3, 4), sample(1, 4)], {}),
    ],
    "InstanceNormalization": [
        ([sample(2, 3, *rest), sample(3), sample(3)], {"epsilon": 0.1})
        for rest in ([4], [2, 3], [2, 1, 2], [1])
    ],
    "GroupNormalization": [([sample(2, 4, 3), sample(4), sample(4)], {"num_groups": 2})],
    "RMSNormalization": [
        ([sample(2, 3, 4), sample(4)], {}),
        ([sample(2, 3, 4), sample(3, 4)], {"axis": -2, "epsilon": 0.1}),
    ],
    "LpNormalization": [
        ([np.array([[3.0, -4.0], [0.0, 0.0]])], {"p": p, "axis": 1}) for p in (1, 2)
    ],
    "LRN": [([sample(2, 5, 3, 2)], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0})],
    "MeanVarianceNormalization": [([sample(2, 3, 2, 2)], {}), ([sample(2, 3)], {"axes": [1]})],
}
CASES = [(name, *case) for name, cases in OTHERS.items() for case in cases]
OPSETS = {"RMSNormalization": 23}


@pytest.mark.parametrize(("name", "feed", "attributes"), CASES)
def test_outputs_are_those_of_onnx_runtime(name, feed, attributes):
    feed = [array.astype(np.float32) for array in feed]
    model = node_model(name, feed, ["y"], opset=OPSETS.get(name, 21), **attributes)
    assert_agree(model, feed)


@pytest.mark.parametrize(("name", "feed", "attributes"), CASES)
def test_gradients(name, feed, attributes):
    if name == "LpNormalization":
        feed = [array[:1] for array in feed]  # no gradient is defined at zero
    model = node_model(name, feed, ["y"], opset=OPSETS.get(name, 21), **attributes)
    assert gradients_are_right(model, feed)


def test_gradient_of_a_vector_of_zeros_is_zero():
    model = node_model("LpNormalization", [np.zeros((1, 2))], ["y"])
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    module_of(model)(x).sum().backward()
    assert x.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layer_normalization_gives_its_statistics(dtype):
    feed = [random(2, 3, 4, dtype=dtype), random(4, dtype=dtype)]
    assert_agree(node_model("LayerNormalization", feed, ["y", "mean", "inverse"]), feed)


def test_opset_18_scales_groups():
    x, scale, bias = random(2, 4, 3), random(2), random(2, seed=1)
    model = node_model("GroupNormalization", [x, scale, bias], ["y"], opset=18, num_groups=2)
    assert_agree(model, [x, scale, bias])


def test_even_window_reaches_one_channel_further_behind():
    x = random(1, 3, 1)
    model = node_model("LRN", [x], ["y"], size=2, alpha=2.0, beta=1.0, bias=0.0)
    (y,) = through_torch(model, [x])
    square = np.append((x**2).ravel(), 0)
    np.testing.assert_allclose(y.ravel(), x.ravel() / (square[:3] + square[1:]), rtol=1e-5)
