"""Write new weights and biases of layers, given as rows, into the file where it keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import FLOATS, Survey
from onnx_relief.graph.quantised import as_integers
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.sites import Part, Site
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import TensorHome

OTHER_FORM: Final = "its weight is stored in another form than it is used"
"""Why a layer stays as it is for which `can_be_set` is false."""


def write_rows(
    document: Document,
    survey: Survey,
    weights: Mapping[str, NDArray[Any]],
    bias_shifts: Mapping[str, NDArray[Any]],
) -> Document:
    """Return a copy of the document with new weights, and with something added to biases.

    Args:
        document: A model with the layers of `survey`, in which other values may have changed.
        survey: The dense model.
        weights: By layer, (units, inputs, taps).
        bias_shifts: By layer with a bias of its own, what its outputs should rise by, (units,).
    """
    values: dict[TensorHome, NDArray[Any]] = {}
    for site in survey.sites:
        name = site.layer.name
        if name in weights:
            part = site.parts[0]
            values[part.view.home] = as_stored(survey.constants, part, weights[name])
        if name in bias_shifts and site.bias and site.layer.bias:
            old = survey.rows(site.bias).astype(np.float64)
            shift = bias_shifts[name].reshape(old.shape) / site.layer.bias.scale
            values[site.bias.view.home] = as_stored(survey.constants, site.bias, old + shift)
    return write_constants(document, values)


def as_stored(constants: Constants, part: Part, rows: NDArray[Any]) -> NDArray[Any]:
    """Return a weight or bias in the shape and the numbers that the file stores, from its rows.

    Integers are rounded, with the scale that they have.
    """
    view = part.view
    seen = part.layout.from_rows(rows, view.shape)
    if view.quantised:
        seen = as_integers(constants, view, seen)
    return view.as_stored(seen).reshape(view.stored_shape)


def as_read(constants: Constants, part: Part, rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows as they will be read once they were stored: rounded, where integers are."""
    view = part.view
    if not view.quantised:
        return rows
    seen = part.layout.from_rows(rows, view.shape)
    return part.layout.to_rows((as_integers(constants, view, seen) - view.zero) * view.scale)


def can_be_set(part: Part) -> bool:
    """Return whether other numbers can be stored so that the node sees about what it should.

    They can be where the stored numbers are those that are used, casts of them, or integers that a
    DequantizeLinear scales.
    """
    view = part.view
    plain = (
        view.stored_type.name in FLOATS and not view.zero.any() and bool((view.scale == 1).all())
    )
    return view.quantised or plain


def why_not_updated(site: Site, shared: Set[TensorHome]) -> str | None:
    """Return why single values of a layer's weight cannot be set to any number, or None.

    Args:
        site: The layer.
        shared: Constants that several layers read.
    """
    part = site.parts[0]
    if len(site.parts) > 1:
        return "it is recurrent"
    if part.view.home in shared:
        return "other layers read its weight, too"
    if not can_be_set(part):
        return OTHER_FORM
    return None
