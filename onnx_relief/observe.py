"""Run a model once to learn the shape of every tensor, and the integers that shapes are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.graph.channels.trace import Observed
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.runtime import open_session

Array = NDArray[Any]
_AT_ONCE = 48
"""Tensors that are held in memory at a time."""
_SMALL = 1 << 16
_SCALES = 16
"""Whole numbers up to so many may be places or sizes, and others up to so many scales."""


def observe(survey: Survey, feed: Mapping[str, Array], *, provider: str = "cpu") -> Observed:
    """Return what one run of the main graph shows.

    Args:
        survey: The model.
        feed: Inputs by name.
        provider: Execution provider of ONNX Runtime.

    Raises:
        ModelError: The model cannot be run.
    """
    shapes: dict[str, tuple[int, ...]] = {name: array.shape for name, array in feed.items()}
    values: dict[str, Array] = {}
    scope = survey.model.scopes[0]
    for name in (*scope.initializers, *scope.sparse, *_constant_nodes(survey)):
        view = survey.constants.resolve(scope, name)
        if not isinstance(view, str):
            shapes[name] = view.shape
            if _is_told(view.dtype, view.size):
                values[name] = np.asarray(survey.constants.values(view))
    names = [name for name in scope.producers if name not in shapes]
    document = survey.document
    for start in range(0, len(names), _AT_ONCE):
        chunk = names[start : start + _AT_ONCE]
        for name, value in _run(document, feed, chunk, provider).items():
            if isinstance(value, np.ndarray):
                shapes[name] = value.shape
                if _is_told(value.dtype, value.size):
                    values[name] = value
    return Observed(shapes, values)


def _is_told(dtype: np.dtype[Any], size: int) -> bool:
    return size <= (_SMALL if dtype.kind in "iu" else _SCALES)


def _constant_nodes(survey: Survey) -> list[str]:
    scope = survey.model.scopes[0]
    return [name for name, node in scope.producers.items() if node.op_type == "Constant"]


def _run(
    document: Document, feed: Mapping[str, Array], names: list[str], provider: str
) -> dict[str, Any]:
    proto = onnx.ModelProto()
    proto.CopyFrom(document.proto)
    given = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in given)
    session = open_session(proto, provider=provider, folder=document.folder)
    return session.run(feed, names)
