"""The report as JSON: plain data, numbers as numbers, nothing that a reader cannot parse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from classifier import cnn
from made_up import evaluation, report, row
from text_models import random_plan

from onnx_relief.graph.cost import cost_of
from onnx_relief.graph.document import load
from onnx_relief.graph.follow import follow_units
from onnx_relief.graph.layers import find_layers
from onnx_relief.plan import PrunePlan
from onnx_relief.report.build import as_plain, layer_rows, to_json


def rows_for(share, layers=None):
    survey = find_layers(load(cnn()))
    plan = random_plan(survey, share, layers=layers) if layers != () else PrunePlan(layers=())
    cost = cost_of(survey, {"conv": 64.0})
    return plan, layer_rows(survey, plan, follow_units(survey), {"fc": "--skip fc"}, cost)


def test_json_holds_what_the_value_holds():
    loaded = json.loads(report().to_json())
    assert loaded["layers"][0]["kept"] == 60
    assert loaded["evaluation"]["pruned"] == 97.5
    assert loaded["totals"]["connections"] == {"before": 100, "after": 60}
    assert loaded["totals"]["macs"] == {"before": 9000.0, "after": 5400.0}
    assert loaded["totals"]["bytes_zipped"] == {"before": 900, "after": 500}


def test_json_survives_hostile_names():
    text = report(layers=(row(name='\x1b[2J"\ud800\u202e\n'),)).to_json()
    assert text.isascii()
    assert json.loads(text)["layers"][0]["name"] == '\x1b[2J"\ud800\u202e\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_numbers_that_json_lacks_become_null(value):
    assert json.loads(to_json({"a": value})) == {"a": None}
    assert (
        json.loads(report(evaluation=evaluation(dense=value)).to_json())["evaluation"]["dense"]
        is None
    )


def test_numpy_numbers_become_numbers():
    assert as_plain({"a": np.int64(3), "b": [np.bool_(True)], "c": (np.float32(0.5),)}) == {
        "a": 3,
        "b": [True],
        "c": [0.5],
    }


def test_rows_say_what_the_plan_says():
    plan, (conv, fc) = rows_for(0.5)
    for entry, found in zip(plan, (conv, fc), strict=True):
        assert found.kept == entry.kept_connections
        assert found.alive == int(entry.alive.sum())
        assert (found.alpha, found.left_alone) == (0.5, None)
    assert (conv.connections, conv.macs) == (8, 72 * 64)
    assert fc.macs is None


def test_layers_without_a_plan_keep_everything_and_say_why():
    _, (conv, fc) = rows_for(0.0, layers=["conv"])
    assert conv.kept == 0
    assert (fc.kept, fc.alive, fc.alpha) == (12, 3, None)
    assert fc.left_alone == "--skip fc"
    assert rows_for(0.5, layers=())[1][0].left_alone == "no plan was made for it"


def test_totals_are_sums():
    found = report(layers=(row(), row(connections=10, kept=1, units=4, alive=1)))
    assert (found.connections, found.kept, found.dead_units) == (110, 61, 5)
