"""Flags of `prune` that say how what stays makes up for what goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from onnx_relief.commands.budget_options import BUDGETS
from onnx_relief.settings import Reconstruction


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """How a pruned model is repaired without labels."""

    repair: Annotated[
        str | None,
        typer.Option(
            help="How what stays makes up for what goes, without labels. none; bias: every unit "
            "gets its mean and variance back, layer by layer; least-squares: surviving weights "
            "give the dense layers' outputs again; reconstruct: they are trained to (extra "
            "\\[retrain]); for channels also mean: biases give back the mean signal that is lost. "
            "By default least-squares with a budget and for channels, and none with --alpha.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    repair_epochs: Annotated[
        int | None,
        typer.Option(
            help="With --repair reconstruct: walks through the data; by default about ten minutes "
            "of one core.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    flip: Annotated[
        bool,
        typer.Option(
            "--flip",
            help="With --repair reconstruct: mirror pictures left to right at random.",
            rich_help_panel=BUDGETS,
        ),
    ] = False
    crop_padding: Annotated[
        int,
        typer.Option(
            help="With --repair reconstruct: shift pictures at random by up to so many pixels.",
            rich_help_panel=BUDGETS,
        ),
    ] = 0
    crop_scale: Annotated[
        float,
        typer.Option(
            help="With --repair reconstruct: enlarge a random part of every picture, of at least "
            "this share of the area that the model sees; what --crop leaves out takes part.",
            rich_help_panel=BUDGETS,
        ),
    ] = 1.0
    color_jitter: Annotated[
        float,
        typer.Option(
            help="With --repair reconstruct: change brightness, contrast and saturation of "
            "pictures at random, by up to this share of themselves.",
            rich_help_panel=BUDGETS,
        ),
    ] = 0.0
    cutmix: Annotated[
        float,
        typer.Option(
            help="With --repair reconstruct: put a random part of another picture into this share "
            "of the pictures.",
            rich_help_panel=BUDGETS,
        ),
    ] = 0.0

    @property
    def reconstruction(self) -> Reconstruction:
        """How `--repair reconstruct` trains."""
        return Reconstruction(
            epochs=self.repair_epochs,
            flip=self.flip,
            crop_padding=self.crop_padding,
            crop_scale=self.crop_scale,
            color_jitter=self.color_jitter,
            cutmix=self.cutmix,
        )
