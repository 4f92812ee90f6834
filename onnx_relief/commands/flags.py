"""Flags that several commands take, each declared once: types of fields of their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA = "Data"
WRITING = "What is written"

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)]

Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=1x3x48x320",
        help="Shape of an input with free sizes, to learn the MACs without data; repeatable.",
    ),
]

Samples = Annotated[
    str,
    typer.Option(
        help="At most so many samples of --data, evenly spread; or all.", rich_help_panel=DATA
    ),
]

TrainingData = Annotated[
    str, typer.Option(help="Training data, as `prune` takes it.", rich_help_panel=DATA)
]

JudgingData = Annotated[
    str | None,
    typer.Option(
        help="Data to judge on; by default the part split off --data.", rich_help_panel=DATA
    ),
]

ReportFile = Annotated[
    Path | None,
    typer.Option(help="Everything that is printed, as .json.", rich_help_panel=WRITING),
]

Restart = Annotated[
    bool,
    typer.Option("--restart", help="Begin anew instead of going on.", rich_help_panel=WRITING),
]

Force = Annotated[
    bool, typer.Option("--force", help="Replace files that exist.", rich_help_panel=WRITING)
]
