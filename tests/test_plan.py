"""A plan survives its file, and a hostile file is refused in one sentence."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnx_relief.errors import SettingsError
from onnx_relief.plan import LayerPlan, PrunePlan


def entry(units=3, inputs=4, taps=1, *, name="layer", **changes):
    plan = LayerPlan(
        layer=name,
        alpha=0.5,
        keep=(np.arange(units * inputs * taps).reshape(units, inputs, taps) % 3 > 0,),
        keep_bias=np.ones((units, 1), bool),
        removed=np.zeros(units, bool),
    )
    return replace(plan, **changes)


def text_of(*layers):
    return PrunePlan(layers=layers).to_json()


def assert_same(one, other):
    assert (one.layer, one.alpha, one.normalisation) == (
        other.layer,
        other.alpha,
        other.normalisation,
    )
    masks = zip(
        (*one.keep, one.keep_bias, one.removed),
        (*other.keep, other.keep_bias, other.removed),
        strict=True,
    )
    for mask, again in masks:
        assert (again.dtype, again.shape) == (np.dtype(bool), mask.shape)
        np.testing.assert_array_equal(mask, again)


def test_a_plan_remembers_the_file_that_it_was_made_for():
    plan = PrunePlan(layers=(entry(),), model="ab12")
    assert PrunePlan.from_json(plan.to_json()).model == "ab12"
    assert plan.within(PrunePlan(layers=(entry(),), model="cd34")).model == "ab12"
    nameless = PrunePlan(layers=(entry(),)).to_json()
    assert "model" not in json.loads(nameless)
    assert PrunePlan.from_json(nameless).model == ""
    with pytest.raises(SettingsError, match="is no name"):
        PrunePlan.from_json(plan.to_json().replace('"ab12"', "12"))


@given(data=st.data(), units=st.integers(0, 9), parts=st.integers(1, 2), alpha=st.floats(0.01, 1))
def test_plan_read_back_is_the_plan_and_gives_the_same_text(data, units, parts, alpha):
    def masks(*shape):
        return data.draw(arrays.arrays(bool, shape))

    removed = masks(units)
    keep = tuple(masks(units, data.draw(st.integers(0, 5)), 3) for _ in range(parts))
    plan = LayerPlan(
        layer=data.draw(st.text()),
        alpha=alpha,
        keep=tuple(part & ~removed[:, None, None] for part in keep),
        keep_bias=masks(units, 2) & ~removed[:, None],
        removed=removed,
        normalisation=tuple(data.draw(st.lists(st.text(), max_size=2))),
    )
    text = text_of(plan)
    (again,) = PrunePlan.from_json(text)
    assert_same(plan, again)
    assert text_of(again) == text


def test_text_can_be_read_by_people():
    (layer,) = json.loads(text_of(entry()))["layers"]
    assert (layer["layer"], layer["alpha"]) == ("layer", 0.5)
    assert (layer["connections"], layer["kept"]) == (12, 8)


def test_counts_and_questions():
    plan = entry(keep=(np.array([[[1, 0], [0, 0]], [[0, 0], [0, 0]]], bool),))
    assert plan.kept_connections == 1
    assert plan.alive.tolist() == [True, False]
    whole = PrunePlan(layers=(entry(keep=(np.ones((3, 4, 1), bool),)),))
    assert whole.drops_nothing
    assert not PrunePlan(layers=(entry(),)).drops_nothing
    assert whole.for_layer("layer") is whole.layers[0]
    assert whole.for_layer("other") is None


@pytest.mark.parametrize(
    "change",
    [{"keep_bias": np.zeros((3, 1), bool)}, {"removed": np.array([True, False, False])}],
)
def test_lost_bias_or_unit_counts_as_dropped(change):
    assert not entry(keep=(np.ones((3, 4, 1), bool),), **change).drops_nothing


def spoilt(path, value):
    """Return the text of a good plan with one entry replaced; None removes it."""
    data = json.loads(text_of(entry()))
    *steps, last = path
    place = data
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data)


KEEP = ("layers", 0, "keep", 0)


def packed(raw):
    return base64.b64encode(zlib.compress(raw)).decode()


WRONG = {
    "no JSON": "{",
    "nothing": "",
    "a number": "3",
    "null": "null",
    "a list": "[]",
    "a deep list": "[" * 100_000,
    "no format": "{}",
    "another format": spoilt(["format"], "other"),
    "layers missing": spoilt(["layers"], None),
    "layers is text": spoilt(["layers"], "abc"),
    "layers is a number": spoilt(["layers"], 3),
    "layer is null": json.dumps({"format": "onnx-relief plan 1", "layers": [None]}),
    "name is a number": spoilt(["layers", 0, "layer"], 3),
    "name missing": spoilt(["layers", 0, "layer"], None),
    "alpha is text": spoilt(["layers", 0, "alpha"], "much"),
    "alpha is too large": spoilt(["layers", 0, "alpha"], 2),
    "alpha is NaN": spoilt(["layers", 0, "alpha"], float("nan")),
    "no weights": spoilt(["layers", 0, "keep"], []),
    "weights are an object": spoilt(["layers", 0, "keep"], {"a": 1}),
    "mask is a number": spoilt(KEEP, 3),
    "shape is a number": spoilt([*KEEP, "shape"], 3),
    "shape has two axes": spoilt([*KEEP, "shape"], [3, 4]),
    "shape is negative": spoilt([*KEEP, "shape"], [-3, -4, 1]),
    "shape is a fraction": spoilt([*KEEP, "shape"], [3.0, 4, 1]),
    "shape is infinite": spoilt([*KEEP, "shape"], [float("inf"), 4, 1]),
    "shape is text": spoilt([*KEEP, "shape"], "341"),
    "shape is true": spoilt([*KEEP, "shape"], [True, 4, 1]),
    "shape is huge": spoilt([*KEEP, "shape"], [1 << 20, 1 << 20, 1 << 20]),
    "shape is beyond numbers": spoilt([*KEEP, "shape"], [1 << 70, 1 << 70, 0]),
    "other units": spoilt([*KEEP, "shape"], [4, 3, 1]),
    "bits are no base64": spoilt([*KEEP, "bits"], "%%%"),
    "bits are not ASCII": spoilt([*KEEP, "bits"], "é"),
    "bits are a list": spoilt([*KEEP, "bits"], [1]),
    "bits are garbage": spoilt([*KEEP, "bits"], base64.b64encode(b"garbage").decode()),
    "too few bits": spoilt([*KEEP, "bits"], packed(b"\0")),
    "too many bits": spoilt([*KEEP, "bits"], packed(b"\0" * 3)),
    "normalisation is null": spoilt(["layers", 0, "normalisation"], None),
    "normalisation holds numbers": spoilt(["layers", 0, "normalisation"], [1]),
    "a layer twice": text_of(entry(), entry()),
    "a removed unit keeps weights": text_of(entry(removed=np.ones(3, bool))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_plan_is_refused_in_one_sentence(wrong):
    with pytest.raises(
        SettingsError, match=r"^this is not a plan that --save-plan wrote"
    ) as caught:
        PrunePlan.from_json(WRONG[wrong])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("shape", [[3, 4, 1], [60_000, 60_000, 3]])
def test_zip_bomb_is_refused_without_being_inflated(shape):
    bomb = spoilt([*KEEP, "bits"], packed(b"\0" * (64 << 20)))
    data = json.loads(bomb)
    data["layers"][0]["keep"][0]["shape"] = shape
    bomb = json.dumps(data)
    tracemalloc.start()
    with pytest.raises(SettingsError):
        PrunePlan.from_json(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_limit_counts_the_entries_of_all_masks():
    text = text_of(entry(), entry(name="other"))
    assert len(PrunePlan.from_json(text, limit=2 * (12 + 3 + 3)).layers) == 2
    with pytest.raises(SettingsError, match="more than 35 entries"):
        PrunePlan.from_json(text, limit=35)


@given(
    st.text(max_size=40)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
)
def test_any_text_is_a_plan_or_refused(text):
    with pytest.raises(SettingsError):
        PrunePlan.from_json(text)


@given(
    position=st.integers(0, 10_000),
    character=st.characters(min_codepoint=32, max_codepoint=126),
)
def test_a_plan_with_one_wrong_character_is_a_plan_or_refused(position, character):
    text = text_of(entry(9, 9, 2), entry(2, 2, name="b"))
    position %= len(text)
    with suppress(SettingsError):
        PrunePlan.from_json(text[:position] + character + text[position + 1 :])
