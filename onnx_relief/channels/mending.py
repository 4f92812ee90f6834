"""Biases that give back the mean signal of channels that went, unless that does harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_relief.data import Dataset
from onnx_relief.data.held_out import held_out
from onnx_relief.graph.channels import Trace
from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.measuring.moments import Channels, moments
from onnx_relief.repair import Guard, Repaired, judged
from onnx_relief.report.text import change_text
from onnx_relief.results import RepairRow
from onnx_relief.settings import Settings


def mean_inputs(
    survey: Survey, trace: Trace, calibration: Dataset, settings: Settings
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of every channel that a layer reads, by tensor."""
    main = {name for name, home in trace.whole.homes.items() if home.parent is None}
    names = main.intersection(read.tensor for read in trace.reads if read.other is None)
    wide = {site.data for site in survey.sites if site.parts[0].view.dtype == np.float64}
    where = {
        name: Channels(trace.of(name).ndim, varying(trace.of(name))[0], wide=name in wide)
        for name in sorted(names)
        if varying(trace.of(name))
    }
    found = moments(
        survey.document,
        where,
        held_out(calibration, settings.samples).work,
        batch_size=settings.batch_size,
        provider=settings.provider,
    )
    return {name: found[name].mean for name in where}


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
