"""Biases that give back the mean signal of channels that went, unless that does harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channels.tensors import moments_of
from onnx_relief.data import Dataset
from onnx_relief.data.held_out import held_out
from onnx_relief.graph.channels import Trace
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.repair import Guard, Repaired, judged
from onnx_relief.report.text import change_text
from onnx_relief.results import RepairRow
from onnx_relief.settings import Settings


def mean_inputs(
    survey: Survey, trace: Trace, calibration: Dataset, settings: Settings
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of every channel that a layer reads, by tensor."""
    names = {read.tensor for read in trace.reads if read.other is None}
    data = held_out(calibration, settings.samples).work
    found = moments_of(survey, trace, names, data, settings)
    return {name: seen.mean for name, seen in found.items()}


def nearer(
    plain: Document, mended: Document, dense: Document, calibration: Dataset, settings: Settings
) -> Repaired:
    """Return the model whose biases are corrected, or the plain one if that is nearer to the dense.

    Raises:
        ModelError, DataError: A model cannot be run on the data.
    """
    split = held_out(calibration, settings.samples)
    guard = Guard(dense, split.judge, batch_size=settings.batch_size, provider=settings.provider)
    return judged("mean", plain, mended, guard, split)


def row_of(first: Repaired, found: Repaired) -> RepairRow | None:
    """Return how repair turned out, after the mean signal was given back."""
    if found.kind == "none":
        return None if first.kind == "none" else first.row
    if not first.undone:
        return found.row
    assert first.before is not None, "it was judged"
    assert first.after is not None, "it was judged"
    undone = (
        "biases that give back the mean signal made the outputs worse on held-out samples "
        f"({change_text(first.before, first.after)}), so that is undone"
    )
    return replace(found.row, notes=(*found.notes, undone))
