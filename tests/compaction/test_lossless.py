"""Real models: what a plan does not name survives, field by field, and the result is a model."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors
from text_models import differences, full_plan, random_plan, session

from onnx_relief.graph.document import load
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import mask
from onnx_relief.graph.walk import constants_by_home

ROOT = Path(__file__).parent.parent
WHEEL = Path(onnx.__file__).parent / "backend" / "test" / "data"
CORPUS = sorted((ROOT / "corpus").glob("*.onnx"))
LIGHT = sorted((WHEEL / "light").glob("*.onnx"))
SMALL = sorted({*WHEEL.rglob("*.onnx")} - {*LIGHT})
OURS = sorted((ROOT / "models").glob("*.onnx"))

# A ConstantOfShape is written out where it is masked: take layers that stay small then.
WEIGHTS_PER_MODEL = 300_000
BYTES_TO_START = 100_000_000


def marked(paths):
    return [pytest.param(path, id=f"{path.parent.name}/{path.stem}") for path in paths]


MODELS = [
    *marked([*SMALL, *LIGHT, *OURS]),
    *(pytest.param(path, id=path.stem, marks=pytest.mark.corpus) for path in CORPUS),
]


def test_the_models_of_the_onnx_package_were_found():
    assert (len(LIGHT), len(SMALL) >= 140) == (9, True)


@pytest.mark.corpus
def test_corpus_was_found():
    if not CORPUS:
        pytest.skip("no corpus/ folder; tools/fetch_corpus.py makes it")
    assert len(CORPUS) >= 10


def small_layers(found):
    """Return the names of the first layers that together hold few weights."""
    names, weights = [], 0
    for site in found.sites:
        size = sum(part.view.size for part in site.parts)
        if weights + size <= WEIGHTS_PER_MODEL:
            names.append(site.layer.name)
            weights += size
    return names


def named_by(plan, found):
    """Return the names of all tensors that a plan may change."""
    layers = {layer.name: layer for layer in found.layers}
    names = {name for entry in plan for name in entry.normalisation}
    for entry in plan:
        layer = layers[entry.layer]
        names |= {weight.name for weight in layer.weights}
        names |= {layer.bias.name} if layer.bias else set()
    return names


@pytest.mark.parametrize("path", MODELS)
def test_plan_that_keeps_everything_changes_nothing(path):
    document = load(path)
    found = find_layers(document)
    assert full_plan(found).drops_nothing
    masked = mask(found, full_plan(found), follow_units(found))
    assert differences(document.proto, masked.proto) == []
    assert masked.edits == document.edits == ()
    if path.stat().st_size < BYTES_TO_START:
        original = onnx.load(path, load_external_data=False)
        assert differences(original, masked.proto) == []


@pytest.mark.parametrize("path", MODELS)
def test_random_plan_changes_nothing_but_what_it_names(path):
    document = load(path)
    found = find_layers(document)
    chosen = small_layers(found)
    if not chosen:
        pytest.skip("no small layer to prune")
    plan = random_plan(found, 0.5, layers=chosen, removed=0.2)
    masked = mask(found, plan, follow_units(found)).proto
    assert differences(document.proto, masked)
    onnx.checker.check_model(masked.SerializeToString())
    assert_starts_as_before(path, masked)

    names = named_by(plan, found)
    before, after = constants_by_home(document.proto), constants_by_home(masked)
    for home, holder in after.items():
        if str(home) in names:
            holder.CopyFrom(before[home])
    assert differences(document.proto, masked) == []


def assert_starts_as_before(path, masked):
    """Check that ONNX Runtime takes the masked model, if it takes the original."""
    if path.stat().st_size > BYTES_TO_START:
        return
    try:
        session(path.read_bytes())
    except (runtime_errors.Fail, runtime_errors.InvalidGraph, runtime_errors.NotImplemented):
        return
    session(masked)


def test_most_models_of_the_onnx_package_have_no_layer_and_the_rest_are_known():
    """A finder that finds nothing would pass every other test here."""
    found = {path.parent.name: len(find_layers(load(path)).sites) for path in SMALL}
    assert sum(count > 0 for count in found.values()) >= 30
    layers = {path.stem: len(find_layers(load(path)).sites) for path in LIGHT}
    assert layers == {
        "light_bvlc_alexnet": 8,
        "light_densenet121": 121,
        "light_inception_v1": 58,
        "light_inception_v2": 70,
        "light_resnet50": 54,
        "light_shufflenet": 50,
        "light_squeezenet": 26,
        "light_vgg19": 19,
        "light_zfnet512": 8,
    }
