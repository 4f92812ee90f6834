"""Choices that make no sense are refused where they are said, by the flag's name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from onnx_relief.errors import SettingsError
from onnx_relief.training import TrainSettings


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("--epochs", {"epochs": 0}),
        ("--epochs", {"epochs": 10**21}),
        ("--epochs", {"epochs": 1.5}),
        ("--batch-size", {"batch_size": 0}),
        ("--optimizer", {"optimizer": "lion"}),
        ("--lr", {"lr": 0.0}),
        ("--lr", {"lr": float("nan")}),
        ("--momentum", {"momentum": 1.0}),
        ("--weight-decay", {"weight_decay": -1.0}),
        ("--schedule", {"schedule": "linear"}),
        ("--milestones", {"milestones": (0.5, 1.0)}),
        ("--milestones", {"milestones": (0.5, 0.3)}),
        ("--gamma", {"gamma": 0.0}),
        ("--warmup", {"warmup": 10.0, "epochs": 10}),
        ("--clip", {"clip": 0.0}),
        ("--precision", {"precision": "8"}),
        ("--seed", {"seed": -1}),
        ("--validation", {"validation": 1.0}),
        ("--patience", {"patience": 0}),
        ("--patience", {"patience": 3, "validation": 0.0}),
        ("--loss", {"loss": "hinge"}),
        ("--loss", {"loss": "module:"}),
        ("--distill", {"distill": 1.5}),
        ("--temperature", {"temperature": 0.0}),
        ("--crop-padding", {"crop_padding": -1}),
        ("--crop-scale", {"crop_scale": 0.0}),
        ("--crop-scale", {"crop_scale": float("nan")}),
        ("--device", {"device": "tpu"}),
        ("--devices", {"devices": 0}),
        ("--devices", {"devices": 3, "batch_size": 128}),
    ],
)
def test_a_bad_value_names_its_flag(flag, options):
    with pytest.raises(SettingsError, match=rf"{flag}\b"):
        TrainSettings(**options)


def test_every_choice_has_a_place_in_the_description():
    described = TrainSettings.__doc__ or ""
    for field in fields(TrainSettings):
        assert f"        {field.name}: " in described


def test_small_batches_keep_their_statistics_unless_told():
    assert TrainSettings().freezes_bn(15)
    assert not TrainSettings().freezes_bn(16)
    assert not TrainSettings(freeze_bn=False).freezes_bn(1)
    assert TrainSettings(freeze_bn=True).freezes_bn(256)


def test_a_function_of_the_users_own_is_a_loss():
    assert TrainSettings(loss="my.package:loss").loss == "my.package:loss"
