"""What scores connections, and how much goes, in the user's unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from onnx_relief.budget import Budget, parse_bytes

BUDGETS = "Criteria, budgets (one at most) and repair"


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Which criterion, and which budget instead of alpha."""

    criterion: Annotated[
        str | None,
        typer.Option(
            help="relief (the paper's), magnitude, magnitude-l1, wanda, obs (second order: the "
            "surviving weights make up for the others), taylor (gradients; of the loss where the "
            "data has labels), or random. By default relief with --alpha, and obs with a budget or "
            "for channels.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Share of the prunable weights that goes, like 0.9; exact. Not with "
            "--granularity channel.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    target_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="5MB",
            help="Largest size of the model, with its data files, once zipped. Not with "
            "--granularity channel.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Prune as much as costs no more points of the metric on --eval-data; without "
            "labels, points of agreement with the dense model, or hundredths of cosine or error. "
            "Not with --granularity channel.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            metavar="ANALYSIS.json",
            help="Spread the budget by what `analyze` measured of each layer. Not with "
            "--granularity channel.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="0.5,0.7,0.9",
            help="Prune to each of these shares, measuring once, and show the trade-off; the "
            "models are called MODEL.pruned-50.onnx and so on.",
            rich_help_panel=BUDGETS,
        ),
    ] = None
    memory: Annotated[
        str,
        typer.Option(
            metavar="2GB",
            help="Memory that second moments, and a step of training, may take, about.",
            rich_help_panel=BUDGETS,
        ),
    ] = "2GB"
    seed: Annotated[int, typer.Option(help="For what is drawn.", rich_help_panel=BUDGETS)] = 0

    def budget(self, target_params: float | None, target_macs: float | None) -> Budget:
        """Return the budget that was said, with two flags that are declared elsewhere.

        Raises:
            SettingsError: There are several, or one makes no sense.
        """
        return Budget(
            sparsity=self.sparsity,
            target_params=target_params,
            target_macs=target_macs,
            target_bytes=parse_bytes("--target-bytes", self.target_bytes)
            if self.target_bytes
            else None,
            max_drop=self.max_drop,
        )

    def memory_bytes(self) -> int:
        """Return the memory for second moments.

        Raises:
            SettingsError: It is no size.
        """
        return parse_bytes("--memory", self.memory)
