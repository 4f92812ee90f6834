"""Flags of the commands that store what is zero in another form, or cut it out."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from onnx_relief.compaction.compact import compact_on
from onnx_relief.errors import SettingsError
from onnx_relief.graph.sparse_store import is_sparse, store_sparse
from onnx_relief.job import Job
from onnx_relief.pipeline import Pruned

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


def stored(pruned: Pruned, job: Job, *, compact: bool, round_to: str, store: str) -> Pruned:
    """Return what was pruned in the form that the flags ask for.

    Raises:
        SettingsError: A flag cannot be understood.
        UnsupportedError: The smaller model would differ.
    """
    if compact:
        smaller = compact_on(
            pruned.document,
            job.evaluation,
            provider=job.settings.provider,
            round_to=parse_round_to(round_to),
        )
        pruned = replace(pruned, document=smaller.document)
    if is_sparse(store):
        pruned = replace(pruned, document=store_sparse(pruned.document)[0])
    return pruned


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
