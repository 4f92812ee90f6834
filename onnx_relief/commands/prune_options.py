"""What `prune` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from onnx_relief.budget import Budget
from onnx_relief.commands.budget_options import BudgetOptions
from onnx_relief.commands.channels import ChannelOptions
from onnx_relief.commands.flags import DATA, WRITING, Force, Model, ReportFile, Samples
from onnx_relief.commands.options import (
    CHOOSING,
    ChooseOptions,
    PrepareOptions,
    RunOptions,
    SpeakOptions,
    parse_alphas,
    parse_samples,
)
from onnx_relief.commands.sensitivity import losses_in
from onnx_relief.job import choose_member
from onnx_relief.settings import (
    DEFAULT_ALPHA,
    Estimator,
    Scope,
    Settings,
    alpha_besides,
)
from onnx_relief.structures import KERNEL, Structure, parse_structure

CHANNEL = "channel"


@dataclass(frozen=True, kw_only=True)
class PruneOptions(
    ChooseOptions, BudgetOptions, ChannelOptions, PrepareOptions, RunOptions, SpeakOptions
):
    """Everything that `prune` can be told."""

    model: Model
    data: Annotated[
        str | None,
        typer.Option(
            help="Sample data: a folder or zip of pictures, .npz, .npy, a folder of feeds; "
            "FILE.npz:train takes one split.",
            rich_help_panel=DATA,
        ),
    ] = None
    eval_data: Annotated[
        str | None,
        typer.Option(
            help="Data to compare both models on; by default the sample data.",
            rich_help_panel=DATA,
        ),
    ] = None
    samples: Samples = "1000"
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Share of each unit's signal to keep, in (0, 1]; "
            f"{DEFAULT_ALPHA} unless a budget is given.",
            rich_help_panel=CHOOSING,
        ),
    ] = None
    alpha_conv: Annotated[
        float | None,
        typer.Option(help="The same for convolutions.", rich_help_panel=CHOOSING),
    ] = None
    alpha_fc: Annotated[
        float | None,
        typer.Option(help="The same for everything else.", rich_help_panel=CHOOSING),
    ] = None
    alpha_layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=ALPHA",
            help="The same by name of layer or weight, like '/layer1/*=0.9'; repeatable, the last "
            "match counts.",
            rich_help_panel=CHOOSING,
        ),
    ] = None
    granularity: Annotated[
        str,
        typer.Option(
            help="What goes as one: kernel, weight, row (a unit), a block of units x inputs like "
            "4x1 or N of M inputs like 2:4 (all of them become zeros), or channel (cut out).",
            rich_help_panel=CHOOSING,
        ),
    ] = str(KERNEL)
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Replay a plan of --save-plan; no --data needed then.", rich_help_panel=CHOOSING
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The pruned model; by default MODEL.pruned.onnx in the current folder.",
            rich_help_panel=WRITING,
        ),
    ] = None
    save_plan: Annotated[
        Path | None,
        typer.Option(help="What was kept, as JSON, for --plan.", rich_help_panel=WRITING),
    ] = None
    save_scores: Annotated[
        Path | None,
        typer.Option(
            help="What every connection is worth to the criterion, as .npz, one array per weight; "
            "obs finds survivors together, so that these are not just the best ones.",
            rich_help_panel=WRITING,
        ),
    ] = None
    report: ReportFile = None
    plot: Annotated[
        Path | None,
        typer.Option(help="The curve of --sweep, as .svg or .html.", rich_help_panel=WRITING),
    ] = None
    dump_activations: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the raw input of every layer, as .npy, one per run; "
            "layers in bodies of If, Loop and Scan are left out.",
            rich_help_panel=WRITING,
        ),
    ] = None
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="Cut out what became dead, as the command compact does; --round-to counts, too.",
            rich_help_panel=WRITING,
        ),
    ] = False
    store: Annotated[
        str,
        typer.Option(
            help="dense, or sparse: weights with very few numbers as sparse tensors, where the "
            "file gets smaller by it. Only ONNX Runtime reads those, and once zipped nothing is "
            "won.",
            rich_help_panel=WRITING,
        ),
    ] = "dense"
    force: Force = False

    @property
    def target(self) -> Path:
        """Where the pruned model goes."""
        return self.out or Path(f"{self.model.stem}.pruned.onnx")

    @property
    def outputs(self) -> list[tuple[str, Path]]:
        """Flag and path of every file that is written."""
        wanted = (
            ("-o", self.target),
            ("--save-plan", self.save_plan),
            ("--save-scores", self.save_scores),
            ("--report", self.report),
        )
        return [(flag, path) for flag, path in wanted if path is not None]

    @property
    def cuts_channels(self) -> bool:
        """Whether whole channels are cut out, instead of connections being set to zero."""
        return self.granularity == CHANNEL

    @property
    def _structure(self) -> Structure:
        return KERNEL if self.cuts_channels else parse_structure(self.granularity)

    @property
    def budgets_besides_sweep(self) -> dict[str, object]:
        """Everything else that could say how much goes, by flag."""
        return {
            "--alpha": self.alpha,
            "--alpha-conv": self.alpha_conv,
            "--alpha-fc": self.alpha_fc,
            "--alpha-layer": self.alpha_layer,
            "--sparsity": self.sparsity,
            "--ratio": self.ratio,
            "--target-params": self.target_params,
            "--target-macs": self.target_macs,
            "--target-bytes": self.target_bytes,
            "--target-latency": self.target_latency,
            "--max-drop": self.max_drop,
        }

    @property
    def _budget(self) -> Budget:
        if self.cuts_channels:
            return self.budget(None, None)
        return self.budget(self.target_params, self.target_macs)

    @property
    def settings(self) -> Settings:
        """The choices that the method knows."""
        structure = self._structure
        budget = self._budget
        return Settings(
            alpha=alpha_besides(self.alpha, budget, structure),
            alpha_conv=self.alpha_conv,
            alpha_fc=self.alpha_fc,
            alpha_layers=parse_alphas(self.alpha_layer),
            estimator=choose_member("--estimator", Estimator, self.estimator),
            structure=structure,
            criterion=self.criterion or ("obs" if self.cuts_channels else ""),
            budget=budget,
            scope=choose_member("--scope", Scope, self.scope or Scope.GLOBAL.value),
            sensitivity=losses_in(self.sensitivity) if self.sensitivity else (),
            memory=self.memory_bytes(),
            seed=self.seed,
            repair="none" if self.cuts_channels else self.repair or "",
            reconstruction=self.reconstruction,
            only=tuple(self.only or ()),
            skip=tuple(self.skip or ()),
            samples=parse_samples(self.samples),
            batch_size=self.batch_size,
            provider=self.provider,
        )
