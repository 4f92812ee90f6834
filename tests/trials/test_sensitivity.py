"""`prune --sensitivity`: a budget spread by what `analyze` has measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
from classifier import data_file, mlp, weights, written
from text_models import random

from onnx_relief.cli import main

ANALYZE = "analyze model.onnx --data data.npz --jobs 1 --granularity weight -o a.json"
PRUNE = "prune model.onnx --data data.npz --granularity weight --sensitivity a.json"


@pytest.fixture(name="here", autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """Work in a folder with a model, data and an analysis."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, mlp())
    data_file(tmp_path)
    assert main([*ANALYZE.split(), "-q"]) == 0
    return tmp_path


def with_distances(here, distances):
    """Say of every layer that it loses so much at any share."""
    found = json.loads((here / "a.json").read_text())
    for row in found["trials"]:
        if row["name"] in distances:
            row["distance"] = row["sparsity"] * distances[row["name"]]
    (here / "a.json").write_text(json.dumps(found))


def left(here, name="model.pruned.onnx"):
    kept = weights(here / name)
    return [int(np.count_nonzero(kept[weight])) for weight in ("w1", "w2")]


def test_the_budget_is_met(command, here):
    assert command(f"{PRUNE} --sparsity 0.6")[0] == 0
    assert sum(left(here)) == 18


@pytest.mark.parametrize(("first", "second"), [(1e3, 1e-3), (1e-3, 1e3)])
def test_the_layer_that_matters_keeps_its_weights(command, here, first, second):
    with_distances(here, {"first": first, "second": second})
    assert command(f"{PRUNE} --sparsity 0.2")[0] == 0
    kept = left(here)
    important, other = (0, 1) if first > second else (1, 0)
    whole = (30, 15)
    assert kept[important] == whole[important]
    assert kept[other] == whole[other] - 9


def test_a_sweep_takes_it_too(command, here):
    with_distances(here, {"first": 1e3, "second": 1e-3})
    assert command(f"{PRUNE} --sweep 0.1,0.2")[0] == 0
    assert left(here, "model.pruned-20.onnx") == [30, 6]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("", "--sensitivity spreads a budget over the layers; give --sparsity"),
        ("--sparsity 0.5 --scope layer", "--sensitivity needs --scope global"),
        ("--sparsity 0.5 --criterion magnitude", "was made with --criterion obs; analyze again"),
        ("--sparsity 0.5 --granularity kernel", "was made with --granularity weight"),
        ("--ratio 0.5 --granularity channel", "--sensitivity does not go with --granularity"),
        ("--sparsity 0.5 --sensitivity none.json", "--sensitivity none.json cannot be read"),
        ("--sparsity 0.5 --sensitivity model.onnx", "--sensitivity model.onnx"),
    ],
)
def test_what_it_does_not_go_with_is_refused(command, here, more, sentence):
    code, out, err = command(f"{PRUNE} {more}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert not (here / "model.pruned.onnx").exists()


def test_an_analysis_of_another_model_is_refused(command, here):
    written(here, mlp(w1=random(6, 5, seed=9)))
    code, _, err = command(f"{PRUNE} --sparsity 0.5")
    assert code == 2
    assert "was made of another model, model.onnx; analyze again" in err


def test_a_layer_that_was_not_analyzed_is_named(command):
    line = ANALYZE.replace("-o a.json", "-o some.json --run some --only first")
    assert command(line)[0] == 0
    code, _, err = command(f"{PRUNE} --sparsity 0.5".replace("a.json", "some.json"))
    assert code == 2
    assert "--sensitivity does not know layer 'second'" in err
    assert command(f"{PRUNE} --sparsity 0.5 --skip second".replace("a.json", "some.json"))[0] == 0
