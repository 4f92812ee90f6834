"""How strongly every weight of a model moves its outputs, or its loss: for the criterion `taylor`.

Whatever needs torch is imported where it is used, so that a missing extra is a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_relief.bridge.extra import require_extra
from onnx_relief.data import Dataset, first_sample
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.sites import Part
from onnx_relief.graph.walk import TensorHome, parts_of
from onnx_relief.progress import ticker
from onnx_relief.results import Progress

Squares = Mapping[TensorHome, NDArray[np.float64]]


def weight_gradients(
    document: Document,
    data: Dataset,
    *,
    by_labels: bool = False,
    batch_size: int = 1,
    seed: int = 0,
    provider: str = "auto",
    progress: Progress | None = None,
) -> dict[str, tuple[NDArray[np.float64], ...]]:
    """Return by layer the mean squared gradient of each of its weights, in canonical rows.

    Args:
        document: The model; it is not changed.
        data: Samples.
        by_labels: Take the gradient of the cross entropy of the labels. Without, that of the
            outputs along random signs: what the weight does to the outputs, whatever the task.
        batch_size: Samples per pass. With 1 every sample's gradient is squared by itself; with more
            random signs stand in for that, which is quicker, and the same in expectation. Where an
            output that is looked at has no row for each sample, they go one by one.
        seed: Of the signs.
        provider: Execution provider of ONNX Runtime, for the check of the bridge.
        progress: Told of every pass.

    Returns:
        Arrays (units, inputs, taps), one for each of the layer's weights. Of weights that are
        stored as integers it is the gradient by the numbers that these stand for; layers whose
        weights are computed from other constants are left out.

    Raises:
        SettingsError: The `[retrain]` extra is missing.
        UnsupportedError: The model has no faithful torch module, or its weights move no output of
            floats.
        DataError: Labels are wanted and there are none, or they suit no output.
    """
    require_extra()
    from onnx_relief.bridge.check import check
    from onnx_relief.bridge.convert import convert
    from onnx_relief.bridge.gradients import squared_gradients

    module = convert(document)
    check(module, document, first_sample(data).feed, provider=provider)
    tick = ticker(progress, "measuring gradients", data.size)
    squares = squared_gradients(
        module, data, by_labels=by_labels, batch_size=batch_size, seed=seed, tick=tick
    )
    return _by_layer(find_layers(document), squares)


def _by_layer(survey: Survey, squares: Squares) -> dict[str, tuple[NDArray[np.float64], ...]]:
    return {
        site.layer.name: tuple(_rows(part, squares) for part in site.parts)
        for site in survey.sites
        if all(home in squares for part in site.parts for home in parts_of(part.view.home))
    }


def _rows(part: Part, squares: Squares) -> NDArray[np.float64]:
    """Return what belongs to the stored elements of a weight as the rows of its layer."""
    stored = np.concatenate([squares[home].reshape(-1) for home in parts_of(part.view.home)])
    rows: NDArray[np.float64] = part.layout.to_rows(part.view.as_seen(stored))
    return rows
