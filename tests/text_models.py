"""Small models from ONNX text, plans for them, and what two models differ in."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

from onnx_relief.graph.document import load
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.plan import LayerPlan, PrunePlan


def build(graph, *, functions="", opset=21, ir=10, **constants):
    """Return the model of a graph in ONNX text, with arrays (or tensors) as initializers."""
    imports = f'["" : {opset}, "my" : 1, "com.microsoft" : 1, "ai.onnx.ml" : 3]'
    model = parser.parse_model(f"<ir_version: {ir}, opset_import: {imports}> g {graph} {functions}")
    for name, value in constants.items():
        if not isinstance(value, onnx.TensorProto):
            value = numpy_helper.from_array(np.asarray(value), name)
        model.graph.initializer.append(value)
    return model


def function(name, signature, body, opset=21):
    """Return a local function of domain `my` in ONNX text."""
    imports = f'opset_import: ["" : {opset}, "my" : 1]'
    return f'<domain: "my", {imports}> {name} {signature} {{ {body} }}'


def survey(graph, **constants):
    """Return what `find_layers` finds in a graph in ONNX text."""
    return find_layers(load(build(graph, **constants)))


def only_layer(graph, **constants):
    """Return the survey of a model with one layer, and the site of that layer."""
    found = survey(graph, **constants)
    assert [site.layer.name for site in found.sites] == ["layer"], found.refusals
    return found, found.sites[0]


def random(*shape, seed=0, dtype=np.float32):
    """Return normal numbers, none of them zero."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return np.where(np.abs(values) < 0.01, 0.01, values).astype(dtype)


def run(model, feed, *, optimised=False):
    """Return the outputs of a model in ONNX Runtime on the CPU."""
    return session(model, optimised=optimised).run(None, feed)


def session(model, *, optimised=False):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, (str, bytes)) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def assert_outputs_agree(a, b, feed, *, rtol, atol):
    """Check that two models give the same outputs, shapes and types too."""
    first, second = run(a, feed), run(b, feed)
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(other, one, rtol=rtol, atol=atol)


def differences(a, b, path=""):
    """Return the paths of all fields in which two messages differ, unknown fields too."""
    if a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True):
        return []
    found = []
    for field in a.DESCRIPTOR.fields:
        here = f"{path}.{field.name}" if path else field.name
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.is_repeated:
            found += _in_lists(one, other, here, field.message_type is not None)
        elif a.HasField(field.name) != b.HasField(field.name):
            found.append(here)
        elif field.message_type is not None:
            found += differences(one, other, here)
        elif one != other:
            found.append(here)
    return found or [f"{path} (a field that this ONNX does not know)"]


def _in_lists(one, other, path, of_messages):
    if len(one) != len(other) or not of_messages:
        return [] if list(one) == list(other) else [path]
    pairs = enumerate(zip(one, other, strict=True))
    return [text for i, (a, b) in pairs for text in differences(a, b, f"{path}[{i}]")]


def full_plan(found):
    """Return the plan that keeps everything, connection by connection."""
    return PrunePlan(
        layers=tuple(
            LayerPlan(
                layer=site.layer.name,
                alpha=0.5,
                keep=tuple(np.ones((*part.layout.rows[:2], 1), bool) for part in site.parts),
                keep_bias=np.ones(
                    site.bias.layout.rows if site.bias else (site.layer.units, 0), bool
                ),
                removed=np.zeros(site.layer.units, bool),
            )
            for site in found.sites
        )
    )


def random_plan(found, share, *, seed=0, layers=None, removed=0.0):
    """Return a plan that keeps each kernel, weight and bias with the probability `share`.

    Args:
        found: The survey of a model.
        share: Probability to be kept.
        seed: Of the choice.
        layers: Names of the layers to have a plan; all by default.
        removed: Probability that a unit goes as a whole, where units can be followed.
    """
    rng = np.random.default_rng(seed)
    flows = follow_units(found)
    chosen = [s for s in found.sites if layers is None or s.layer.name in layers]
    return PrunePlan(layers=tuple(_random(site, flows, share, removed, rng) for site in chosen))


def _random(site, flows, share, removed, rng):
    layer, flow = site.layer, flows[site.layer.name]
    gone = rng.random(layer.units) < (0.0 if flow.blocked else removed)
    whole = rng.random() < 0.5
    shapes = [(*part.layout.rows[:2], 1 if whole else part.layout.rows[2]) for part in site.parts]
    return LayerPlan(
        layer=layer.name,
        alpha=0.5,
        keep=tuple((rng.random(shape) < share) & ~gone[:, None, None] for shape in shapes),
        keep_bias=(rng.random((layer.units, layer.bias.count if layer.bias else 0)) < share)
        & ~gone[:, None],
        removed=gone,
        normalisation=flow.normalisation_names if gone.any() else (),
    )


def masked(model, share=0.5, *, plan=None, **choice):
    """Return a model after a random plan, the plan, and the survey it was made for."""
    found = find_layers(load(model))
    plan = plan or random_plan(found, share, **choice)
    return mask(found, plan, follow_units(found)).proto, plan, found


def kept_rows(plan, found, index=0):
    """Return the mask of a layer's weight in full, (units, inputs, taps)."""
    (entry,), (site,) = plan.layers, found.sites
    return np.broadcast_to(entry.keep[index], site.parts[index].layout.rows)


def initializer(model, name="w"):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)
