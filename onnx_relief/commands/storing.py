"""Flags of the commands that store what is zero in another form, or cut it out."""

from __future__ import annotations

from typing import Annotated

import typer

from onnx_relief.errors import SettingsError

RoundTo = Annotated[
    str,
    typer.Option(
        help="Keep a multiple of so many channels, some of them as zeros, since runtimes work in "
        "blocks; 1 removes all; auto: 16, 8 or 4, whichever still fits four times."
    ),
]
Store = Annotated[
    str,
    typer.Option(
        help="dense, or sparse: weights with very few numbers as sparse tensors, where the file "
        "gets smaller by it. Only ONNX Runtime reads those, and once zipped nothing is won."
    ),
]


def parse_round_to(text: str) -> int | None:
    """Return the multiple; None for ``auto``.

    Raises:
        SettingsError: It is neither a positive number nor ``auto``.

    >>> parse_round_to("8"), parse_round_to("auto")
    (8, None)
    """
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingsError(f"--round-to {text!r} is no number of channels; give 8, 1, or auto")
    return int(text)
