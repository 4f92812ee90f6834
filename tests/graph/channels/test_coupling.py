"""`inspect --groups`: what is coupled, what it carries, and what stays."""

from __future__ import annotations

import json

import onnx
from structures import chain, residual
from text_models import random

from onnx_relief.channels.coupling import coupled_units
from onnx_relief.cli import main
from onnx_relief.graph.document import load


def test_a_chain_says_what_its_channels_run_through():
    rows, stays = coupled_units(load(chain()), {"x": random(1, 3, 8, 8)}, {"h": 672.0})
    first = next(row for row in rows if row.groups == 6)
    axes = {(one.constant, one.axis): (one.entries, one.size) for one in first.members}
    assert axes == {
        **{("k1", 0): (6, 6), ("b1", 0): (6, 6), ("w1", 1): (96, 96)},
        **{(name, 0): (6, 6) for name in "somv"},
    }
    assert first.parameters == 6 * 27 + 6 * 5 + 7 * 96
    assert first.macs == 672.0
    assert [(row.groups, row.reason) for row in stays] == [(5, "they reach the output 'y'")]


def test_groups_carry_every_parameter_that_touches_them():
    rows, _ = coupled_units(load(residual()), {"x": random(1, 3, 8, 8)}, {})
    touched = {one.constant for row in rows for one in row.members}
    assert touched == {f"k{at}" for at in range(6)} | {"w"}
    assert all(row.macs is None for row in rows)


def test_the_command_lists_groups_and_reasons(tmp_path, capfd):
    path = tmp_path / "chain.onnx"
    onnx.save(chain(), path)
    assert main(["inspect", str(path), "--groups", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert sorted(row["groups"] for row in told["groups"]) == [6, 7]
    assert told["stays"] == [{"reason": "they reach the output 'y'", "groups": 5}]
    assert main(["inspect", str(path), "--groups"]) == 0
    assert "Channels that live or die together: 13 groups" in capfd.readouterr().out


def test_free_sizes_have_to_be_said(tmp_path, capfd):
    model = chain()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(model, tmp_path / "chain.onnx")
    assert main(["inspect", str(tmp_path / "chain.onnx"), "--groups"]) == 2
    assert "--shape" in capfd.readouterr().err
