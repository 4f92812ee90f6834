"""What the user decides is checked when it is said, and each layer gets what was meant for it."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_relief.errors import SettingsError
from onnx_relief.plan import Layer, LayerKind, Weight
from onnx_relief.settings import Settings, matches


def layer(name: str, kind: LayerKind = LayerKind.FULLY_CONNECTED, weight: str = "w") -> Layer:
    return Layer(name=name, op="Gemm", kind=kind, units=2, weights=(Weight(name=weight, inputs=3),))


FC, RNN = layer("fc1"), layer("rnn", LayerKind.RECURRENT)
CONV = layer("/block.1/conv", LayerKind.CONVOLUTION, "block.1.weight")


@pytest.mark.parametrize("value", [0.0, -0.5, 1.01, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["alpha", "alpha_conv", "alpha_fc"])
def test_alpha_outside_its_range_is_refused_by_its_flag(name: str, value: float) -> None:
    flag = "--" + name.replace("_", "-")
    with pytest.raises(SettingsError, match=rf"^{flag} must lie in \(0, 1\], got {value}$"):
        Settings(**{name: value})


def test_alpha_of_a_layer_outside_its_range_is_refused_with_its_pattern() -> None:
    with pytest.raises(SettingsError, match=r"^--alpha-layer fc\* must lie in \(0, 1\], got 2"):
        Settings(alpha_layers=(("fc*", 2.0),))


@pytest.mark.parametrize("name", ["samples", "batch_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_below_one_are_refused(name: str, value: int) -> None:
    flag = "--" + name.replace("_", "-")
    with pytest.raises(SettingsError, match=f"^{flag} must be at least 1, got {value}$"):
        Settings(**{name: value})


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^--seed must be at least 0, got -1$"):
        Settings(seed=-1)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    Settings(alpha=1.0, alpha_conv=1e-9, samples=1, batch_size=1, seed=0)
    assert Settings(samples=None).samples is None


@pytest.mark.parametrize(
    ("said", "fc", "conv", "rnn"),
    [
        ({}, 0.95, 0.95, 0.95),
        ({"alpha": 0.8}, 0.8, 0.8, 0.8),
        ({"alpha": 0.8, "alpha_conv": 0.9}, 0.8, 0.9, 0.8),
        ({"alpha": 0.8, "alpha_fc": 0.9}, 0.9, 0.8, 0.9),
        ({"alpha_fc": 0.9, "alpha_layers": (("fc*", 0.5),)}, 0.5, 0.95, 0.9),
        ({"alpha_layers": (("*", 0.5), ("*conv", 0.6))}, 0.5, 0.6, 0.5),
        ({"alpha_layers": (("*conv", 0.6), ("*", 0.5))}, 0.5, 0.5, 0.5),
        ({"alpha_layers": (("block.1.*", 0.6),)}, 0.95, 0.6, 0.95),
    ],
)
def test_the_most_special_alpha_counts(said: Any, fc: float, conv: float, rnn: float) -> None:
    settings = Settings(**said)
    assert [settings.alpha_for(one) for one in (FC, CONV, RNN)] == [fc, conv, rnn]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("fc1", "fc1"),
        ("fc?", "fc1"),
        ("*", "fc1"),
        ("w", "fc1"),
        ("layer[0]", "layer[0]"),  # brackets are a pattern too, but a name is always itself
        ("l[ae]yer", "layer"),
    ],
)
def test_patterns_match_names_of_layers_and_weights(pattern: str, name: str) -> None:
    assert matches(layer(name), pattern)


@pytest.mark.parametrize("pattern", ["FC1", "fc", "fc1 ", "W"])
def test_patterns_match_whole_names_and_case(pattern: str) -> None:
    assert not matches(FC, pattern)


def test_layers_are_left_out_with_the_reason() -> None:
    assert Settings().leaves_out(FC) is None
    assert Settings(only=("fc*",)).leaves_out(FC) is None
    assert Settings(only=("fc*",)).leaves_out(CONV) == "it matches no --only pattern"
    assert Settings(skip=("x", "fc*")).leaves_out(FC) == "--skip fc*"
    assert Settings(only=("fc*",), skip=("fc1",)).leaves_out(FC) == "--skip fc1"


@pytest.mark.parametrize(
    ("said", "flag"),
    [
        ({"only": ("fc1", "fc9")}, "--only"),
        ({"skip": ("fc9",)}, "--skip"),
        ({"alpha_layers": (("fc9", 0.5),)}, "--alpha-layer"),
    ],
)
def test_a_pattern_that_matches_nothing_is_a_mistake(said: Any, flag: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{flag} 'fc9' matches no layer; .*fc1, rnn"):
        Settings(**said).check_patterns((FC, RNN))
    Settings(**said).check_patterns((FC, layer("fc9")))
