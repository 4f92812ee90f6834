"""Nodes through the bridge: outputs against ONNX Runtime, gradients against differences."""

from __future__ import annotations

import numpy as np
import onnx2fx
import torch
from onnx import TensorProto, helper
from text_models import run

from onnx_relief.bridge.ops import register_handlers

IR = 10


def node_model(op_type, feed, outputs, *, opset=21, domain="", **attributes):
    """Return a model of one node.

    Args:
        op_type: The operator.
        feed: An array for each input, None for one left out.
        outputs: Names of the outputs, "" for one left out.
        opset: Of the node's domain.
        domain: Of the node.
        attributes: Of the node.
    """
    names = ["" if a is None else f"in{i}" for i, a in enumerate(feed)]
    while names and not names[-1]:
        names.pop()
    node = helper.make_node(op_type, names, outputs, domain=domain, **attributes)
    types = {
        name: helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in zip(names, feed, strict=False)
        if name
    }
    results = [helper.make_tensor_value_info(o, TensorProto.UNDEFINED, None) for o in outputs if o]
    for result in results:
        result.ClearField("type")
    graph = helper.make_graph([node], "g", list(types.values()), results)
    imports = [helper.make_opsetid(domain, opset)]
    if domain:
        imports.append(helper.make_opsetid("", 21))
    return helper.make_model(graph, opset_imports=imports, ir_version=IR)


def module_of(model):
    """Return the module that onnx2fx makes of a model with our handlers."""
    register_handlers()
    return onnx2fx.convert(model).eval()


def through_torch(model, feed):
    """Return a model's outputs as the bridge computes them."""
    with torch.no_grad():
        results = module_of(model)(*(torch.from_numpy(np.array(a)) for a in feed if a is not None))
    return [r.numpy() for r in (results if isinstance(results, tuple) else (results,))]


def through_runtime(model, feed):
    """Return a model's outputs as ONNX Runtime computes them."""
    present = [a for a in feed if a is not None]
    return run(model, {i.name: a for i, a in zip(model.graph.input, present, strict=True)})


def assert_agree(model, feed, *, rtol=1e-4, atol=1e-5):
    """Check that the bridge and ONNX Runtime give the same outputs, shapes and types too."""
    ours, theirs = through_torch(model, feed), through_runtime(model, feed)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def gradients_are_right(model, feed):
    """Say whether the gradients with regard to all float64 arrays agree with differences."""
    module = module_of(model)
    given = [torch.from_numpy(np.array(a)) for a in feed if a is not None]
    for tensor in given:
        tensor.requires_grad_(tensor.dtype == torch.float64)

    def floats(*args):
        results = module(*args)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(r for r in results if r.is_floating_point())

    return torch.autograd.gradcheck(floats, given)
