"""No flag of `prune` is ignored without a word: those that do not go together are refused."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import pytest
from classifier import mlp, samples

import onnx_relief as relief
from onnx_relief.budget import Budget
from onnx_relief.commands.prune_options import PruneOptions

PRUNE = "prune model.onnx --data data.npz "
CUT = PRUNE + "--granularity channel "
TWICE = {
    PRUNE + "--ratio 0.3": "--ratio is about whole channels; add --granularity channel",
    PRUNE + "--sparsity 0.5 --ratio 0.3": "--ratio is about whole channels",
    PRUNE + "--target-latency 0.5x": "--target-latency is about whole channels",
    PRUNE + "--heads": "--heads is about whole channels",
    PRUNE + "--min-units 4": "--min-units is about whole channels",
    PRUNE + "--latency-batch 8": "--latency-batch is about whole channels",
    PRUNE + "--sweep 0.5 --latency-threads 2": "--latency-threads is about whole channels",
    PRUNE + "--round-to 8": "--round-to is about channels that are cut; add --compact",
    PRUNE + "--scope layer": "--scope says how a budget is spread over the layers",
    CUT + "--sparsity 0.5": "--sparsity does not go with --granularity channel; say how much with",
    CUT + "--max-drop 1": "--max-drop does not go with --granularity channel",
    CUT + "--target-bytes 1MB": "--target-bytes does not go with --granularity channel",
    CUT + "--alpha 0.5": "--alpha does not go with --granularity channel",
    CUT + "--alpha-layer x=0.5": "--alpha-layer does not go with --granularity channel",
    CUT + "--compact": "--compact does not go with --granularity channel; leave it out",
    CUT + "--save-plan p.json": "--save-plan does not go with --granularity channel",
    CUT + "--store sparse": "--store sparse does not go with --granularity channel",
    CUT + "--target-macs 0.5 --ratio 0.3": "give one of them, not both",
    PRUNE + "--sparsity 0.5 --target-bytes 1MB": "there can be one budget only",
    PRUNE + "--sparsity 0.5 --alpha 0.9": "--alpha and --sparsity 0.5 both say how much goes",
    PRUNE + "--sparsity 0.5 --alpha-fc 0.9": "--alpha-fc and --sparsity 0.5 both say how much goes",
    PRUNE + "--max-drop 1 --alpha-layer fc=0.9": "--alpha-layer and --max-drop 1.0 both say",
    PRUNE + "--granularity 2:4 --alpha 0.9": "--alpha and --granularity 2:4 both say how much goes",
    PRUNE + "--granularity 2:4 --sparsity 0.7": "--sparsity 0.7 and --granularity 2:4 both say",
    PRUNE + "--sparsity 0.5 --flip": "--flip is about training; add --repair reconstruct",
    PRUNE + "--sparsity 0.5 --crop-scale 0.5": "--crop-scale is about training; add --repair",
    PRUNE + "--sparsity 0.5 --repair reconstruct --crop-scale 2": "--crop-scale must lie in (0, 1]",
    PRUNE + "--sparsity 0.5 --repair reconstruct --cutmix 2": "--cutmix must lie in [0, 1]",
    PRUNE + "--sparsity 0.5 --repair reconstruct --color-jitter 1": "--color-jitter must lie in",
    CUT + "--cutmix 0.5": "--cutmix is about training; add --repair reconstruct",
    CUT + "--repair bias --repair-epochs 3": "--repair-epochs is about training; add --repair",
    PRUNE + "--sparsity 0.5 --repair reconstruct --repair-epochs 0": "--repair-epochs must be 1",
    PRUNE + "--plan p.json --sparsity 0.5": "--plan says what is kept, and so does --sparsity",
    PRUNE + "--plan p.json --criterion obs": "--plan says what is kept, and so does --criterion",
}


@pytest.mark.usefixtures("pictures_folder")
@pytest.mark.parametrize("line", TWICE)
def test_flags_that_do_not_go_together_are_a_sentence(refusal, line):
    assert TWICE[line] in refusal(line, 2)


def test_the_help_says_which_budgets_do_not_go_with_channels():
    types = get_type_hints(PruneOptions, include_extras=True)
    names = [field.name for field in fields(Budget)]
    helps = {name: types[name].__metadata__[0].help for name in names}
    refused = {name for name, text in helps.items() if "Not with --granularity channel" in text}
    assert refused == {"sparsity", "target_bytes", "max_drop"}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"sparsity": 0.5, "alpha": 0.9}, "--alpha and --sparsity 0.5 both"),
        ({"sparsity": 0.5, "alpha_layer": {"*": 0.9}}, "--alpha-layer and --sparsity 0.5 both"),
        ({"granularity": "2:4", "target_macs": 0.5}, "--target-macs 0.5 and --granularity 2:4"),
    ],
)
def test_nor_in_python(said, sentence):
    with pytest.raises(relief.SettingsError, match=sentence):
        relief.prune(mlp(), samples(), **said)
